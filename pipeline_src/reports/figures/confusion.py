"""Which classes the fused models confuse on the test samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import NAMED, panels, styled
from pipeline_src.reports.results import Results
from pipeline_src.reports.wording import plural

LARGEST = 60  # classes: above, a matrix of this size shows nothing


@figures.register("confusion", place="views", order=30, needs=("predictions",))
def confusion(results: Results) -> Iterator[Drawing]:
    """A figure per fusion, a matrix per method; none where there are too many classes to see."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgb

    if len(results.classes) > LARGEST:
        return
    clear = [(*to_rgb("#2f7f96"), alpha) for alpha in (0, 1)]  # transparent at 0: reads on light and on dark
    colors = LinearSegmentedColormap.from_list("fraction", clear)
    ticks = range(len(results.classes)) if len(results.classes) <= NAMED else []
    labels = [results.classes[k] for k in ticks]
    for fusion, cells in results.grid(lambda cell: cell in results.outcomes).items():
        with styled():
            figure, axes = panels(len(cells), columns=4, size=(2.3, 2.3))
            for axis, cell in zip(axes, cells, strict=True):
                counts = results.outcomes[cell].confusion
                fraction = counts / np.maximum(counts.sum(1, keepdims=True), 1)
                axis.imshow(fraction, cmap=colors, norm=PowerNorm(0.5, 0, 1), interpolation="none")
                axis.grid(visible=False)
                axis.set_xticks(ticks, labels, rotation=90, fontsize=7)
                axis.set_yticks(ticks, labels, fontsize=7)
                axis.set_title(cell[1])
                axis.spines[:].set_visible(True)
        yield Drawing(
            f"confusion-{results.name}-{fusion}",
            f"Confusions, fusion {fusion}",
            "Rows are true classes, columns are predicted classes. A darker field is a larger fraction of the class's"
            f" test samples (0 to 1, on a square-root scale), over {plural(len(results.seeds), 'seed')} together.",
            figure,
        )
