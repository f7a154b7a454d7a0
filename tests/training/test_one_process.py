"""`train METRICS`: training and evaluation in one process, each left out where it is done."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.evaluation import run as evaluation
from pipeline_src.study.plan import Plan, Run
from pipeline_src.training import ranks
from pipeline_src.training import run as training
from tests.attacks.judge import STUDY, call

FILE = "params.yaml"


@pytest.fixture(scope="module")
def cached(tmp_path_factory) -> Path:
    """The small study up to its cache."""
    folder = tmp_path_factory.mktemp("cached")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path(FILE).write_text(STUDY)
        for stage in ("fetch", "manifest", "extract", "cache"):
            assert call(stage).status == 0
    return folder


@pytest.fixture
def one(cached, tmp_path, monkeypatch) -> Run:
    """A run of a copy of the study, the current folder."""
    monkeypatch.chdir(shutil.copytree(cached, tmp_path / "study"))
    return Plan().runs[-1]


def told(outcome) -> list[str]:
    """The stages that said something."""
    return list(dict.fromkeys(line.split()[1] for line in outcome.err.splitlines()))


def test_one_process_makes_what_two_make(one):
    outcome = call("train", one.metrics)
    assert outcome.status == 0 and told(outcome) == ["train", "evaluate"]
    files = [*one.train_files[1:], *one.evaluate_files]
    once = [file.read_bytes() for file in files if file.name != "metrics.jsonl"]
    rows = training.RunFiles(one).rows()
    shutil.rmtree(one.folder)
    assert call("train", one.record).status == 0 and not one.metrics.exists()
    assert call("evaluate", one.metrics).status == 0
    assert once[0] == one.train_files[1].read_bytes()
    assert once[-1] == one.evaluate_files[1].read_bytes()
    assert [row["loss"] for row in rows] == [row["loss"] for row in training.RunFiles(one).rows()]


def test_a_run_in_two_processes_is_evaluated_by_the_one_that_started_them(one):
    assert call("train", one.metrics).status == 0
    alone = training.RunFiles(one).rows()
    shutil.rmtree(one.folder)
    Path(FILE).write_text(STUDY.replace("device: cpu\n", "device: cpu\n  gpus: 2\n"))
    outcome = call("train", one.metrics)
    assert outcome.status == 0, outcome.err
    assert one.metrics.exists() and training.RunFiles(one).record()["machine"]["processes"] == 2
    together = training.RunFiles(one).rows()
    assert [row["loss"] for row in together] == pytest.approx([row["loss"] for row in alone], rel=1e-5)
    assert [row["val_accuracy"] for row in together] == [row["val_accuracy"] for row in alone]


def test_a_process_of_a_run_that_was_killed_is_in_its_status(one, monkeypatch):
    def killed(*_) -> None:
        files.write_json(one.folder / "attempt.json", {"status": "running", "pid": os.getpid()})
        raise UserError("train it: expected 2 processes to the end, but got an end of process 1 by SIGKILL")

    Path(FILE).write_text(STUDY.replace("device: cpu\n", "device: cpu\n  gpus: 2\n"))
    monkeypatch.setattr(ranks, "launch", killed)
    outcome = call("train", one.metrics)
    assert outcome.status == 2 and "error: train it: expected 2 processes to the end" in outcome.err
    assert "but got an end of process 1 by SIGKILL" in call("status").out


def test_a_trained_run_is_only_evaluated(one, monkeypatch):
    assert call("train", one.record).status == 0
    weights, record = one.train_files[1].read_bytes(), one.record.read_bytes()
    monkeypatch.setattr(training, "_train", None)
    outcome = call("train", one.metrics)
    assert outcome.status == 0 and told(outcome) == ["evaluate"]
    assert (weights, record) == (one.train_files[1].read_bytes(), one.record.read_bytes())
    assert told(call("train", one.metrics)) == [], "nothing is left to do"


def test_a_failed_evaluation_leaves_the_training(one, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "_evaluate", lambda *_: 1 / 0)
        assert "ZeroDivisionError" in call("train", one.metrics).err
    assert one.record.exists() and not one.metrics.exists()
    assert "trained; evaluation: ZeroDivisionError" in call("status").out
    monkeypatch.setattr(training, "_train", None)
    assert told(call("train", one.metrics)) == ["evaluate"]


def test_a_signal_at_the_end_of_training_leaves_out_the_evaluation(one, monkeypatch):
    tidy = training._tidy

    def signalled(run: Run) -> None:
        tidy(run)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_tidy", signalled)
        outcome = call("train", one.metrics)
    assert outcome.status == 128 + signal.SIGTERM
    assert "stopped by SIGTERM between training and evaluation; goes on when started again" in outcome.err
    assert one.record.exists() and not one.metrics.exists()
    assert told(call("train", one.metrics)) == ["evaluate"]
