"""What a run's folder says, at every moment of its life."""

import math
import os
import time

import pytest

from pipeline_src.core.errors import UserError
from pipeline_src.study.outputs import TRIAL, TUNED
from pipeline_src.study.runs import QUIET
from pipeline_src.tracking import view
from tests.tracking.study import begin, finish, metrics, planned, row


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return planned().runs[0]


def test_nothing_is_said_of_a_run_that_was_not_begun(run):
    assert view.read(run) is None
    run.folder.mkdir(parents=True)
    assert view.read(run) is None


def test_only_lines_that_a_checkpoint_covers_count(run):
    begin(run, [row(0), row(1), row(2)], covered=2)
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "lo')
    found = view.read(run)
    assert [epoch for epoch, _, _ in found.epochs] == [1, 2]
    assert [clock for _, clock, _ in found.epochs] == [1.5, 3.0]
    begin(run, [row(0)], covered=0)
    (run.folder / "checkpoint.safetensors").unlink()
    assert view.read(run).epochs == [] and view.read(run).attempt is None


def test_trials_and_tuned_runs_are_told_from_the_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spaces = {"all": {"training.lr": [0.01, 0.1]}}
    plan = planned({"tuning": {"trials": 2, "seeds": [5], "spaces": spaces}})
    plain, trial, tuned = (next(run for run in plan.runs if run.cell.role == role) for role in ("", TRIAL, TUNED))
    for run in (plain, trial):
        finish(run, [row(0)])
    begin(tuned, [row(0)], tuning={"values": {"training.lr": 0.1}})
    tags = [view.read(run).tags for run in (plain, trial, tuned)]
    assert [tag["kind"] for tag in tags] == ["run", "trial", "run"]  # the prepared view shows runs
    assert [tag.get("tuning") for tag in tags] == [None, "trial", "tuned"]
    place = plain.cell.place.as_posix()
    assert [tag["group"] for tag in tags] == [
        f"{place}-{plain.cell.fp}",
        f"{place}/trial-{trial.cell.fp}",
        f"{place}-tuned-{tuned.cell.fp}",
    ]
    assert [tag.get("chosen") for tag in tags] == [None, None, '{"training.lr": 0.1}']


def test_names_of_metrics(run):
    finish(run, [row(0)])
    found = view.read(run)
    assert list(found.epochs[0][2]) == [
        "train/lr",
        "train/seconds",
        "train/loss",
        "ratio/audio",
        "ratio/visual",
        "val/accuracy",
        "val/accuracy_audio",
        "test_each_epoch/accuracy",
    ]
    assert found.final == {
        "test/accuracy": 0.75,
        "test/accuracy_probe_audio": 0.65,
        "test/accuracy_probe_visual": pytest.approx(0.55),
        "val_selected/accuracy": 0.7,
        "run/seconds": 12.5,
    }
    assert set(found.final.values()) == {round(one["value"], 5) for one in metrics(run)}


def test_status_and_times(run):
    begin(run, [row(0)])
    assert view.read(run).status == "RUNNING" and view.read(run).ended is None
    begin(run, [row(0)], status="failed", error="ValueError('no')", ended="2025-01-01T10:01:00+00:00")
    assert view.read(run).status == "FAILED" and view.read(run).tags["error"] == "ValueError('no')"
    begin(run, [row(0)], status="failed", error="KeyboardInterrupt()", ended="2025-01-01T10:01:00+00:00")
    assert view.read(run).status == "KILLED"
    finish(run, [row(0)])
    found = view.read(run)
    assert found.status == "FINISHED" and found.ended - found.started == 5 * 60 * 1000


def test_a_run_that_has_been_silent_for_long_was_killed(run):
    begin(run, [row(0)])
    then = time.time() - QUIET - 60
    for file in run.folder.iterdir():
        os.utime(file, (then, then))
    found = view.read(run)
    assert found.status == "KILLED" and found.ended == pytest.approx(then * 1000, abs=1000)
    begin(run, [row(0, seconds=3600.0)])  # its epochs take an hour
    for file in run.folder.iterdir():
        os.utime(file, (then, then))
    assert view.read(run).status == "RUNNING"


def test_values_that_are_no_numbers(run):
    begin(run, [row(0, loss=math.nan, **{"ratio/audio": math.inf})])
    values = view.read(run).epochs[0][2]
    assert math.isnan(values["train/loss"]) and values["ratio/audio"] == math.inf
    begin(run, [row(0) | {"note": "text", "none": None}])
    assert "train/note" not in view.read(run).epochs[0][2]


def test_an_attempt_is_told_by_its_first_epoch(run):
    begin(run, [row(0)])
    first = view.read(run).attempt
    begin(run, [row(0), row(1)])
    assert view.read(run).attempt == first
    begin(run, [row(0, attempt=1), row(1)])
    assert view.read(run).attempt != first


def test_files_that_are_not_valid_are_named_with_the_mend(run):
    begin(run, [row(0)])
    (run.folder / "attempt.json").write_text("{")
    assert view.read(run) is None  # it is being written
    begin(run, [row(0)])
    (run.folder / "metrics.jsonl").write_text("no\n")
    with pytest.raises(UserError, match=r"metrics.jsonl:1: expected an epoch's JSON object, but got .*; delete "):
        view.read(run)


def test_the_state_changes_when_the_folder_does(run):
    before = view.state(run)
    begin(run, [row(0)])
    begun = view.state(run)
    assert before != begun == view.state(run)
    finish(run, [row(0)])
    assert view.state(run) != begun


def test_a_group_is_one_configuration_whatever_varies_with_the_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def groups(*changes):
        runs = planned({"study": {"seeds": [0, 1]}}, *changes).runs
        return [{view.group(run.cell) for run in runs if run.cell.method == method} for method in ("joint", "ogm_ge")]

    for vary in ({}, {"study": {"vary": ["split", "data"]}}):
        (joint,), (ogm,) = groups(vary)
        assert joint != ogm
        assert groups(vary, {"methods": {"ogm_ge": {"alpha": 0.123}}}) != [{joint}, {ogm}]
        assert groups(vary, {"methods": {"ogm_ge": {"alpha": 0.123}}})[0] == {joint}
        assert groups(vary, {"training": {"lr": 0.123}})[0] != {joint}
        assert groups(vary, {"datasets": {"av_digits": {"texture": 0.123}}})[0] != {joint}, "other data, the same name"


def test_the_gain_is_over_joint_training_of_the_same_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = planned({"study": {"seeds": [0, 1]}})
    others = view.baselines(plan)
    joint, ogm = ([run for run in plan.runs if run.cell.method == method] for method in ("joint", "ogm_ge"))
    assert others == {run.folder: joint[run.seed] for run in ogm}
    finish(ogm[1], [row(0)])
    before = view.read(ogm[1], joint[1])
    assert "test/accuracy_gain" not in before.final
    finish(joint[1], [row(0)])
    found = view.read(ogm[1], joint[1])
    assert found.final["test/accuracy_gain"] == 0.01, "0.76 less 0.75, rounded"
    assert found.digest != before.digest, "it is mirrored again"
    assert view.read(ogm[1], joint[1]).digest == found.digest


def test_a_tuned_run_gains_over_tuned_joint_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = planned({"tuning": {"trials": 2, "seeds": [5], "spaces": {"all": {"training.lr": [0.01, 0.1]}}}})
    others = view.baselines(plan)
    pairs = {(run.cell.method, others[run.folder].cell.method) for run in plan.runs if run.folder in others}
    assert pairs == {("ogm_ge", "joint"), ("ogm_ge-tuned", "joint-tuned")}
