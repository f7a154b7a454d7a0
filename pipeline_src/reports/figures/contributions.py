"""What each modality adds to the accuracy."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import INK, method_rows, modality_looks, styled
from pipeline_src.reports.results import Results


@figures.register("contributions", place="views", order=10, needs=("contribution", "fused"))
def contributions(results: Results) -> Iterator[Drawing]:
    """A panel per fusion, a stacked bar per method."""
    worth = results.metrics[results.metrics.metric == "contribution"]
    worth = worth.groupby(["fusion", "method", "modality"]).value.mean()
    rows = results.grid(lambda cell: (*cell, results.modalities[0]) in worth.index)
    look = modality_looks(results.modalities)
    with styled():
        figure, panels = method_rows(rows)
        for axis, cells in panels:
            for i, cell in enumerate(cells):
                right = left = 0.0
                for m in results.modalities:
                    value = 100 * worth.get((*cell, m), 0.0)
                    start = right if value >= 0 else left  # negative ones go the other way from 0
                    axis.barh(i, value, left=start, height=0.62, color=look[m].color)
                    right, left = right + max(value, 0), left + min(value, 0)
            axis.axvline(0, color=INK, linewidth=0.9)
            axis.set(xlabel="points of test accuracy")
    caption = (
        "Shapley values, mean over seeds: what a modality adds to the test accuracy, averaged over all orders in which"
        " modalities can join. They add up to the accuracy of the fused model minus its accuracy without any modality."
    )
    yield Drawing(f"contributions-{results.name}", "Contribution of each modality", caption, figure, look, keys="area")
