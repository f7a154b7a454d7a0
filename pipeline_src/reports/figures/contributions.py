"""What each modality adds to the primary metric."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import INK, draw_seeds, method_rows, modality_looks, styled
from pipeline_src.reports.results import Results


@figures.register("contributions", place="views", order=10, needs=("contribution", "fused"))
def contributions(results: Results) -> Iterator[Drawing]:
    """A panel per fusion, a row per method, a mark per modality."""
    worth = results.metrics[results.metrics.metric == "contribution"]
    cells = set(worth[["fusion", "method"]].itertuples(index=False, name=None))
    rows = results.grid(lambda cell: cell in cells)
    one, label = results.primary, results.primary.metric.label
    look = modality_looks(results.modalities)
    apart = 0.6 / len(results.modalities)  # rows of modalities within that of a method
    with styled():
        figure, panels = method_rows(rows, max(0.3, 0.15 * len(results.modalities)), 4.6 if len(rows) == 1 else 3.15)
        for axis, cells_of in panels:
            for i, cell in enumerate(cells_of):
                for j, m in enumerate(results.modalities):
                    values = one.factor * results.scores(cell, "contribution", m)
                    at = i + apart * (j - (len(results.modalities) - 1) / 2)
                    draw_seeds(axis, values.tolist(), at, look[m], across=0.3 * apart)
                    axis.plot([values.mean()], [at], marker=look[m].marker, color=look[m].color)
            axis.axvline(0, color=INK, linewidth=0.9)
            axis.set(xlabel=f"points of test {label}" if one.points == "points" else f"test {label}")
    caption = (
        f"Shapley values: what a modality adds to the test {label}, averaged over all orders in which modalities can"
        f" join. They add up to the {label} of the fused model minus its {label} without any modality. Small points:"
        " seeds; large points: their mean."
    )
    yield Drawing(f"contributions-{results.name}", "Contribution of each modality", caption, figure, look, keys="point")
