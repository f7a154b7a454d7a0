"""How far a study is, from the files in its runs' folders: what is done, running, failed and left, and for how long."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

from pipeline_src.core.progress import clock
from pipeline_src.study.runs import DIVERGED, EVALUATED, FAILED, MISSING, RUNNING, STATES, STOPPED, RunFiles, State

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Run
    from pipeline_src.study.plan import Plan

SHOWN = 20  # runs listed by name; the rest is counted


def look(run: Run) -> State:
    """The state of one run."""
    return RunFiles(run).state()


def status(plan: Plan) -> str:
    """What there is to know about a plan's runs, as text."""
    found = [look(run) for run in plan.runs]
    by = defaultdict(list)
    for one in found:
        by[one.state].append(one)
    total = len(found)
    tuning = sum(bool(one.run.cell.role) for one in found)
    more = f", and {tuning} of equal tuning" if tuning else ""
    lines = [f"{plan.file}: {total} runs ({len(plan.rows)} models x {len(plan.params.study.seeds)} seeds{more})"]
    for state in STATES:
        if by[state] or state in (EVALUATED, MISSING):
            lines.append(f"  {state:<12}{len(by[state]):6}{100 * len(by[state]) / max(total, 1):7.1f} %")
    lines.append(f"time left: {time_left(found)}")
    for state in (RUNNING, STOPPED, FAILED, DIVERGED):
        if by[state]:
            lines.append(f"{state}:")
            lines += [f"  {one.run.label}: {one.about}" for one in by[state][:SHOWN]]
            lines += [f"  and {len(by[state]) - SHOWN} more"] if len(by[state]) > SHOWN else []
    lines += _storage(plan)
    tables = "written" if plan.index.exists() else "not written for this state"
    lines.append(f"tables and report: {tables} ({plan.results})")
    return "\n".join(lines)


def _storage(plan: Plan) -> list[str]:
    """A line for each dataset whose shards lie in storage, and one on what of them is on this machine."""
    lines = []
    from pipeline_src.features import storage  # pyarrow, which no plan needs
    from pipeline_src.features.local import taken

    for data in plan.all("cache"):
        if not data.storage and storage.listed(data.shards[0].with_suffix(".arrow")) is None:
            continue
        listings = [about for stem in data.shards if (about := storage.listed(stem.with_suffix(".arrow"))) is not None]
        size, where = sum(about.bytes for about in listings), listings[0].base if listings else data.storage
        lines.append(
            f"shards of {data.name} in storage: {len(listings)} of {len(data.shards)}, {size / 1e6:,.1f} MB"
            f" ({where.partition('?')[0]})"
        )
    if lines:
        room = plan.params.resources.local_copy.room
        lines.append(
            f"rows of them on this machine: {taken(room) / 1e9:.1f} of {room.bytes / 1e9:.1f} GB ({room.path})"
        )
    return lines


def time_left(found: list[State]) -> str:
    """The training time that is left, from the seconds that like runs took and the number of jobs at work."""
    left = sum(one.seconds is None for one in found)
    if not left:
        return "none of training" + ("" if all(one.complete for one in found) else "; evaluations are left")
    seconds, jobs = seconds_left(found), jobs_at_work(found)
    if seconds is None:
        return "not known before the first run is done"
    return (
        f"about {clock(seconds)} of training, {left} runs with {jobs} at a time; start-up, evaluation and"
        " the wait for a scheduler come on top"
    )


def jobs_at_work(found: list[State]) -> int:
    """Runs that are being trained, at least one."""
    return max(sum(one.state == RUNNING for one in found), 1)


def seconds_left(found: list[State]) -> float | None:
    """Seconds of training that are left, see `time_left`; None before the first run is done."""
    guessed = guesses(found)
    return work(found, guessed) / jobs_at_work(found) if guessed else None


def guesses(found: list[State]) -> dict[tuple, float]:
    """Seconds of training that runs take, by kind, from those that are trained; empty if none is."""
    measured = defaultdict(list)
    for one in found:
        if isinstance(one.seconds, int | float):
            for kind in _kinds(one.run):
                measured[kind].append(one.seconds)
    return {kind: statistics.fmean(of) for kind, of in measured.items()}


def work(found: list[State], guessed: dict[tuple, float]) -> float:
    """Seconds of training of one job after the other that are left, by what is guessed for the closest kind."""
    return sum(
        (1 - one.fraction) * next(guessed[kind] for kind in _kinds(one.run) if kind in guessed)
        for one in found
        if one.seconds is None
    )


def _kinds(run: Run) -> list[tuple]:
    """What a run is like; the closer the kind, the better the guess."""
    names = run.names
    return [
        (names["dataset"], names["fusion"], names["method"]),
        (names["dataset"], names["method"]),
        (names["dataset"],),
        (),
    ]
