"""The loss that each method minimises, by epoch."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import banded, draw_band, looks, panels, styled, whole_epochs
from pipeline_src.reports.results import Results
from pipeline_src.reports.scores import BASELINE
from pipeline_src.reports.wording import plural


@figures.register("fitting", place="curves", order=15, needs=("histories",))
def fitting(results: Results) -> Iterator[Drawing]:
    """A panel per fusion, a line per method."""
    look = looks(results.methods, BASELINE)
    rows = results.grid(lambda cell: results.curve(cell, "loss")[0])
    if not rows:
        return
    legend = {}
    with styled():
        figure, axes = panels(len(rows))
        for axis, (fusion, cells) in zip(axes, rows.items(), strict=True):
            last = 1
            for cell in cells:
                x, y = results.curve(cell, "loss")
                by = legend[cell[1]] = look[cell[1]]
                axis.plot(x, y, color=by.color, linestyle=by.dashes)
                draw_band(axis, results.seeded(cell, "loss"), results.confidence, by)
                last = max(last, *x)
            axis.set(title=fusion, ylabel="training loss")
            axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
            whole_epochs(axis, last)
    seeds = len(results.seeds)
    caption = (
        f"The loss that each method minimises, mean over the steps of an epoch and over {plural(seeds, 'seed')}."
        f"{banded(seeds, results.confidence)} Methods add losses and weigh them, so compare the shapes, not the"
        " heights; the observer `scores` gives the fused model's own loss and accuracy on train."
    )
    yield Drawing(f"fitting-{results.name}", "Training loss", caption, figure, legend)
