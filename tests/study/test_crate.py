"""A study as one archive: what it holds and says, and what `unpack` shows, compares and refuses."""

import json
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline_src import cli
from pipeline_src.core import files
from pipeline_src.reports.aggregate import aggregate
from pipeline_src.study import crate, supplement
from pipeline_src.study.crate import METADATA, PROFILES
from pipeline_src.study.plan import Plan
from pipeline_src.study.runs import write_record
from tests.reports.study import Study, epochs, metrics, record
from tests.workflow.small import write_params

OWN = "extends: base/params.yaml\nstudy: {seeds: [0, 1], methods: [joint, ogm]}\ntracking: {enabled: false}\n"
PACK = ["--author", "Ada Lovelace, 0000-0002-1825-0097", "--author", "C. Babbage", "--licence", "CC-BY-4.0"]


def write(plan: Plan, accuracy: float) -> None:
    """The runs of a plan, written by hand, and the tables and report of them."""
    for run in plan.runs:
        modalities = dict.fromkeys(run.cell.spec.modalities, 0.5)
        scores = metrics(accuracy + run.seed / 100, **modalities)
        files.write_sealed(run.metrics, {"names": run.names, "metrics": scores})
        files.write_text(run.folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in epochs(run)))
        (run.folder / "weights.safetensors").write_bytes(b"weights")
        write_record(run.folder, record(run) | {"started": "2026-01-01T10:00:00+00:00"})
        Study.write_predictions(SimpleNamespace(), run, accuracy)
    aggregate(plan)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a finished study, mine.yaml, that extends another file."""
    folder = tmp_path_factory.mktemp("crate")
    (folder / "base").mkdir()
    write_params(folder / "base")
    (folder / "mine.yaml").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write(Plan("mine.yaml"), 0.6)
    return folder


@pytest.fixture
def study(made, tmp_path, monkeypatch) -> Plan:
    shutil.copytree(made, tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")
    return Plan("mine.yaml")


@pytest.fixture
def archive(study, capsys) -> Path:
    assert cli.main(["pack", "--params", "mine.yaml", *PACK]) == 0
    assert capsys.readouterr().out.startswith("mine.crate.zip: 8 runs, ")
    return Path("mine.crate.zip")


def refused(capsys, *arguments: str) -> str:
    assert cli.main([*arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def graph(archive: Path) -> dict[str, dict]:
    with zipfile.ZipFile(archive) as opened:
        return {one["@id"]: one for one in json.loads(opened.read(METADATA))["@graph"]}


def test_it_holds_params_records_predictions_tables_and_report_and_no_weights(archive, study):
    with zipfile.ZipFile(archive) as opened:
        names = set(opened.namelist())
    run = study.runs[-1]
    needed = {"params/mine.yaml", "params/base/params.yaml", crate.WHOLE, "Snakefile", "workflow/rules/train.smk"}
    needed |= {"envs/requirements.txt", "LICENSE", "CITATION.cff", "README.md", METADATA}
    needed |= {f"results/studies/mine/{name}" for name in ("report.html", "metrics.parquet", "tables/accuracy.tex")}
    needed |= {str(run.record), str(run.metrics), str(run.evaluation / "predictions.parquet")}
    assert needed <= names
    assert not [name for name in names if "weights" in name or name.startswith("data/")]


def test_weights_come_if_they_are_asked_for(study):
    assert cli.main(["pack", "--params", "mine.yaml", "--weights", "--output", "w.zip"]) == 0
    with zipfile.ZipFile("w.zip") as opened:
        assert sum(name.endswith("weights.safetensors") for name in opened.namelist()) == 8


def ids(value) -> list[str]:
    return [one["@id"] for one in (value if isinstance(value, list) else [value])]


def test_what_the_profiles_require_is_said(archive):
    """RO-Crate 1.1 (descriptor, root), Workflow RO-Crate 1.0 (main entity), Workflow Run Crate 0.5 (action)."""
    held = graph(archive)
    descriptor, root = held[METADATA], held["./"]
    assert ids(descriptor["about"]) == ["./"]
    assert {"https://w3id.org/ro/crate/1.1", "https://w3id.org/workflowhub/workflow-ro-crate/1.0"} == set(
        ids(descriptor["conformsTo"])
    )
    assert root["@type"] == "Dataset" and len(root["description"]) > 50 and len(root["datePublished"]) == 10
    assert root["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}
    assert set(ids(root["conformsTo"])) == set(PROFILES)
    assert all(held[name]["@type"] == "CreativeWork" and held[name]["version"] for name in PROFILES)
    (main,) = ids(root["mainEntity"])
    assert set(held[main]["@type"]) == {"File", "SoftwareSourceCode", "ComputationalWorkflow"}
    assert held[held[main]["programmingLanguage"]["@id"]]["name"] == "Snakemake"
    action = held[ids(root["mentions"])[0]]
    assert action["@type"] == "CreateAction" and ids(action["instrument"]) == [main]
    assert action["startTime"] == "2026-01-01T10:00:00+00:00" < action["endTime"]
    assert {"params/mine.yaml", crate.WHOLE} <= set(ids(action["object"]))
    assert "results/studies/mine/metrics.parquet" in ids(action["result"])
    authors = ids(root["author"])
    assert authors == ["https://orcid.org/0000-0002-1825-0097", "#C-Babbage"]
    assert [held[name]["name"] for name in authors] == ["Ada Lovelace", "C. Babbage"]


def test_every_file_is_named_once_with_its_size_and_checksum(archive):
    named = {name: one for name, one in graph(archive).items() if "File" in one["@type"]}
    assert set(ids(graph(archive)["./"]["hasPart"])) == set(named)
    with zipfile.ZipFile(archive) as opened:
        assert set(opened.namelist()) == {*named, METADATA}
        for name, one in named.items():
            assert int(one["contentSize"]) == opened.getinfo(name).file_size and len(one["sha256"]) == 64
            assert one["encodingFormat"]


def test_it_is_read_back_shown_and_compared(archive, capsys):
    write(Plan("mine.yaml"), 0.7)  # a study of one's own, of the same configurations
    assert cli.main(["unpack", "mine.crate.zip", "--with", "mine.yaml"]) == 0
    text = capsys.readouterr().out
    assert "Counterpoise study mine by Ada Lovelace, C. Babbage" in text
    assert "licence: https://spdx.org/licenses/CC-BY-4.0" in text
    assert "## Accuracy: av_digits" in text
    assert "report: supplements/mine/results/studies/mine/report.html" in text
    assert Path("supplements/mine/results/studies/mine/report.html").is_file()
    row = next(line for line in text.splitlines() if line.startswith("av_digits") and " joint " in line)
    assert row.split()[-9:] == ["60.5", "±", "0.7", "(2)", "70.5", "±", "0.7", "(2)", "+10.0"]
    assert "8 runs have one address" in text


def test_configurations_of_one_study_alone_are_shown_as_such(archive, capsys):
    Path("other.yaml").write_text(OWN.replace("[joint, ogm]", "[joint, opm]").replace("[0, 1]", "[0]"))
    write(Plan("other.yaml"), 0.5)
    assert cli.main(["unpack", "mine.crate.zip", "--with", "other.yaml"]) == 0
    text = capsys.readouterr().out
    lines = {line.split()[3]: line.split()[5:] for line in text.splitlines() if line.startswith("av_digits")}
    assert lines["ogm"] == ["60.5", "±", "0.7", "(2)"] and lines["opm"] == ["50.0", "(1)"]
    assert lines["joint"][-1] == "-10.5" and "3 runs have one address" in text


def rewritten(archive: Path, change) -> None:
    """The archive with other members: `change` gets and returns {name: bytes}."""
    with zipfile.ZipFile(archive) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}
    with zipfile.ZipFile(archive, "w") as written:
        for name, content in change(members).items():
            written.writestr(name, content)


def without_software(members: dict[str, bytes]) -> dict[str, bytes]:
    value = json.loads(members[METADATA])
    value["@graph"] = [one for one in value["@graph"] if one["@id"] != crate.SOFTWARE]
    return members | {METADATA: json.dumps(value).encode()}


CHANGES = {
    "a changed file": (lambda held: held | {"params/mine.yaml": b"study: {}"}, "but got params/mine.yaml damaged"),
    "a missing file": (
        lambda held: {n: c for n, c in held.items() if n != "LICENSE"},
        "LICENSE, but got none",
    ),
    "another file": (lambda held: held | {"more.txt": b"x"}, "expected no more.txt"),
    "no metadata": (lambda held: {n: c for n, c in held.items() if n != METADATA}, f"but got no {METADATA}"),
    "no JSON": (lambda held: held | {METADATA: b"{"}, "that is no RO-Crate (JSONDecodeError)"),
    "no graph": (lambda held: held | {METADATA: b"[]"}, "that is no RO-Crate (TypeError)"),
    "another program's": (without_software, "an RO-Crate of another program: Counterpoise study mine"),
    "a path that leaves": (lambda held: held | {"../out.txt": b"x"}, "is a path that leaves the folder"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_damaged_or_foreign_archive_is_refused_and_nothing_is_left(archive, capsys, case):
    change, says = CHANGES[case]
    rewritten(archive, change)
    line = refused(capsys, "unpack", "mine.crate.zip")
    assert says in line and "mine.crate.zip: " in line
    assert not Path("supplements").exists() or not list(Path("supplements").iterdir())
    assert not Path("out.txt").exists()


def test_what_is_no_archive_is_one_line(archive, capsys):
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert "mine.crate.zip: cannot be unpacked: " in refused(capsys, "unpack", "mine.crate.zip")
    assert "absent.zip: expected an archive that" in refused(capsys, "unpack", "absent.zip")
    assert "mine.yaml: expected a name that ends with .zip" in refused(capsys, "unpack", "mine.yaml")
    Path("there").mkdir()
    assert "there: expected no such folder" in refused(capsys, "unpack", "mine.crate.zip", "--folder", "there")


def test_what_cannot_be_packed_is_one_line(study, capsys):
    Path("mine.crate.zip").touch()
    assert "expected no such file, but it is there" in refused(capsys, "pack", "--params", "mine.yaml")
    with study.runs[0].metrics.open("r+") as opened:
        opened.write("[")
    line = refused(capsys, "pack", "--params", "mine.yaml", "--output", "a.zip")
    assert str(study.runs[0].metrics) in line and "damaged file" in line
    study.runs[0].metrics.unlink()
    line = refused(capsys, "pack", "--params", "mine.yaml", "--output", "a.zip")
    assert f"mine.yaml: expected a finished study, but {study.runs[0].metrics} is not there" in line
    assert not Path("a.zip").exists()


def test_without_a_licence_it_says_so(study):
    assert cli.main(["pack", "--params", "mine.yaml", "--title", "A table"]) == 0
    root = graph(Path("mine.crate.zip"))["./"]
    assert root["license"] == crate.NO_LICENCE and root["name"] == "A table" and "author" not in root
    folder = supplement.unpack(Path("mine.crate.zip"), Path("own"))
    assert f"licence: {crate.NO_LICENCE}" in supplement.summary(folder)
