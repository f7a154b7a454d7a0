"""What `new` writes runs as it is: a study of files, a study, a method and an encoder with their tests."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline_src import cli
from pipeline_src.study.new import KINDS
from pipeline_src.study.plan import Plan
from tests.media import clips

ROOT = Path(__file__).parents[2]


@pytest.fixture
def media(tmp_path, monkeypatch):
    """A folder with a table of files of every kind; works in the folder above."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "media"
    folder.mkdir()
    for i in range(12):
        clips.write(folder / f"{i}.wav", wave=clips.noise(0.5, 8000, seed=i), rate=8000)
        Image.new("RGB", (20, 20)).save(folder / f"{i}.jpg")
        np.save(folder / f"{i}.npy", np.ones((3, 4), np.float32))
        (folder / f"{i}.txt").write_text("some words")
    table = pd.DataFrame({"id": [f"s{i}" for i in range(12)], "label": ["a", "b"] * 6, "age": 30.5})
    for column, suffix in (("Voice", "wav"), ("photo", "jpg"), ("pose", "npy"), ("words", "txt")):
        table[column] = [f"{i}.{suffix}" for i in range(12)]
    return folder, table


def refused(capsys, says: str, *arguments: str) -> None:
    assert cli.main(["new", *arguments]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("error: ") and says in said[0], said


@pytest.mark.parametrize("file", ["samples.csv", "samples.parquet"])
def test_a_dataset_is_a_study_of_what_the_table_lists(media, capsys, file):
    folder, table = media
    table.to_csv(folder / file, index=False) if file.endswith("csv") else table.to_parquet(folder / file)
    assert cli.main(["new", "dataset", "mine", "--folder", "media"]) == 0
    steps = capsys.readouterr().out
    assert "snakemake --cores all --config params=mine.yaml" in steps
    data = Plan("mine.yaml").named("mine")[0]
    kinds = {m: extractor.name for m, extractor in data.extractors.items()}
    assert kinds == {"voice": "fbank", "photo": "image", "pose": "array", "words": "tokens"}
    assert data.extractors["voice"].shape == (40, 50) and data.extractors["pose"].shape == (3, 4)
    assert cli.main(["check", "mine", "--params", "mine.yaml"]) == 0
    assert "ready     12 clips, 0 quarantined" in capsys.readouterr().out
    refused(capsys, "mine.yaml: expected no such file", "dataset", "mine", "--folder", "media")


def test_a_column_of_arrays_becomes_a_modality(media, capsys):
    folder, table = media
    table["pulse"] = [[0.5, 1.5, 2.5, 3.5]] * 12
    table.drop(columns=["Voice", "words"]).to_parquet(folder / "samples.parquet")
    assert cli.main(["new", "dataset", "mine", "--folder", "media"]) == 0
    data = Plan("mine.yaml").named("mine")[0]
    assert {m: extractor.name for m, extractor in data.extractors.items()} == {
        "photo": "image",
        "pose": "array",
        "pulse": "array",
    }
    assert data.extractors["pulse"].shape == (1, 4)
    assert cli.main(["check", "mine", "--params", "mine.yaml"]) == 0


def test_a_study_extends_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new", "study", "weak"]) == 0
    plan, shipped = Plan("weak.yaml"), Plan(ROOT / "params.yaml")
    assert plan.params.tracking.experiment == "weak" and plan.results == Path("results/studies/weak")
    assert [run.record for run in plan.runs] == [run.record for run in shipped.runs]
    assert Path("weak.yaml").stat().st_size < 1200 and "/extending.schema.json" in Path("weak.yaml").read_text()


def test_a_method_and_an_encoder_pass_the_tests_that_come_with_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new", "method", "my_way"]) == 0
    assert cli.main(["new", "encoder", "my_net", "--folder", "mine"]) == 0
    tests = [str(tmp_path / f"mine/test_{name}.py") for name in ("my_way", "my_net")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), *tests],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "5 passed" in done.stdout, done.stdout[-2000:]
    text = (ROOT / "params.yaml").read_text()
    text = text.replace("methods: [joint,", "methods: [my_way, joint,").replace("\nstudy:", "\nplugins: [mine]\nstudy:")
    text = text.replace("{kind: resnet, width: 16, depth: [1, 1, 1, 1]}", "{kind: my_net, features: 8}")
    Path("p.yaml").write_text(text)
    code = "from pipeline_src.study.plan import Plan; print([c.method for c in Plan('p.yaml').cells].count('my_way'))"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    planned = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert planned.stdout == "1\n", planned.stderr


def test_what_cannot_be_written_is_one_line(media, capsys):
    folder, table = media
    refused(capsys, "media: expected one table", "dataset", "mine", "--folder", "media")
    refused(
        capsys,
        "nowhere: expected the folder of your files, but there is none",
        "dataset",
        "mine",
        "--folder",
        "nowhere",
    )
    table[["id", "label", "photo", "age"]].to_csv(folder / "samples.csv", index=False)
    refused(capsys, "expected at least two columns with paths of files", "dataset", "mine", "--folder", "media")
    (folder / "samples.csv").write_text("id,label,photo\n")
    refused(capsys, "samples.csv: expected rows, but got none", "dataset", "mine", "--folder", "media")
    (folder / "samples.csv").write_text("")
    refused(capsys, "samples.csv: expected a table, but got an error", "dataset", "mine", "--folder", "media")
    refused(capsys, "expected a name that no method has, but got 'ogm_ge'", "method", "ogm_ge")
    refused(capsys, "expected a name of small letters", "method", "My-Way")
    refused(capsys, "expected a name of letters, digits", "encoder", "net", "--folder", "a-b")
    refused(capsys, "expected a name of at most 64 small letters", "study", "../up")
    assert not list(Path().glob("*.yaml")) and not Path("mine").exists()
    assert len(KINDS) == 4
