"""Every kind of file of a finished study, damaged in every way: the stages that read it say which and what to do."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline_src.core.errors import UserError
from pipeline_src.study.plan import Plan
from pipeline_src.study.verify import verify
from tests.attacks.judge import STUDY, as_a_user, call, nothing_lost, refused

STAGES = ("fetch", "manifest", "extract", "cache")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A study that is trained, evaluated and reported."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "params.yaml").write_text(STUDY)
    before = Path.cwd()
    os.chdir(folder)
    try:
        for stage in STAGES:
            assert call(stage).status == 0, stage
        run = Plan().runs[0]
        for arguments in (("train", run.record), ("evaluate", run.metrics), ("aggregate",)):
            outcome = call(*arguments)
            assert outcome.status == 0, outcome.err
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def study(finished, tmp_path, monkeypatch) -> Plan:
    """A copy of the finished study, in the working directory."""
    shutil.copytree(finished, tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")
    return Plan()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 4
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: -(file.stat().st_size // 4) - 1])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def digit(file: Path) -> None:
    """The last digit but those of a checksum becomes another: in text a wrong number, in a table a wrong byte."""
    content = bytearray(file.read_bytes())
    at = max(i for i in range(len(content) - 100) if chr(content[i]).isdigit())
    content[at] = ord("1") if content[at] != ord("1") else ord("2")
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {"flip": flip, "cut": cut, "empty": empty, "digit": digit}

# Kind of file -> (the file, the stage that reads it, what must be missing so that the stage has work).
Case = tuple[Callable[[Plan], Path], str, Callable[[Plan], list[Path]]]
KINDS: dict[str, Case] = {
    "manifest": (lambda p: data(p).manifest / "manifest.parquet", "extract", lambda p: [shard(p)]),
    "manifest for the cache": (
        lambda p: data(p).manifest / "manifest.parquet",
        "cache",
        lambda p: [data(p).cache_file],
    ),
    "quarantine of the manifest": (
        lambda p: data(p).manifest / "quarantine.parquet",
        "cache",
        lambda p: [data(p).cache_file],
    ),
    "shard for the cache": (lambda p: shard(p), "cache", lambda p: [data(p).cache_file]),
    "quarantine of a shard": (
        lambda p: shard(p).with_suffix(".quarantine.parquet"),
        "cache",
        lambda p: [data(p).cache_file],
    ),
    "shard for training": (lambda p: shard(p), "train", lambda p: [p.runs[0].record]),
    "shard for evaluation": (lambda p: shard(p), "evaluate", lambda p: [p.runs[0].metrics]),
    "cache.json for training": (lambda p: data(p).cache_file, "train", lambda p: [p.runs[0].record]),
    "cache.json for evaluation": (lambda p: data(p).cache_file, "evaluate", lambda p: [p.runs[0].metrics]),
    "cache.json for the tables": (lambda p: data(p).cache_file, "aggregate", lambda p: []),
    "quarantine for the tables": (lambda p: data(p).cache / "quarantine.parquet", "aggregate", lambda p: []),
    "record for evaluation": (lambda p: p.runs[0].record, "evaluate", lambda p: [p.runs[0].metrics]),
    "record for the tables": (lambda p: p.runs[0].record, "aggregate", lambda p: []),
    "weights": (lambda p: p.runs[0].train_files[1], "evaluate", lambda p: [p.runs[0].metrics]),
    "metrics.jsonl for evaluation": (lambda p: p.runs[0].train_files[2], "evaluate", lambda p: [p.runs[0].metrics]),
    "metrics.jsonl for the tables": (lambda p: p.runs[0].train_files[2], "aggregate", lambda p: []),
    "metrics.json": (lambda p: p.runs[0].metrics, "aggregate", lambda p: []),
    "predictions": (lambda p: p.runs[0].evaluate_files[1], "aggregate", lambda p: []),
    "files.json": (lambda p: data(p).raw_index, "plan", lambda p: []),
}


def data(plan: Plan):
    return plan.datasets["digits"]


def shard(plan: Plan) -> Path:
    return data(plan).shards[0].with_suffix(".arrow")


def arguments(plan: Plan, stage: str) -> tuple:
    run = plan.runs[0]
    return (stage, *{"train": [run.record], "evaluate": [run.metrics]}.get(stage, []))


def prepared(plan: Plan, kind: str) -> tuple[Path, tuple]:
    """The file of a kind and the call that reads it; what stands in the way of the call is removed."""
    where, stage, remove = KINDS[kind]
    for path in remove(plan):
        path.unlink()
    if stage in (
        "train",
        "evaluate",
    ):  # what is trained or evaluated again ends the index, and the evaluation before it
        plan.index.unlink()
    if stage == "train":
        shutil.rmtree(plan.runs[0].evaluation)
    return where(plan), arguments(plan, stage)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_one_line_with_the_file_and_what_to_do(study, kind, damage):
    file, what = prepared(study, kind)
    DAMAGES[damage](file)
    with nothing_lost(Path(), may_change=r"attempt\.json$", may_appear=r"attempt\.json$"):
        refused(call(*what), r"damaged file .*; delete .* run snakemake again", str(file))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "files.json"])
def test_a_deleted_file_is_one_line(study, kind):
    file, what = prepared(study, kind)
    file.unlink()
    if kind in ("record for the tables", "metrics.json") or (kind.endswith("for the tables") and "cache" in kind):
        assert call(*what).status == 0  # not made yet: the tables show it as missing
        return
    refused(call(*what), "expected a file, but got none", str(file))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_this_user_may_not_read_is_one_line(study, kind):
    file, what = prepared(study, kind)
    file.chmod(0)
    try:
        with as_a_user():
            refused(call(*what), r"may read, but got Permission denied; .*chmod u\+r", str(file))
    finally:
        file.chmod(0o644)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_memory_of_raw_files_is_made_again(study, damage):
    plan = call("plan").out
    (seen,) = Path("data/seen").glob("*.json")
    before = seen.read_bytes()
    DAMAGES[damage](seen)
    assert seen.read_bytes() != before
    assert call("plan") == (0, plan, "")
    assert json.loads(seen.read_bytes()) == json.loads(before)


def test_verify_reads_all_and_says_how_long_it_took(study):
    outcome = call("verify")
    assert outcome.status == 0 and outcome.err == ""
    assert "params.yaml: no damage in " in outcome.out and " MB, in 0:0" in outcome.out


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("named", [False, True])
def test_verify_names_every_damaged_file(study, named, damage):
    """Those that hold their own checksum, and those whose checksum the record, the index or files.json names."""
    by_others = {*study.runs[0].train_files[1:], study.results / "report.html", next(data(study).raw.rglob("*.mp4"))}
    own = {where(study) for where, _, _ in KINDS.values()} | {study.index}
    files = by_others if named else own - by_others
    for file in files:
        DAMAGES[damage](file)
    # With other raw files the manifest has another address; the study as it was planned is verified.
    with pytest.raises(UserError) as error:
        verify(study)
    message = str(error.value)
    assert not [str(file) for file in files if f"{file}: expected it as it was written" not in message]
    assert all(line.endswith(" run snakemake again") for line in message.splitlines()[:-1])


def test_verify_finds_what_is_missing_of_a_finished_run(study):
    study.runs[0].train_files[1].unlink()
    (study.results / "report.html").unlink()
    outcome = call("verify")
    refused(outcome, "weights.safetensors: expected a file, but got none; delete", "report.html", lines=3)
