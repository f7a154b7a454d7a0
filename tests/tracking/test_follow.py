"""`track` as processes of its own, against stores that are down, hang, are locked, or are used by many at once."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from pipeline_src.tracking import follow
from pipeline_src.tracking.beside import BEHIND
from tests.tracking.study import (
    LOCAL,
    begin,
    command,
    environment,
    finish,
    free_port,
    hanging,
    planned,
    points,
    row,
    serving,
    stored,
    track,
    until,
)


@pytest.fixture
def plan(folder):
    """Two finished runs."""
    plan = planned()
    for run in plan.runs:
        finish(run, [row(0), row(1)])
    return plan


def in_step(uri: str) -> None:
    """Each of the two runs is there once, with each of its points once."""
    found = stored(uri, every=True)
    assert len(found) == 2 and {run.info.status for run in found} == {"FINISHED"}
    for run in found:
        assert points(uri, run, "val/accuracy") == [(1, 0.5), (2, 0.51)]
        assert len(points(uri, run, "test/accuracy")) == 1


def test_the_server_is_down_and_comes_back(plan, tmp_path):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    done = track(uri)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {uri}: expected an MLflow store that answers")
    assert "connection refused" in done.stderr and "python -m pipeline_src track" in done.stderr
    assert "Traceback" not in done.stderr
    (tmp_path / "server").mkdir()
    with serving(tmp_path / "server", port):
        assert track(uri).stdout.endswith("2 new, 0 brought up to date, 0 already right\n")
        assert track(uri).stdout.endswith("0 new, 0 brought up to date, 2 already right\n")
        in_step(uri)


def test_the_server_hangs(plan):
    with hanging() as uri:
        started = time.monotonic()
        done = track(uri)
        assert time.monotonic() - started < 120  # two requests of 5 s, and an import
    assert done.returncode == 2 and f"{uri}: expected an MLflow store that answers, but got no answer" in done.stderr


def test_the_database_is_locked_and_released(plan):
    assert track().returncode == 0
    finish(plan.runs[0], [row(0, attempt=1), row(1)])
    with closing(sqlite3.connect("mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        done = track()
        assert done.returncode == 2 and "a database that another program has locked" in done.stderr
        other.execute("ROLLBACK")
    assert "1 new" in track().stdout and "2 already right" in track().stdout


def test_what_is_no_database_is_said(plan):
    Path("mlflow.db").write_text("no database at all " * 100)
    done = track()
    assert done.returncode == 2 and "sqlite:///mlflow.db: expected an MLflow store" in done.stderr
    assert "file is not a database" in done.stderr and "Traceback" not in done.stderr


def test_a_broken_file_is_named_and_the_other_runs_are_mirrored(plan):
    plan.runs[0].record.write_text("{")
    done = track()
    assert done.returncode == 2 and f"error: {plan.runs[0].record}: expected it as it was written" in done.stderr
    assert [run.info.run_name for run in stored(LOCAL)] == [plan.runs[1].label]


@pytest.mark.parametrize("kind", ["sqlite", "server"])
def test_eight_at_once_on_a_fresh_store(plan, tmp_path, kind):
    def eight(uri):
        started = [
            subprocess.Popen(command("track"), env=environment(uri), stdout=subprocess.PIPE, text=True)
            for _ in range(8)
        ]
        outputs = [process.communicate(timeout=600)[0] for process in started]
        assert [process.returncode for process in started] == [0] * 8, outputs
        assert sum(int(output.split(": ")[1].split(" new")[0]) for output in outputs) == 2
        in_step(uri or LOCAL)

    if kind == "sqlite":
        eight(None)
    else:
        (tmp_path / "server").mkdir()
        with serving(tmp_path / "server", free_port()) as uri:
            eight(uri)


@pytest.fixture
def follower():
    """Starts followers of this process; all are gone afterwards."""
    started = []

    def start(uri: str | None = None) -> subprocess.Popen:
        process = subprocess.Popen(
            command("track", "--follow"), env=environment(uri), stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_live_killed_and_gone_on(folder, follower, server):
    plan = planned({"tracking": {"experiment": "live"}})
    run = plan.runs[0]

    def shows(steps: list[int], status: str) -> bool:
        found = stored(server, "live")
        return (
            len(found) == 1
            and found[0].info.status == status
            and [step for step, _ in points(server, found[0], "train/loss")] == steps
        )

    begin(run, [row(0)])
    first = follower(server)
    until(lambda: shows([1], "RUNNING"))
    begin(run, [row(0), row(1), row(2)], covered=2)
    until(lambda: shows([1, 2], "RUNNING"))
    first.kill()
    begin(run, [row(0), row(1)])
    second = follower(server)
    begin(run, [row(0), row(1), row(2)])
    until(lambda: shows([1, 2, 3], "RUNNING"))
    finish(run, [row(0), row(1), row(2), row(3)])
    second.send_signal(signal.SIGINT)  # Ctrl-C in the terminal is meant for Snakemake
    second.terminate()
    assert second.wait(120) == 0
    assert shows([1, 2, 3, 4], "FINISHED")


def test_a_run_that_died_while_it_was_followed_is_shown_as_killed(folder, follower, server):
    plan = planned({"tracking": {"experiment": "died"}})
    begin(plan.runs[0], [])
    process = follower(server)
    until(lambda: len(stored(server, "died")) == 1)
    begin(plan.runs[0], [row(0)])
    until(lambda: points(server, stored(server, "died")[0], "train/loss"))
    process.terminate()
    assert process.wait(120) == 0
    assert stored(server, "died")[0].info.status == "KILLED"


def test_two_followers_of_one_store(folder, follower, server):
    plan = planned({"tracking": {"experiment": "two"}})
    begin(plan.runs[0], [row(0)])
    both = [follower(server), follower(server)]
    begin(plan.runs[0], [row(0), row(1)])
    until(lambda: (found := stored(server, "two")) and len(points(server, found[0], "train/loss")) == 2)
    both[0].terminate()
    assert both[0].wait(120) == 0
    begin(plan.runs[0], [row(0), row(1), row(2)])
    until(lambda: len(points(server, stored(server, "two")[0], "train/loss")) == 3)  # the other one goes on
    finish(plan.runs[0], [row(0), row(1), row(2)])
    both[1].terminate()
    assert both[1].wait(120) == 0
    (one,) = stored(server, "two", every=True)
    assert [step for step, _ in points(server, one, "train/loss")] == [1, 2, 3]


@pytest.mark.parametrize("how", ["down", "hanging", "locked"])
def test_a_follower_ends_soon_whatever_the_store_does_and_says_so(plan, follower, how):
    def ends(process):
        until(lambda: (line := process.stderr.readline()) and "experiment counterpoise" in line)
        started = time.monotonic()
        process.terminate()
        _, said = process.communicate(timeout=120)
        assert time.monotonic() - started < 60 and process.returncode == BEHIND
        assert "MLflow is behind; `python -m pipeline_src track` brings it up to date" in said

    if how == "down":
        ends(follower(f"http://127.0.0.1:{free_port()}"))
    elif how == "hanging":
        with hanging() as uri:
            ends(follower(uri))
    else:
        assert track().returncode == 0
        with closing(sqlite3.connect("mlflow.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            ends(follower())


def test_a_follower_does_not_outlive_its_parent(plan, server):
    starter = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen(sys.argv[1:])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", starter, *command("track", "--follow")],
        env=environment(server),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    pid = int(parent.stdout.readline())
    until(lambda: len(stored(server)) == 2)
    parent.kill()
    parent.communicate()
    until(lambda: not _alive(pid), "the follower outlived its parent")


def _alive(pid: int) -> bool:
    try:  # a zombie that nobody has collected has ended, too
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("readable", [True, False])
def test_a_follower_takes_a_small_part_of_a_core(plan, monkeypatch, readable):
    pauses, spent = [], []
    before = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT)}

    def sync(*_, **__):
        started = time.process_time()
        while time.process_time() - started < 0.1 * (1 + 20 * (len(spent) == 1)):
            pass
        spent.append(time.process_time() - started)
        if not readable:
            raise follow.UnreadableError("a broken file; all others are mirrored")

    def rest(seconds, _):
        pauses.append(seconds)
        if len(pauses) == 2:
            monkeypatch.setattr(os, "getppid", lambda: 0)

    monkeypatch.setattr(follow, "opened", lambda plan: object())
    monkeypatch.setattr(follow, "sync", sync)
    monkeypatch.setattr(follow, "_sleep", rest)
    monkeypatch.setattr(follow.view, "state", lambda run: (len(pauses) + 1,))
    try:
        assert follow.follow(plan, os.getppid()) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert len(spent) == 3 and pauses == [pytest.approx(spent[0] / follow.SHARE, rel=0.2), follow.LONGEST]
