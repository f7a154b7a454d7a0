"""What each modality adds to the accuracy, and what accuracy costs."""

from __future__ import annotations

import math

from pipeline_src.reports.figures.drawing import Drawing
from pipeline_src.reports.figures.style import INK, looks, modality_looks, panels, styled
from pipeline_src.reports.runs import Part
from pipeline_src.reports.tables import BASELINE, level


def contributions(part: Part) -> Drawing | None:
    """A panel per fusion, a stacked bar per method; None where no contribution was measured."""
    worth = part.metrics[part.metrics.metric == "contribution"]
    worth = worth.groupby(["fusion", "method", "modality"]).value.mean()
    rows = {f: [c for c in part.cells(f) if (*c, part.modalities[0]) in worth.index] for f in part.fusions}
    rows = {fusion: cells for fusion, cells in rows.items() if cells}
    if not rows:
        return None
    look = modality_looks(part.modalities)
    most = max(map(len, rows.values()))
    with styled():
        figure, axes = panels(len(rows), size=(3.15, 0.75 + 0.27 * most))
        for axis, (fusion, cells) in zip(axes, rows.items(), strict=True):
            for i, cell in enumerate(cells):
                right = left = 0.0
                for m in part.modalities:
                    value = 100 * worth.get((*cell, m), 0.0)
                    start = right if value >= 0 else left  # negative ones go the other way from 0
                    axis.barh(i, value, left=start, height=0.62, color=look[m].color)
                    right, left = right + max(value, 0), left + min(value, 0)
            axis.axvline(0, color=INK, linewidth=0.9)
            axis.set_yticks(range(len(cells)), [method for _, method in cells])
            axis.set(title=fusion, xlabel="points of test accuracy", ylim=(most - 0.4, -0.6))
            axis.grid(visible=False, axis="y")
    return Drawing(
        f"contributions-{part.name}",
        "Contribution of each modality",
        "Shapley values: what a modality adds to the test accuracy, averaged over all orders in which modalities can"
        " join; together they are the accuracy above that of the fusion without any modality. Mean over seeds.",
        figure,
        look,
        keys="area",
    )


def cost(part: Part) -> Drawing | None:
    """Accuracy against training time: a panel per fusion, a point per method; None where times are not known."""
    known = part.table.seconds_mean.notna() & part.table.accuracy_mean.notna()
    rows = {f: [cell for cell in part.cells(f) if known[cell]] for f in part.fusions}
    rows = {fusion: cells for fusion, cells in rows.items() if cells}
    if not rows:
        return None
    look, legend = looks(part.methods, BASELINE), {}
    with styled():
        figure, axes = panels(len(rows))
        for axis, (fusion, cells) in zip(axes, rows.items(), strict=True):
            for cell in cells:
                row, one = part.table.loc[cell], look[cell[1]]
                legend[cell[1]] = one
                low, high = 100 * row.accuracy_ci_low, 100 * row.accuracy_ci_high
                if not math.isnan(low):
                    axis.plot([row.seconds_mean] * 2, [low, min(high, 100)], color=one.color, linewidth=1)
                axis.plot(
                    [row.seconds_mean], [100 * row.accuracy_mean], marker=one.marker, color=one.color, markersize=6
                )
            axis.set(title=fusion, xlabel="training, seconds per run", ylabel="test accuracy, percent")
    several = len(part.seeds) > 1
    return Drawing(
        f"cost-{part.name}",
        "Accuracy against cost",
        "Mean over seeds"
        + (f" with the {level(part.confidence)} Student t interval, cut at 100" if several else "")
        + ". Seconds depend on what else the machine did; the passes in the table do not.",
        figure,
        legend,
        keys="point",
    )
