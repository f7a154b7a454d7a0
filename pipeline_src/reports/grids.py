"""A grid of datasets as the report shows it: the Results of its datasets by their levels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline_src.evaluation import FUSED
from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.reports.results import Results
from pipeline_src.reports.scores import BASELINE, significant
from pipeline_src.reports.sweeps import Sweep, of_grid
from pipeline_src.reports.tables import Entry, Table
from pipeline_src.reports.wording import MINUS, plural, points, value

if TYPE_CHECKING:
    from pipeline_src.study.plan import Plan

Levels = tuple[str, ...]  # a level of each axis


@dataclass
class GridResults:
    """All that tables and figures show of one grid."""

    name: str
    axes: dict[str, list[str]]  # axis -> levels, in the order of params.yaml
    cells: dict[Levels, Results]
    sweep: Sweep | None = None  # that its datasets are, if they differ in one number

    @property
    def first(self) -> Results:
        """The Results of any dataset: what all of them share."""
        return next(iter(self.cells.values()))

    @property
    def seeds(self) -> list[int]:
        return self.first.seeds

    @property
    def confidence(self) -> float:
        return self.first.confidence

    @property
    def fusions(self) -> list[str]:
        return self.first.fusions

    @property
    def methods(self) -> list[str]:
        """What is compared with BASELINE, the ensemble left out."""
        every = dict.fromkeys(method for results in self.cells.values() for method in results.methods)
        return [method for method in every if method not in (BASELINE, ENSEMBLE)]

    @cached_property
    def offers(self) -> set[str]:
        """What a figure of a grid can need: `gains`, a difference of a method from BASELINE on any of its datasets,
        `headroom`, one of the ensemble, and `sweep`, datasets that differ in one number.
        """
        wanted = {"gains": self.methods, "headroom": [ENSEMBLE]}
        compared = {
            name
            for name, methods in wanted.items()
            if any(not np.isnan(self.gains(method, fusion)).all() for method in methods for fusion in self.fusions)
        }
        return compared | ({"sweep"} if self.sweep is not None else set())

    def gains(self, method: str, fusion: str) -> np.ndarray:
        """The mean gain over BASELINE with the same fusion on every dataset, a fraction of 1, in the shape of the axes
        (a grid of one axis has one row); NaN where there is none.
        """
        gain = self.first.primary.gain
        values = [self.row(levels, method, fusion).get(f"{gain}_mean", np.nan) for levels in self.cells]
        return self.shaped(np.array(values, dtype=float))

    def significant(self, method: str, fusion: str) -> np.ndarray:
        """Whether the gain on each dataset is significant after its correction, in the shape of `gains`."""
        rows, gain = [self.row(levels, method, fusion) for levels in self.cells], self.first.primary.gain
        return self.shaped(np.array([len(row) > 0 and significant(row, gain, self.confidence) for row in rows]))

    def shaped(self, values: np.ndarray) -> np.ndarray:
        """Values of the cells in the shape of the axes."""
        sizes = [len(levels) for levels in self.axes.values()]
        return values.reshape(*([1] if len(sizes) == 1 else []), *sizes)

    def row(self, levels: Levels, method: str, fusion: str) -> pd.Series:
        """A row of a dataset's accuracy table; empty if it has none."""
        table = self.cells[levels].table
        row = table[table.index == (fusion, method)]
        return row.iloc[0] if len(row) else pd.Series(dtype=float)

    def scores(self, method: str, fusion: str) -> pd.DataFrame:
        """The primary metric on test by levels (rows, in the grid's order) and seed (columns, in the study's); NaN
        where there is no score.
        """
        rows = []
        for results in self.cells.values():
            m, score = results.metrics, results.primary.score
            chosen = m[(m.fusion == fusion) & (m.method == method) & (m.modality == FUSED) & (m.metric == score)]
            rows.append(chosen.set_index("seed").value.reindex(self.seeds))
        return pd.DataFrame(rows, index=pd.Index(list(self.cells), tupleize_cols=False), columns=self.seeds)


def gains_table(grid: GridResults) -> Table:
    """The scores and gains of every dataset of a grid."""
    headroom = [ENSEMBLE] if "headroom" in grid.offers else []
    compared = [*headroom, *grid.methods]
    alone, one = grid.first.alone, grid.first.primary
    unit = one.metric.unit
    rows = []
    for fusion in grid.fusions:
        for levels in grid.cells:
            models = [grid.row(levels, method, of) for of, method in (*alone.values(), (fusion, BASELINE))]
            entries = [Entry(value(model.get(f"{one.score}_mean", np.nan), unit)) for model in models]
            for method in compared:
                row = grid.row(levels, method, fusion)
                strong = len(row) > 0 and significant(row, one.gain, grid.confidence)
                entries.append(Entry(value(row.get(f"{one.gain}_mean", np.nan), unit, sign=True), "", strong))
            rows.append([Entry(fusion), *map(Entry, levels), *entries])
    headings = {ENSEMBLE: "head-room"}
    columns = ["fusion", *grid.axes, *(f"{m} alone" for m in alone), BASELINE]
    columns += [headings.get(method, method) for method in compared]
    caption = (
        f"Test {one.metric.label}{' in percent' * (unit == '%')} of the models of one modality and of {BASELINE}, and"
        f" differences from {BASELINE} with the same fusion{points(unit, ' in ')}, means over"
        f" {plural(len(grid.seeds), 'seed')}."
        + (f" Head-room: the ensemble of the models trained alone {MINUS} {BASELINE}." if headroom else "")
        + " Bold: significant after the correction for the comparisons on its dataset; its own table has the interval."
    )
    return Table(f"Gains by dataset: {grid.name}", caption, columns, rows, 1 + len(grid.axes))


def grids(plan: Plan, every: list[Results]) -> list[GridResults]:
    """The grids of the study, in the order of params.yaml; `every` has the Results of its datasets."""
    by_name = {results.name: results for results in every}
    return [
        GridResults(
            grid.name,
            grid.axes,
            {levels: by_name[name] for levels, name in grid.datasets.items()},
            of_grid(plan, grid.name, grid.datasets) if len(grid.axes) == 1 else None,
        )
        for grid in plan.params.studied_grids.values()
    ]
