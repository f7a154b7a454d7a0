"""What the primary metric costs: passes of samples, and training time where it was measured on a quiet machine."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import looks, panels, styled
from pipeline_src.reports.results import Results
from pipeline_src.reports.scores import BASELINE, timing
from pipeline_src.reports.statistics import FEWEST
from pipeline_src.reports.wording import capital, level

AXES = {"passes": f"passes of samples, {BASELINE} = 1", "seconds": "training time of a run, seconds"}


@figures.register("cost", place="views", order=40, needs=("passes", "fused"))
def cost(results: Results) -> Iterator[Drawing]:
    """A panel per fusion and measure of cost, a point per method."""
    rows = results.grid(lambda cell: not math.isnan(results.table.passes_mean[cell]))
    if not rows:
        return
    quiet, said = timing(results.table.reset_index())
    shown = [(fusion, what) for fusion in rows for what in (AXES if quiet else ["passes"])]
    one = results.primary
    look, legend = looks(results.methods, BASELINE), {}
    with styled():
        figure, axes = panels(len(shown))
        for axis, (fusion, what) in zip(axes, shown, strict=True):
            for cell in rows[fusion]:
                row = results.table.loc[cell]
                drawn = legend[cell[1]] = look[cell[1]]
                x = row[f"{what}_mean"]
                seeds = one.factor * results.scores(cell, one.score)
                axis.scatter([x] * len(seeds), seeds, s=9, color=drawn.color, alpha=0.5, linewidths=0)
                mean, low, high = (one.factor * row[f"{one.score}_{name}"] for name in ("mean", "ci_low", "ci_high"))
                if not math.isnan(low):
                    axis.plot([x] * 2, [low, high], color=drawn.color, linewidth=1)
                axis.plot([x], [mean], marker=drawn.marker, color=drawn.color, markersize=6)
            axis.set(title=fusion, xlabel=AXES[what], ylabel=f"test {one.axis}")
            axis.set_xlim(left=0)
    interval = (
        f", with the {level(results.confidence)} Student t interval{', cut at 0 and 100' * (one.factor == 100)}"
        if len(results.seeds) >= FEWEST
        else ""
    )
    caption = (
        f"Small points: seeds; large points: their mean{interval}. Passes: samples in forward and backward passes."
        f" {said}{'' if quiet else ' So no measured time is drawn.'}"
    )
    title = f"{capital(one.metric.label)} against cost"
    yield Drawing(f"cost-{results.name}", title, caption, figure, legend, keys="point")
