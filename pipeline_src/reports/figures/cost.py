"""What accuracy costs in training time."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import looks, panels, styled
from pipeline_src.reports.results import Results
from pipeline_src.reports.scores import BASELINE
from pipeline_src.reports.statistics import FEWEST
from pipeline_src.reports.wording import level


@figures.register("cost", place="views", order=40, needs=("seconds", "fused"))
def cost(results: Results) -> Iterator[Drawing]:
    """A panel per fusion, a point per method."""
    rows = results.grid(lambda cell: not math.isnan(results.table.seconds_mean[cell]))
    look, legend = looks(results.methods, BASELINE), {}
    with styled():
        figure, axes = panels(len(rows))
        for axis, (fusion, cells) in zip(axes, rows.items(), strict=True):
            for cell in cells:
                row = results.table.loc[cell]
                drawn = legend[cell[1]] = look[cell[1]]
                low, high = 100 * row.accuracy_ci_low, 100 * row.accuracy_ci_high
                if not math.isnan(low):
                    axis.plot([row.seconds_mean] * 2, [low, high], color=drawn.color, linewidth=1)
                score = 100 * row.accuracy_mean
                axis.plot([row.seconds_mean], [score], marker=drawn.marker, color=drawn.color, markersize=6)
            axis.set(title=fusion, xlabel="training, seconds per run", ylabel="test accuracy, percent")
    interval = (
        f" with the {level(results.confidence)} Student t interval, cut at 0 and 100"
        if len(results.seeds) >= FEWEST
        else ""
    )
    caption = f"Mean over seeds{interval}. Seconds depend on what else the machine did; the passes in the table do not."
    yield Drawing(f"cost-{results.name}", "Accuracy against cost", caption, figure, legend, keys="point")
