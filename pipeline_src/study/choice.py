"""The choice of equal tuning: the trial with the best validation score, which all seeds of the study then train with.

    score of a trial    mean over the tuning seeds of the primary metric on val, at the epoch that the run selected
    chosen              the best score; of equal ones the trial that was drawn first
    diverged            a trial of which a run diverged is worse than any other

Test data has no part in it. The address of a tuned run holds the search and not its outcome, which follows from it; the
run's record has the outcome.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline_src.core.errors import UserError
from pipeline_src.study.runs import DIVERGED, RunFiles
from pipeline_src.tasks.base import tasks

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Run
    from pipeline_src.tasks.base import Metric

LOWEST, HIGHEST = "lowest", "highest"
KEY = "tuning"  # of a record and an attempt: the outcome of the search


@dataclass(frozen=True)
class Search:
    """The trials of a configuration in the order in which they were drawn: their values, and a run per tuning seed."""

    points: tuple[Mapping[str, Any], ...]
    runs: tuple[tuple[Run, ...], ...]

    def address(self) -> list[list[tuple[str, int]]]:
        """What enters the address of the tuned runs, as JSON holds it."""
        return [[(run.cell.fp, run.seed) for run in runs] for runs in self.runs]


def resolved(run: Run) -> Run:
    """The run as it is trained and evaluated: a tuned one with the parameters of the chosen trial; any other as it is.

    A run that has begun keeps the choice that it began with. Raises UserError if every trial diverged, or if a trial
    is not there.
    """
    search = run.cell.search
    if search is None:
        return run
    reader = RunFiles(run)
    about = (reader.record() if reader.trained() else reader.attempt()) or {}
    outcome = about.get(KEY) or choose(search, tasks[run.cell.spec.task].metrics[0], run.label)
    chosen = search.runs[outcome["chosen"]][0].cell.spec
    spec = replace(chosen, requires=run.cell.spec.requires)  # of its own data, which may vary with the seed
    return replace(run, cell=replace(run.cell, spec=spec, outcome=outcome))


def choose(search: Search, metric: Metric, label: str) -> dict[str, Any]:
    """The outcome of a search, for the record:

    {"seeds": [...], "metric": "val_accuracy", "chosen": 3, "values": {...}, "edges": {"training.lr": "highest"},
     "trials": [{"values": {...}, "scores": [0.8, None], "mean": None}, ...]}    None: diverged
    """
    key, means, trials = f"val_{metric.name}", {}, []
    for i, (point, runs) in enumerate(zip(search.points, search.runs, strict=True)):
        scores = [_score(run, key) for run in runs]
        there = [score for score in scores if score is not None]
        if len(there) == len(scores):
            means[i] = math.fsum(there) / len(there)
        trials.append({"values": dict(point), "scores": scores, "mean": means.get(i)})
    if not means:
        raise UserError(
            f"{label}: expected a trial that did not diverge, but all {len(trials)} did; change tuning.spaces"
        )
    best = min(i for i, mean in means.items() if mean == metric.best(list(means.values())))
    return {
        "seeds": [run.seed for run in search.runs[0]],
        "metric": key,
        "chosen": best,
        "values": dict(search.points[best]),
        "edges": edges(search.points, best),
        "trials": trials,
    }


def _score(run: Run, key: str) -> float | None:
    """A trial's score in one seed; None if it diverged. Of its files, only the record is read: it has no test score."""
    record = RunFiles(run).record()
    value = None if record["status"] == DIVERGED else record["selected"][key]
    return value if value is not None and math.isfinite(value) else None


def edges(points: tuple[Mapping[str, Any], ...], chosen: int) -> dict[str, str]:
    """The numbers of a chosen point beyond which nothing was tried: whether they are the lowest or the highest."""
    found = {}
    for name, value in points[chosen].items():
        tried = [point[name] for point in points if _is_number(point[name])]
        if _is_number(value) and min(tried) < max(tried):
            if value == min(tried):
                found[name] = LOWEST
            elif value == max(tried):
                found[name] = HIGHEST
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
