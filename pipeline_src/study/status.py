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
    tables = "written" if plan.index.exists() else "not written for this state"
    lines.append(f"tables and report: {tables} ({plan.results})")
    return "\n".join(lines)


def time_left(found: list[State]) -> str:
    """The training time that is left, from the seconds that like runs took and the number of jobs at work."""
    left = [one for one in found if one.seconds is None]
    if not left:
        return "none of training" + ("" if all(one.complete for one in found) else "; evaluations are left")
    measured = defaultdict(list)  # the closer a run is in kind, the better the guess
    for one in found:
        if isinstance(one.seconds, int | float):
            for kind in _kinds(one.run):
                measured[kind].append(one.seconds)
    if not measured:
        return "not known before the first run is done"
    seconds = sum(
        (1 - one.fraction) * next(statistics.fmean(measured[k]) for k in _kinds(one.run) if k in measured)
        for one in left
    )
    jobs = max(sum(one.state == RUNNING for one in found), 1)
    return (
        f"about {clock(seconds / jobs)} of training, {len(left)} runs with {jobs} at a time; start-up, evaluation and"
        " the wait for a scheduler come on top"
    )


def _kinds(run: Run) -> list[tuple]:
    names = run.names
    return [
        (names["dataset"], names["fusion"], names["method"]),
        (names["dataset"], names["method"]),
        (names["dataset"],),
        (),
    ]
