import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from benchmarks import synthetic
from pipeline_src.core import files
from pipeline_src.study.plan import Plan
from pipeline_src.study.runs import write_record
from pipeline_src.study.status import look, status, time_left
from tests.workflow.small import write_params


@pytest.fixture
def plan(tmp_path, monkeypatch):
    write_params(tmp_path, {"training": {"epochs": 10}})
    monkeypatch.chdir(tmp_path)
    return Plan()


def attempt(run, epochs, state="running", age=0.0, **more):
    """The folder of a run that is not done; `age` seconds ago was its last sign of life."""
    about = {"status": state, "machine": {"host": "node7"}, **more}
    files.write_json(run.folder / "attempt.json", about)
    files.write_text(
        run.folder / "metrics.jsonl", "".join(json.dumps({"epoch": i, "seconds": 2}) + "\n" for i in range(epochs))
    )
    for file in run.folder.iterdir():
        os.utime(file, (time.time() - age,) * 2)


def done(run, seconds=100.0, evaluated=True):
    about = {key: {} for key in ("parameters", "cache", "machine", "versions")}
    write_record(
        run.folder, {**run.names, **about, "fingerprint": run.cell.fp, "status": "complete", "seconds": seconds}
    )
    if evaluated:
        files.write_sealed(run.metrics, {})


def test_an_empty_folder(plan):
    said = status(plan)
    assert "6 runs (3 models x 2 seeds)" in said
    assert "missing          6  100.0 %" in said
    assert "time left: not known before the first run is done" in said


def test_every_state_is_told_apart(plan):
    runs = plan.runs
    done(runs[0])
    done(runs[1], evaluated=False)
    attempt(runs[2], 4)
    attempt(runs[3], 5, "failed", error="ValueError('bad')")
    attempt(runs[4], 6, age=7200)
    assert [look(run).state for run in runs] == ["evaluated", "trained", "running", "failed", "stopped", "missing"]
    said = status(plan)
    assert f"{runs[2].label}: epoch 4 of 10 on node7" in said
    assert f"{runs[3].label}: epoch 5 of 10: ValueError('bad')" in said
    assert f"{runs[4].label}: epoch 6 of 10, no sign of life for 2:00:0" in said


def test_interrupted_runs_go_on(plan):
    attempt(plan.runs[0], 3, "interrupted")
    assert look(plan.runs[0]).state == "stopped"
    assert "epoch 3 of 10, saved; snakemake goes on with it" in status(plan)


def test_a_process_of_this_machine_that_is_gone(plan):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    attempt(plan.runs[0], 2, machine={"host": platform.node()}, pid=ended.pid)
    assert look(plan.runs[0]).state == "stopped"
    attempt(plan.runs[0], 2, machine={"host": platform.node()}, pid=os.getpid())
    assert look(plan.runs[0]).state == "running"


def test_slow_epochs_are_no_sign_of_death(plan):
    run = plan.runs[0]
    attempt(run, 1, age=1800)
    assert look(run).state == "stopped"
    files.write_text(run.folder / "metrics.jsonl", json.dumps({"epoch": 0, "seconds": 1000}) + "\n")
    for file in run.folder.iterdir():
        os.utime(file, (time.time() - 1800,) * 2)
    assert look(run).state == "running"


def test_a_run_that_saves_its_state_rarely_may_be_quiet_for_longer(plan):
    run = plan.runs[0]
    attempt(run, 0, age=1800, checkpoint_minutes=5)
    assert look(run).state == "stopped"
    attempt(run, 0, age=1800, checkpoint_minutes=15)
    assert look(run).state == "running"


def test_files_that_are_being_written(plan):
    run = plan.runs[0]
    files.write_text(run.folder / "attempt.json", '{"status": "run')
    assert look(run).state == "missing"


def test_a_damaged_record_is_a_failure_and_says_what_to_do(plan):
    run = plan.runs[0]
    files.write_text(run.record, "[]")
    assert look(run).state == "failed"
    said = status(plan)
    assert f"{run.label}: {run.record}: expected it as it was written, but got a damaged file" in said
    assert f"delete {run.folder} and run snakemake again" in said
    done(run)
    write_record(run.folder, files.read_json(run.record) | {"seed": 7})
    assert look(run).state == "failed" and "expected the record of" in look(run).error


def test_time_left_is_that_of_like_runs_over_the_jobs_at_work(plan):
    audio, visual, joint = (plan.runs[i : i + 2] for i in (0, 2, 4))
    done(audio[0], 100)
    done(joint[0], 400)
    attempt(joint[1], 5)
    attempt(audio[1], 0)
    # audio 1: 100; joint 1: half of 400; visual twice: no like run, so the mean of the dataset, 250. Two at work.
    assert time_left([look(run) for run in plan.runs]).startswith("about 6:40 of training, 4 runs with 2 at a time")
    for run in (*audio, *visual, *joint):
        done(run)
    assert time_left([look(run) for run in plan.runs]) == "none of training"


def test_it_costs_no_torch_and_thousands_of_runs_are_soon_read(tmp_path, monkeypatch):
    write_params(tmp_path, {"training": {"epochs": 22}})
    monkeypatch.chdir(tmp_path)
    values = synthetic.grid(Path("params.yaml"), 2000)
    Path("params.yaml").write_text(yaml.safe_dump(values))
    code = (
        "import sys; from pipeline_src.cli import main; main(['status']);"
        "sys.exit(bool({'torch', 'mlflow', 'matplotlib'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    runs = len(Plan().runs)
    assert runs > 2000 and f"missing       {runs}" in found.stdout
