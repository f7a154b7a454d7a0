"""A study's progress while it runs: the line that Snakemake prints, and the live table."""

import logging
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from pipeline_src import cli
from pipeline_src.study import engine, watch
from pipeline_src.study.plan import Plan
from pipeline_src.study.runs import RunFiles
from tests.study.test_status import attempt, done
from tests.workflow.small import write_params


@pytest.fixture
def plan(tmp_path, monkeypatch) -> Plan:
    write_params(tmp_path, {"training": {"epochs": 10}})
    monkeypatch.chdir(tmp_path)
    return Plan()


def data_is_there(plan: Plan) -> None:
    for stage in ("fetch", "manifest", "extract", "cache"):
        for path in (path for job in plan.jobs(stage) for path in job):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def line(plan: Plan) -> str:
    seen = watch.Watch(plan)
    return seen.line(seen.states())


def test_the_line_says_what_is_left_of_the_data_and_how_the_runs_are(plan):
    assert line(plan) == "fetch: 0 of 1 jobs done; 0 of 6 runs done, time left not known yet"
    data_is_there(plan)
    runs = plan.runs
    done(runs[0])
    attempt(runs[1], 5)
    attempt(runs[2], 5, "failed", error="ValueError('bad')")
    attempt(runs[3], 6, age=7200)
    # run 1: half of 100 s; runs 2 to 5, of which no like one is done: 50, 40, 100, 100. One at a time.
    assert line(plan) == "1 of 6 runs done, 1 running, 1 failed, 1 stopped, about 5:40 left"
    for run in runs:
        done(run)
    done(runs[4], evaluated=False)
    runs[4].metrics.unlink()
    assert line(plan) == "5 of 6 runs done, 1 to be evaluated"


def test_time_left_is_by_the_clock_once_there_is_a_pace(plan, monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=1000.0)
    monkeypatch.setattr(watch, "time", clock)
    data_is_there(plan)
    seen = watch.Watch(plan)
    assert seen.line(seen.states()).endswith("time left not known yet")
    clock.now += 30
    done(plan.runs[0], seconds=5)
    assert seen.line(seen.states()) == "1 of 6 runs done, about 2:30 left"  # not 0:25, the time of training
    clock.now += 30
    attempt(plan.runs[1], 5)
    assert seen.line(seen.states()) == "1 of 6 runs done, 1 running, about 3:00 left"


def test_a_complete_run_is_read_once(plan, monkeypatch):
    seen, read = watch.Watch(plan), []
    state = RunFiles.state
    monkeypatch.setattr(RunFiles, "state", lambda self: read.append(self.run) or state(self))
    done(plan.runs[0])
    assert seen.states()[0].complete and len(read) == 6
    assert seen.states()[0].complete and len(read) == 11


def test_the_reporter_says_it_again_and_again_and_at_the_end(plan, caplog):
    reporter = watch.Reporter(plan, interval=0.02)
    with caplog.at_level(logging.INFO):
        reporter.start()
        deadline = time.time() + 20
        while len(caplog.messages) < 3 and time.time() < deadline:
            time.sleep(0.01)
        data_is_there(plan)
        for run in plan.runs:
            done(run)
        reporter.end()
    assert len(caplog.messages) >= 4
    assert caplog.messages[-1] == "study params  6 of 6 runs done"
    assert not reporter.thread.is_alive()


def test_a_disk_that_is_away_does_not_end_it(plan, caplog, monkeypatch):
    def away(_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(watch.Watch, "states", away)
    reporter = watch.Reporter(plan, interval=60)
    reporter.start()
    reporter.end()
    assert "Input/output error" in caplog.messages[-1]


def drawn(plan: Plan, rows: int) -> str:
    seen = watch.Watch(plan)
    console = Console(width=110, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(watch.table(seen, seen.states(), rows))
    return console.export_text()


def test_the_table_has_what_is_at_work_first_and_the_failures_below(plan):
    data_is_there(plan)
    audio, visual, joint = (plan.runs[i : i + 2] for i in (0, 2, 4))
    done(audio[0])
    done(audio[1])
    attempt(visual[0], 5, "failed", error="ValueError('[bad]')")
    attempt(joint[0], 5)
    text = drawn(plan, 10)
    assert text.startswith("params.yaml: 2 of 6 runs done, 1 running, 1 failed, about ")
    rows = [row.rstrip(" ━╸╺") for row in text.splitlines() if row.startswith(" av_digits")]
    assert [row.split() for row in rows] == [
        ["av_digits", "concat", "joint", "0/2", "1"],
        ["av_digits", "none", "visual-only", "0/2", "1"],
        ["av_digits", "none", "audio-only", "2/2"],
    ]
    assert rows[1].rindex("1") > rows[0].rindex("1")  # in another column: failed
    assert f"{visual[0].label}: epoch 5 of 10: ValueError('[bad]')" in text
    assert "and 2 more configurations" in drawn(plan, 1)


def test_without_a_terminal_it_prints_lines_and_ends_with_the_study(plan, capsys, monkeypatch):
    for run in plan.runs[1:]:
        done(run)
    monkeypatch.setattr(
        watch, "time", SimpleNamespace(sleep=lambda seconds: done(plan.runs[0]), monotonic=time.monotonic)
    )
    assert cli.main(["status", "--watch"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "fetch: 0 of 1 jobs done; 5 of 6 runs done, about 1:40 left"
    assert printed[1] == "fetch: 0 of 1 jobs done; 6 of 6 runs done" and printed[2].startswith("params.yaml: 6 runs (")


def test_what_slurms_plug_in_says_of_its_guess_is_left_out():
    def kept(text: str, **more: object) -> bool:
        record = logging.makeLogRecord({"msg": text, **more})
        return engine._of_use(record)

    assert not kept("No account was given, not able to get a SLURM account via sacct: sacct: invalid option -- '1'")
    assert not kept("Unable to guess SLURM account. Trying to proceed without.")
    assert kept("The given account lab appears to be invalid.") and kept(None)


def test_a_line_per_job_comes_back_with_the_lines_per_epoch(monkeypatch):
    record = logging.makeLogRecord({"msg": None, "event": engine.LogEvent.JOB_FINISHED})
    monkeypatch.delenv("COUNTERPOISE_LOG", raising=False)
    assert not engine._of_use(record)
    monkeypatch.setenv("COUNTERPOISE_LOG", "INFO")
    assert engine._of_use(record)
