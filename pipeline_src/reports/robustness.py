"""Accuracy over the rate of a corruption, and MultiBench's two numbers of each such curve a(r), from r = 0 to R.

    relative    1 / R  integral of a(r) dr                                          the area under the curve
    effective   1 / R  integral of (a(r) - a(0)) - (l(r) - l(0)) dr                 l: the curve of late fusion

Effective robustness says by how much the curve lies above late fusion's, once that is shifted to the same clean score
(Liang et al., "MultiBench", NeurIPS 2021, arXiv:2107.07502, who sum over equal steps). Late fusion is joint training
that concatenates the features of the modalities, as there, or that adds up their logits. Integrals are by trapezoids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline_src.corruptions.base import corruptions
from pipeline_src.evaluation import FUSED, corrupted_name
from pipeline_src.reports.results import Results
from pipeline_src.reports.scores import BASELINE
from pipeline_src.reports.statistics import FRACTION, FREE, summary
from pipeline_src.reports.tables import Entry, Table, entry
from pipeline_src.reports.wording import NONE, capital, level, plural
from pipeline_src.reports.wording import value as written

LATE = ("concat", "sum")  # fusions whose joint training is late fusion, the first of the study counts
Cell = tuple[str, str]  # fusion, method


@dataclass(frozen=True)
class Spoiled:
    """The scores of models of which one modality is corrupted, or all of them together (FUSED).

    `scores` {(fusion, method): (seeds, rates)}: of the seeds that have every rate, by the study's seeds and by `rates`,
    of which the first is 0.
    """

    corruption: str
    modality: str
    rates: list[float]
    scores: dict[Cell, pd.DataFrame]

    @property
    def late(self) -> Cell | None:
        """The cell of late fusion; None if the study has none."""
        return next(((fusion, BASELINE) for fusion in LATE if (fusion, BASELINE) in self.scores), None)

    def relative(self, cell: Cell) -> np.ndarray:
        """Relative robustness (S,) of each seed."""
        return area(self.rates, self.scores[cell].to_numpy())

    def effective(self, cell: Cell) -> np.ndarray:
        """Effective robustness (S,) of the seeds that the cell shares with late fusion; empty without one."""
        if self.late is None or self.late == cell:
            return np.empty(0)
        ours, theirs = self.scores[cell].align(self.scores[self.late], join="inner", axis=0)
        drops = [one.to_numpy() - one.to_numpy()[:, :1] for one in (ours, theirs)]
        return area(self.rates, drops[0] - drops[1])


def area(rates: list[float], values: np.ndarray) -> np.ndarray:
    """The mean height (S,) of curves (S, R) over rates from 0, by trapezoids."""
    return np.trapezoid(values, rates, axis=1) / rates[-1]


def spoiled(results: Results) -> Iterator[Spoiled]:
    """Every corruption of every modality of which the study has scores, all modalities together last."""
    metric, m = results.primary.score, results.corrupted
    cells = [*results.alone.values(), *((f, of) for f in results.fusions for _, of in results.cells(f))]
    for name, params in results.corruptions.items():
        rates = [0.0, *params.rates]
        for modality in (*results.modalities, FUSED):
            of = m[(m.modality == modality) & m.metric.isin([corrupted_name(metric, name, r) for r in params.rates])]
            scores = {}
            for cell in cells:
                own = of[(of.fusion == cell[0]) & (of.method == cell[1])]
                table = own.pivot(index="seed", columns="metric", values="value")
                table = table.reindex(columns=[corrupted_name(metric, name, r) for r in params.rates])
                table.insert(0, "clean", results.scores(cell, metric).reindex(table.index))
                table = table.reindex([seed for seed in results.seeds if seed in table.index]).dropna()
                if len(table):
                    scores[cell] = table.set_axis(rates, axis="columns")
            if scores:
                yield Spoiled(name, modality, rates, scores)


def tables(results: Results) -> list[Table]:
    """A table per corruption: scores by rate, and the two numbers."""
    every = list(spoiled(results))
    return [
        _table(results, [one for one in every if one.corruption == name])
        for name in dict.fromkeys(one.corruption for one in every)
    ]


def _table(results: Results, every: list[Spoiled]) -> Table:
    metric, seeds, first = results.primary.metric, len(results.seeds), every[0]
    rows = []
    for one in every:
        for cell, scores in one.scores.items():
            means = [Entry(written(float(scores[rate].mean()), metric.unit)) for rate in one.rates]
            limits = FRACTION if metric.unit == "%" else FREE
            relative = summary(one.relative(cell).tolist(), results.confidence, limits=limits)
            effective = summary(one.effective(cell).tolist(), results.confidence)
            rows.append(
                [
                    *map(Entry, (*cell, label(one.modality))),
                    *means,
                    entry(relative, seeds, unit=metric.unit),
                    entry(effective, seeds, True, unit=metric.unit) if effective.n else Entry(NONE),
                ]
            )
    late = f"{first.late[1]} with {first.late[0]}" if first.late else ""
    caption = (
        f"{capital(metric.label)} on test, mean over {plural(seeds, 'seed')}, by the rate."
        f" {corruptions[first.corruption].caption}"
        " Every method of a seed has the same corrupted samples. Relative robustness: the area under the curve divided"
        " by the largest rate, so the mean score over the rates."
        + (
            f" Effective robustness: how far, on average over the rates, a curve lies above that of late fusion"
            f" ({late}) once that one is shifted to the same clean score; paired by seed."
            if late
            else " Effective robustness needs late fusion, which the study lacks: joint training with concat or sum."
        )
        + f" Intervals: {level(results.confidence)} Student t, of each number by itself, without a correction."
        " (Liang et al., MultiBench, arXiv:2107.07502.)"
    )
    columns = ["fusion", "method", "corrupted", *(f"{rate:g}" for rate in first.rates), "relative", "effective"]
    where = f"{results.name} (recipe {results.recipe})"
    return Table(f"Robustness to {first.corruption}: {where}", caption, columns, rows, 3)


def label(modality: str) -> str:
    """What is corrupted, in words."""
    return "all" if modality == FUSED else modality
