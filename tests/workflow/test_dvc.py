"""DVC and Snakemake on one pipeline, for real: neither computes again, loses or overwrites what the other made."""

import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
import yaml

from tests.workflow import repository
from tests.workflow.repository import change, commit, run, start
from tests.workflow.small import jobs, kill

DONE = "Nothing to be done"
FRESH = "Data and pipelines are up to date."
CELLS = {"study": {"methods": ["joint", "ogm"], "unimodal": False}}  # two cells of two seeds
RUNS = {"train": 4}
ONE = {"train": 2, "aggregate": 1}  # what a change of one method makes


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    """A repository whose small study was computed by `dvc repro`, committed and pushed; not to be changed."""
    folder = tmp_path_factory.mktemp("origin")
    repository.make(folder, CELLS)
    run(folder, "dvc", "remote", "add", "--default", "storage", str(tmp_path_factory.mktemp("storage")))
    output = run(folder, "dvc", "repro")
    assert executed(output) == {"fetch": 1, "manifest": 1, "extract": 2, "cache": 1} | RUNS | {"aggregate": 1}
    commit(folder, "The study")
    run(folder, "dvc", "push")
    return folder


@pytest.fixture
def study(origin, tmp_path) -> Path:
    """A copy of the repository, with DVC's cache in it."""
    return shutil.copytree(origin, tmp_path / "study", symlinks=True)


def executed(output: str) -> dict[str, int]:
    """Rule -> number of its jobs that were run."""
    rules = re.findall(r"Finished jobid: \d+ \(Rule: ([\w-]+)\)", output)
    return {rule: rules.count(rule) for rule in rules if rule not in ("all", "data", "features", "runs")}


def records(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): f.read_text() for f in sorted(folder.glob("results/runs/**/record.json"))}


def unprivileged(*command: str) -> list[str]:
    """The command such that it may not write read-only files, also for root."""
    if os.geteuid() or not shutil.which("setpriv"):
        return list(command)
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]


def spoiled(folder: Path) -> list[Path]:
    """Objects of DVC's cache whose content is not what their name says."""
    objects = [file for file in folder.glob(".dvc/cache/files/md5/*/*") if file.is_file()]
    assert objects
    names = {file: file.parent.name + file.name.removesuffix(".dir") for file in objects}
    return [file for file in objects if hashlib.md5(file.read_bytes()).hexdigest() != names[file]]


def test_what_one_computed_the_other_finds(study):
    assert FRESH in run(study, "dvc", "status")
    assert DONE in run(study, "snakemake", "--cores", "2", "-n")
    # Without the lock, DVC knows nothing of what is there, as after Snakemake alone.
    lock = (study / "dvc.lock").read_text()
    (study / "dvc.lock").unlink()
    output = run(study, "dvc", "repro")
    assert output.count(DONE) == 4 and not executed(output)
    assert (study / "dvc.lock").read_text() == lock


def test_everything_is_versioned(origin):
    outs = {
        out["path"]: out
        for stage in yaml.safe_load((origin / "dvc.lock").read_text())["stages"].values()
        for out in stage["outs"]
    }
    ignored = run(origin, "git", "status", "--short", "--ignored").split()
    made = {path.rstrip("/") for path in ignored} - {"!!"}
    assert made - set(outs) <= {"data", "results", "logs", ".snakemake", ".dvc/cache", ".dvc/tmp"} | {
        path for path in made if path.endswith("__pycache__")
    }
    assert {out["md5"].endswith(".dir") for out in outs.values()} == {True, False}


def test_an_experiment_trains_what_its_parameter_changes_and_is_compared(study):
    before = records(study)
    output = run(study, "dvc", "exp", "run", "-S", "methods.ogm.alpha=0.9")
    assert executed(output) == ONE
    after = records(study)
    assert before.items() <= after.items(), "a finished run was lost or trained again"
    new = set(after) - set(before)
    assert len(new) == 2 and all("/ogm-" in file for file in new)

    parameters = json.loads(run(study, "dvc", "params", "diff", "--json"))
    assert set(parameters) == {"params.yaml"} and set(parameters["params.yaml"]) == {"methods.ogm.alpha"}
    alpha = parameters["params.yaml"]["methods.ogm.alpha"]
    assert (alpha["old"], alpha["new"]) == (0.3, 0.9)
    shown = json.loads(run(study, "dvc", "metrics", "show", "--json"))[""]["data"]
    assert set(shown) == {
        f"results/studies/params/metrics/av_digits/concat/{method}.json" for method in ("joint", "ogm")
    }
    assert all(set(one["data"]) == {"fused", "audio", "visual"} for one in shown.values())
    changed = json.loads(run(study, "dvc", "metrics", "diff", "--json"))
    assert set(changed) <= {"results/studies/params/metrics/av_digits/concat/ogm.json"}
    run(study, "dvc", "plots", "diff", "--out", "plots", "HEAD")
    page = (study / "plots/index.html").read_text()
    assert all(word in page for word in ("Accuracy on val", "coefficient", "HEAD", "workspace"))

    # Back to the parameters before: nothing is trained, the tables follow.
    run(study, "git", "checkout", "--", "params.yaml")
    output = run(study, "dvc", "repro")
    assert executed(output) == {"aggregate": 1}
    assert records(study) == after
    assert json.loads(run(study, "dvc", "metrics", "diff", "--json")) == {}
    assert len(re.findall(r"\[\w+-\w+\]", run(study, "dvc", "exp", "list"))) == 1


def test_a_replaced_raw_file_remakes_what_depends_on_it(study):
    one, other = sorted(study.glob("data/raw/*/media/*.mp4"))[:2]
    shutil.copy(one, other)
    expected = {"manifest": 1, "extract": 2, "cache": 1} | RUNS | {"aggregate": 1, "all": 1}
    assert jobs(run(study, "snakemake", "--cores", "2", "-n")) == expected
    assert "modified:           data/raw" in run(study, "dvc", "status")
    output = run(study, "dvc", "repro", "data")
    assert executed(output) == {"manifest": 1}
    del expected["manifest"]
    assert jobs(run(study, "snakemake", "--cores", "2", "-n")) == expected


def test_pulled_elsewhere_there_is_nothing_to_do(origin, tmp_path):
    clone = tmp_path / "elsewhere"
    run(origin, "git", "clone", "--quiet", str(origin), str(clone))
    run(clone, "dvc", "pull")
    now = time.time()
    for i, file in enumerate(sorted(file for part in ("data", "results") for file in (clone / part).rglob("*"))):
        os.utime(file, (now - i, now - i))
    assert DONE in run(clone, "snakemake", "--cores", "2", "-n")
    assert FRESH in run(clone, "dvc", "status")
    assert FRESH in run(clone, "dvc", "repro")
    change(clone, {"methods": {"ogm": {"alpha": 0.9}}})
    assert jobs(run(clone, "snakemake", "--cores", "2", "-n")) == ONE | {"all": 1}


@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_no_command_writes_into_the_cache_through_a_link(study, link):
    run(study, "dvc", "config", "cache.type", link)
    run(study, "dvc", "checkout", "--relink")
    table = study / "results/studies/params/tables/accuracy.csv"
    assert table.is_symlink() or table.stat().st_nlink > 1
    kept, begun = sorted(study.glob("results/runs/*/*/concat/joint-*/seed*"))
    before = (kept / "record.json").read_bytes()
    (begun / "record.json").unlink()  # as a run that was killed, of which DVC stored what there was
    shutil.rmtree(next(begun.glob("evaluation-*")))
    run(
        study, *unprivileged("snakemake", "--cores", "2", "runs")
    )  # one seed of the job is a link, the other is trained
    change(study, {"reporting": {"confidence": 0.9}})
    run(study, *unprivileged("snakemake", "--cores", "2"))  # every table is a link
    assert spoiled(study) == []
    assert (kept / "record.json").read_bytes() == before
    assert not executed(run(study, *unprivileged("dvc", "repro")))
    assert spoiled(study) == []
    assert DONE in run(study, "snakemake", "--cores", "2", "-n")


def test_a_lost_file_is_made_again(study):
    weights = next(study.glob("results/runs/*/*/concat/ogm-*/seed0/weights.safetensors"))
    weights.unlink()
    assert executed(run(study, "dvc", "repro")) == {"train": 1, "aggregate": 1}
    assert weights.exists()
    assert FRESH in run(study, "dvc", "status")
    assert DONE in run(study, "snakemake", "--cores", "2", "-n")


def test_what_is_wrong_is_not_recorded_and_a_checkout_fixes_it(study):
    for clip in sorted(study.glob("data/raw/*/media/*.mp4"))[:4]:
        clip.write_bytes(b"")
    said = "error: av_digits: 4 of 84 clips (4.8%) are quarantined, more than"
    lock = (study / "dvc.lock").read_text()
    assert said in run(study, "dvc", "repro", succeeds=False)
    assert (study / "dvc.lock").read_text() == lock
    run(study, "dvc", "checkout", "--force")
    assert FRESH in run(study, "dvc", "repro")


def test_killed_in_the_middle_either_command_goes_on(tmp_path):
    repository.make(tmp_path, {"training": {"epochs": 20}, "study": {"unimodal": False}})
    pipeline = (tmp_path / "dvc.yaml").read_text()
    (tmp_path / "dvc.yaml").write_text(pipeline.replace("--cores all", "--cores 1"))  # one seed after the other
    process = start(tmp_path, "dvc", "repro")
    deadline = time.time() + 600

    def begun():
        """Runs that are not done: one that is keeps its checkpoint for a moment."""
        folders = [file.parent for file in tmp_path.glob("results/runs/**/checkpoint.safetensors")]
        return [folder for folder in folders if not (folder / "record.json").exists()]

    while not (records(tmp_path) and begun()):
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.05)
    kill(process)
    finished = records(tmp_path)
    assert len(finished) == 1
    left = 2 - len(list(tmp_path.glob("results/runs/**/metrics.json")))
    assert jobs(run(tmp_path, "snakemake", "--cores", "2", "-n"))["train"] == left
    output = run(tmp_path, "dvc", "repro")
    assert executed(output) == {"train": left, "aggregate": 1} and "goes on after epoch" in output
    assert len(records(tmp_path)) == 2
    assert finished.items() <= records(tmp_path).items(), "a finished run was trained again"
    assert DONE in run(tmp_path, "snakemake", "--cores", "2", "-n")


OWN = """
from pathlib import Path

from pipeline_src.datasets.av_digits import AVDigits
from pipeline_src.datasets.base import Dataset, datasets


@datasets.register("mine")
class Mine(AVDigits):
    fetch = Dataset.fetch  # nothing is made of the files

    @property
    def folder(self):
        return Path("media/mine")
"""


def test_a_folder_of_the_users_own_is_watched(study):
    (study / "pipeline_src/datasets/mine.py").write_text(OWN)
    shutil.copytree(next(study.glob("data/raw/av_digits-*")), study / "media/mine")
    (study / "media/mine/files.json").unlink()
    shutil.rmtree(study / "data/raw")
    values = yaml.safe_load((study / "params.yaml").read_text())
    values["datasets"] = {"mine": values["datasets"]["av_digits"] | {"kind": "mine"}}
    values["study"]["datasets"] = ["mine"]
    (study / "params.yaml").write_text(yaml.safe_dump(values))
    run(study, "dvc", "add", "media/mine")
    output = run(study, "dvc", "repro", "data", succeeds=False)
    assert "error: dvc.yaml: stages.data.deps: expected media/mine" in output
    pipeline = (study / "dvc.yaml").read_text()
    (study / "dvc.yaml").write_text(
        pipeline.replace("      - pipeline_src\n", "      - pipeline_src\n      - media/mine\n", 1)
    )
    assert not executed(run(study, "dvc", "repro", "data"))
    one, other = sorted(study.glob("media/mine/media/*.mp4"))[:2]
    shutil.copy(one, other)
    assert executed(run(study, "dvc", "repro", "data")) == {"manifest": 1}
    assert FRESH in run(study, "dvc", "status", "data")
