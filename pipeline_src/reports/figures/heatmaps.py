"""What each method gains over joint training on every dataset of a grid, and how much there is to gain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import INK, PAPER, SERIES, panels, styled
from pipeline_src.reports.grids import GridResults
from pipeline_src.reports.scores import BASELINE
from pipeline_src.reports.wording import NONE, plural, points, value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABOVE, BELOW = SERIES[0], SERIES[1]  # blue and orange: apart for every kind of colour blindness
DARKEST = 0.7  # opacity of the largest difference: ink on it can be read on light and on dark pages


@figures.register("heatmaps", place="grid", order=10, needs=("gains",))
def heatmaps(grid: GridResults) -> Iterator[Drawing]:
    """A figure per fusion: a panel of the head-room, where there is one, and a panel per method."""
    *_, (across, columns) = grid.axes.items()
    down, rows = next(iter(grid.axes.items())) if len(grid.axes) == 2 else ("", [""])
    for fusion in grid.fusions:
        shown = {"head-room": ENSEMBLE} if "headroom" in grid.offers else {}
        shown |= {method: method for method in grid.methods}
        values = {name: grid.gains(method, fusion) for name, method in shown.items()}
        every = np.concatenate([found.ravel() for found in values.values()])
        if np.isnan(every).all():
            continue
        reach, unit = max(float(np.nanmax(np.abs(every))), 1e-4), grid.first.primary.metric.unit
        size = (0.95 + 0.62 * len(columns), 0.85 + 0.42 * len(rows))
        with styled():
            figure, axes = panels(len(values), columns=4, size=size)
            for axis, (name, found) in zip(axes, values.items(), strict=True):
                significant = grid.significant(shown[name], fusion)
                for at, number in np.ndenumerate(found):
                    _draw(axis, at, float(number), reach, bool(significant[at]), unit)
                axis.set(title=name, xlabel=across, ylabel=down)
                axis.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
                axis.set_xticks(range(len(columns)), columns)
                axis.set_yticks(range(len(rows)), rows)
                axis.grid(visible=False)
                axis.spines[:].set_visible(False)
                axis.tick_params(length=0)
        yield Drawing(
            f"heatmaps-{grid.name}-{fusion}",
            f"Where methods gain: {grid.name}, fusion {fusion}",
            _caption(grid, "head-room" in values),
            figure,
        )


def _caption(grid: GridResults, headroom: bool) -> str:
    metric = grid.first.primary.metric
    text = (
        f"Difference in test {metric.label} from {BASELINE} with the same fusion"
        f"{points(metric.unit, ', in ')}, mean over {plural(len(grid.seeds), 'seed')}."
        f" Blue is above {BASELINE}, orange below; all panels have the same scale."
        " Bold and framed: significant after the correction for the comparisons on its dataset; the number of datasets"
        " is not corrected for."
    )
    return text + (f" Head-room: the ensemble of the models trained alone, less {BASELINE}." if headroom else "")


def _draw(axis: Axes, at: tuple[int, ...], number: float, reach: float, significant: bool, unit: str) -> None:
    """One dataset's field: its colour, its number, and a frame if the difference is significant."""
    from matplotlib.patches import Rectangle

    y, x = at
    color, opacity = (ABOVE if number > 0 else BELOW), DARKEST * abs(number) / reach
    if not np.isnan(number):
        axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=color, alpha=opacity, edgecolor="none"))
    edge, width = (INK, 1.6) if significant else (PAPER, 1.2)
    inset = 0.04 if significant else 0.0
    side = 1 - 2 * inset
    corner = x - 0.5 + inset, y - 0.5 + inset
    axis.add_patch(Rectangle(corner, side, side, facecolor="none", edgecolor=edge, linewidth=width))
    text = NONE if np.isnan(number) else value(number, unit, sign=True)
    axis.text(x, y, text, ha="center", va="center", fontsize=8, fontweight="bold" if significant else "normal")
