"""How far a study is, from the files in its runs' folders: what is done, running, failed and left, and for how long."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass

from pipeline_src.core import files
from pipeline_src.core.progress import clock

SILENT = 600  # seconds without a sign of life after which a running job is called stale, at least
SHOWN = 20  # runs listed by name; the rest is counted

STATES = ("evaluated", "trained", "running", "stale", "interrupted", "failed", "left")


@dataclass(frozen=True)
class State:
    """One run's state: `about` is what there is to say of it, `share` how much of its training is done."""

    run: object  # plan.Run
    state: str  # of STATES
    about: str = ""
    share: float = 0.0
    seconds: float | None = None  # measured, of a run that is done


def look(run) -> State:
    """The state of one run. A file that is being written or cannot be read counts as not there."""
    if (record := _read(run.record)) is not None:
        seconds = record.get("seconds")
        return State(run, "evaluated" if run.metrics.exists() else "trained", share=1.0, seconds=seconds)
    attempt = _read(run.folder / "attempt.json")
    if attempt is None:
        return State(run, "left")
    epochs = run.cell.spec["training"]["epochs"]
    done, pace = _epochs(run.folder / "metrics.jsonl")
    progress = f"epoch {done} of {epochs}"
    if attempt.get("status") == "interrupted":
        return State(run, "interrupted", f"{progress}, saved; snakemake goes on with it", done / epochs)
    if attempt.get("status") != "running":
        return State(run, "failed", f"{progress}: {attempt.get('error') or attempt.get('status')}", done / epochs)
    silent = time.time() - _sign_of_life(run.folder)
    host = attempt.get("machine", {}).get("host") or "an unknown machine"
    gone = _gone(attempt, host)
    if gone or silent > max(SILENT, 5 * pace):
        why = f"its process on {host} is gone" if gone else f"no sign of life for {clock(silent)} on {host}"
        return State(run, "stale", f"{progress}, {why}; snakemake goes on with it", done / epochs)
    return State(run, "running", f"{progress} on {host}, last heard {clock(max(silent, 0))} ago", done / epochs)


def _read(file) -> dict | None:
    try:
        value = files.read_json(file)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _epochs(file) -> tuple[int, float]:
    """How many epochs are in metrics.jsonl, and the longest one's seconds."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0, 0.0
    longest = 0.0
    for line in lines[-3:]:
        try:
            longest = max(longest, float(json.loads(line).get("seconds", 0)))
        except (ValueError, AttributeError):
            continue
    return len(lines), longest


def _sign_of_life(folder) -> float:
    """When anything in the folder was last written, Unix time; 0 if the folder has gone."""
    times = [0.0]
    with contextlib.suppress(OSError):
        times += [entry.stat().st_mtime for entry in os.scandir(folder)]
    return max(times)


def _gone(attempt: dict, host: str) -> bool:
    """Whether the attempt names a process of this machine that is no more."""
    pid = attempt.get("pid")
    if not isinstance(pid, int) or host != platform.node():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def status(plan) -> str:
    """What there is to know about a plan's runs, as text."""
    found = [look(run) for run in plan.runs]
    by = defaultdict(list)
    for one in found:
        by[one.state].append(one)
    total = len(found)
    lines = [f"{plan.file}: {total} runs ({len(plan.cells)} models x {len(plan.params.study.seeds)} seeds)"]
    for state in STATES:
        if by[state] or state in ("evaluated", "left"):
            lines.append(f"  {state:<12}{len(by[state]):6}{100 * len(by[state]) / max(total, 1):7.1f} %")
    lines.append(f"time left: {time_left(found)}")
    for state in ("running", "stale", "interrupted", "failed"):
        if by[state]:
            lines.append(f"{state}:")
            lines += [f"  {one.run.label}: {one.about}" for one in by[state][:SHOWN]]
            lines += [f"  and {len(by[state]) - SHOWN} more"] if len(by[state]) > SHOWN else []
    tables = "written" if plan.index.exists() else "not written for this state"
    lines.append(f"tables and report: {tables} ({plan.results})")
    return "\n".join(lines)


def time_left(found: list[State]) -> str:
    """The training time that is left, from the seconds that like runs took and the number of jobs at work."""
    left = [one for one in found if one.state not in ("evaluated", "trained")]
    if not left:
        return "none of training" + ("" if all(one.state == "evaluated" for one in found) else "; evaluations are left")
    measured = defaultdict(list)  # the closer a run is in kind, the better the guess
    for one in found:
        if isinstance(one.seconds, int | float):
            for kind in _kinds(one.run):
                measured[kind].append(one.seconds)
    if not measured:
        return "not known before the first run is done"
    seconds = sum(
        (1 - one.share) * statistics.fmean(next(measured[k] for k in _kinds(one.run) if k in measured)) for one in left
    )
    jobs = max(sum(one.state == "running" for one in found), 1)
    return (
        f"about {clock(seconds / jobs)} of training, {len(left)} runs with {jobs} at a time; start-up, evaluation and"
        " the wait for a scheduler come on top"
    )


def _kinds(run) -> list[tuple]:
    names = run.names
    return [
        (names["dataset"], names["fusion"], names["method"]),
        (names["dataset"], names["method"]),
        (names["dataset"],),
        (),
    ]
