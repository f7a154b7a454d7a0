"""How many epochs, and how many operations, each method needs for a set score on val.

    epochs       the first epoch, from 1, after which the fused model has the score; of the seeds that reach it
    operations   epochs times those of an epoch: F f + B b, with F and B the samples that passed forward and backward
                 (in passes through all encoders, the method's own included), f and b the operations of a sample

f and b are counted for the encoders alone and added up over the modalities (`study.estimate`), so what a method or a
fusion computes besides, and passes through single encoders of different cost, make them an estimate. Passes over val,
the runs that a method requires, and observers are not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline_src.reports.statistics import summary
from pipeline_src.reports.tables import Entry, Table
from pipeline_src.reports.wording import NONE, plural, value

if TYPE_CHECKING:
    from pipeline_src.reports.results import Results
    from pipeline_src.study.outputs import Cell

TERA = 1e12


def operations(cells: Iterable[Cell], records: Mapping[tuple, Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """Floating-point operations of an epoch by (fusion, method), mean over the complete runs of each cell."""
    from pipeline_src.study import estimate  # it counts with PyTorch what it does not remember

    found = {}
    for cell in cells:
        runs = [record for key, record in records.items() if key[:-1] == tuple(cell.names.values())]
        if not runs:
            continue
        forward, both = map(sum, zip(*(estimate.operations(cell, part) for part in estimate.parts(cell)), strict=True))
        each = [run["forwards"] * forward + run["backwards"] * (both - forward) for run in runs]
        found[cell.fusion, cell.method] = float(np.mean(each)) / cell.spec.training.epochs
    return found


def first_epochs(results: Results, cell: tuple[str, str], target: float) -> list[int]:
    """The first epoch, from 1, with the score, of the seeds that reach it."""
    curve = results.seeded(cell, results.primary.by_epoch())
    if curve is None:
        return []
    at_least = results.primary.metric.at_least
    reached = [[at_least(score, target) for score in one] for one in curve.values]
    return [curve.epochs[one.index(True)] for one in reached if any(one)]


def tables(results: Results, targets: Sequence[float]) -> list[Table]:
    """The table of a dataset; none without targets."""
    if not targets:
        return []
    metric, seeds = results.primary.metric, len(results.seeds)
    cells = [*results.alone.values(), *((f, of) for f in results.fusions for _, of in results.cells(f))]
    rows = []
    for cell in cells:
        if results.seeded(cell, results.primary.by_epoch()) is None:
            continue
        epoch = results.operations.get(cell, float("nan")) / TERA
        row = [*map(Entry, cell), Entry(NONE if np.isnan(epoch) else f"{epoch:.3g}")]
        for target in targets:
            reached = first_epochs(results, cell, target)
            few = f"({len(reached)} of {plural(seeds, 'seed')})" if len(reached) < seeds else ""
            of = summary(reached, results.confidence)
            spread = "" if np.isnan(of.sd) else f" ± {of.sd:.1f}"
            row.append(Entry(f"{of.mean:.1f}{spread}", few) if reached else Entry(NONE, few))
            row.append(Entry(NONE if not reached or np.isnan(epoch) else f"{epoch * of.mean:.3g}"))
        rows.append(row)
    columns = ["fusion", "method", "TFLOP an epoch"]
    for target in targets:
        shown = value(target, metric.unit)
        columns += [f"epochs to {shown}", f"TFLOP to {shown}"]
    caption = (
        f"The first epoch, from 1, after which the fused model's {metric.label} on val is"
        f" {'at least' if metric.higher else 'at most'} the value: mean ± standard deviation over the seeds that reach"
        " it, which flatters a method of which some do not. TFLOP: 10¹² floating-point operations of the encoders in"
        " training, forward and backward, estimated from the samples that passed; without val, the fusion, required"
        " runs and observers."
    )
    return [Table(f"Convergence: {results.name} (recipe {results.recipe})", caption, columns, rows, 2)]
