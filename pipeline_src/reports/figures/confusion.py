"""Which classes the fused models confuse on the test samples, in numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import NAMED, panels, styled
from pipeline_src.reports.results import Results
from pipeline_src.reports.wording import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LARGEST = 60  # classes: above, a matrix of this size shows nothing


@figures.register("confusion", place="views", order=30, needs=("confusions",))
def confusion(results: Results) -> Iterator[Drawing]:
    """A figure per fusion, a matrix per method; none where there are too many classes to see."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgb

    if len(results.classes) > LARGEST:
        return
    clear = [(*to_rgb("#2f7f96"), alpha) for alpha in (0, 1)]  # transparent at 0: reads on light and on dark
    colors = LinearSegmentedColormap.from_list("fraction", clear)
    named = len(results.classes) <= NAMED
    side = 0.8 + 0.27 * len(results.classes) if named else 2.3
    ticks = range(len(results.classes)) if named else []
    labels = [results.classes[k] for k in ticks]
    for fusion, cells in results.grid(lambda cell: results.confusion(cell) is not None).items():
        with styled():
            figure, axes = panels(len(cells), columns=2 if named else 4, size=(side, side))
            for axis, cell in zip(axes, cells, strict=True):
                counts = results.outcomes[cell].confusion
                assert counts is not None
                fraction = counts / np.maximum(counts.sum(1, keepdims=True), 1)
                axis.imshow(fraction, cmap=colors, norm=PowerNorm(0.5, 0, 1), interpolation="none")
                if named:
                    _numbers(axis, 100 * fraction)
                axis.grid(visible=False)
                axis.set_xticks(ticks, labels, rotation=90, fontsize=7)
                axis.set_yticks(ticks, labels, fontsize=7)
                axis.set_title(cell[1])
                axis.spines[:].set_visible(True)
        yield Drawing(
            f"confusion-{results.name}-{fusion}",
            f"Confusions, fusion {fusion}",
            "Rows are true classes, columns are predicted classes. A darker field is a larger fraction of the class's"
            f" test samples (0 to 1, on a square-root scale), over {plural(len(results.seeds), 'seed')} together."
            f"{' Numbers: percent of the class; none below half a percent.' if named else _worst(results, cells)}",
            figure,
        )


def _numbers(axis: Axes, percent: np.ndarray) -> None:
    """Write each field's percentage (C, C) in it."""
    for (row, column), value in np.ndenumerate(percent):
        if value >= 0.5:
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=6.5)


def _worst(results: Results, cells: list[tuple[str, str]]) -> str:
    """The most frequent confusion of each method, in a sentence."""
    each = []
    for cell in cells:
        counts = results.outcomes[cell].confusion
        assert counts is not None
        wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts) / np.maximum(counts.sum(1, keepdims=True), 1)
        true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
        names = f"{results.classes[true]} as {results.classes[predicted]}"
        each.append(f"{cell[1]}: {names} ({100 * wrong[true, predicted]:.0f} %)")
    return f" Most frequent confusion, in percent of the true class: {'; '.join(each)}."
