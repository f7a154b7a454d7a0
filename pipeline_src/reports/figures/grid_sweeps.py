"""Scores over one number in which the datasets of a grid differ: of the data, or of the schedule."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import looks, panels, same_scale, styled
from pipeline_src.reports.figures.sweeps import draw_over, said, scale, scores
from pipeline_src.reports.grids import GridResults
from pipeline_src.reports.scores import BASELINE
from pipeline_src.reports.wording import capital


@figures.register("grid_sweeps", place="grid", order=5, needs=("sweep",))
def grid_sweeps(grid: GridResults) -> Iterator[Drawing]:
    """A panel per fusion, a line per method, the baseline included."""
    sweep, results = grid.sweep, grid.first
    assert sweep is not None
    cells = {value: grid.cells[levels] for value, levels in sweep.points}
    look = looks([m for m in results.methods if m != ENSEMBLE], BASELINE)
    short = sweep.parameter.removeprefix("data.")
    with styled():
        figure, axes = panels(len(grid.fusions))
        for axis, fusion in zip(axes, grid.fusions, strict=True):
            for method, how in look.items():
                draw_over(axis, results, {value: scores(of, fusion, method) for value, of in cells.items()}, how)
            axis.set(title=fusion, xlabel=short, ylabel=f"test {results.primary.axis}")
            scale(axis, sweep.values)
        same_scale([axes])
    yield Drawing(
        f"sweeps-{grid.name}",
        f"Over {short}: {grid.name}",
        f"{capital(results.primary.metric.label)} on test over {short}, all else equal: {said(results)}",
        figure,
        look,
    )
