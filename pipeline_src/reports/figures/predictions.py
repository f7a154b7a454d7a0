"""What the models predict on the test clips: confusions, and where each modality's features lie."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline_src.reports.figures.drawing import Drawing
from pipeline_src.reports.figures.style import SOFT, Look, panels, styled
from pipeline_src.reports.runs import Part
from pipeline_src.reports.tables import BASELINE

NAMED = 12  # classes whose names fit at an axis, and that have a colour of their own
LARGEST = 60  # classes: above, a matrix of this size shows nothing
SHOWN = 8  # methods in the features' figure
# Middle tones, for classes: points are pixels, so they cannot change with the page's scheme.
HUES = ("#1f7fc4", "#e0692a", "#1fa37a", "#c77ba6", "#d99a1c", "#63b4e0", "#8a63c4", "#9a9420", "#808080", "#2aa9b8")
HUES += ("#b5674a", "#5a78c0")


def confusion(part: Part) -> Iterator[Drawing]:
    """A figure per fusion, a matrix per method."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgb

    if len(part.classes) > LARGEST:
        return
    clear = [(*to_rgb("#2f7f96"), alpha) for alpha in (0, 1)]  # transparent at 0: reads on light and on dark
    colors = LinearSegmentedColormap.from_list("share", clear)
    drawn, n = 0, len(part.classes)
    for fusion in part.fusions:
        cells = [cell for cell in part.cells(fusion) if cell in part.outcomes]
        if not cells:
            continue
        with styled():
            figure, axes = panels(len(cells), columns=4, size=(2.3, 2.3))
            for axis, cell in zip(axes, cells, strict=True):
                counts = part.outcomes[cell].confusion
                share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
                axis.imshow(share, cmap=colors, norm=PowerNorm(0.5, 0, 1), interpolation="none")
                axis.grid(visible=False)
                ticks = range(n) if n <= NAMED else []
                axis.set_xticks(ticks, [part.classes[k] for k in ticks], rotation=90, fontsize=7)
                axis.set_yticks(ticks, [part.classes[k] for k in ticks], fontsize=7)
                axis.set_title(cell[1])
                axis.spines[:].set_visible(True)
        yield Drawing(
            f"confusion-{part.name}-{fusion}",
            f"Confusions, fusion {fusion}",
            "Rows: the true class; columns: the predicted one. The darker, the larger the share of the class's test"
            f" clips (0 to 1, on a square-root scale), all {len(part.seeds)}"
            f" seed{'s' if len(part.seeds) > 1 else ''} together.",
            figure,
            folded=drawn > 0,
        )
        drawn += 1


def features(part: Part) -> Drawing | None:
    """Where each modality's features lie: a panel for each method and modality, of the first fusion and seed."""
    wanted = []
    for m in part.modalities:
        cells = [part.alone[m]] if m in part.alone else []
        cells += [cell for fusion in part.fusions[:1] for cell in part.cells(fusion)][:SHOWN]
        wanted += [(m, cell) for cell in cells if m in getattr(part.outcomes.get(cell), "coordinates", {})]
    if not wanted:
        return None
    named = len(part.classes) <= NAMED
    with styled():
        figure, axes = panels(len(wanted), columns=4, size=(2.2, 2.1))
        for axis, (m, cell) in zip(axes, wanted, strict=True):
            outcome = part.outcomes[cell]
            places, label = outcome.coordinates[m], outcome.label
            hues = [HUES[k % len(HUES)] if named else SOFT for k in label]
            axis.scatter(*places.T, c=hues, s=5, linewidths=0, alpha=0.85, rasterized=True)
            axis.set(title=f"{m}: {cell[1]}", xticks=[], yticks=[])
            axis.grid(visible=False)
            axis.spines[:].set_visible(True)
    return Drawing(
        f"features-{part.name}",
        "Features of each modality",
        f"Test clips by the first two principal components of each encoder's features, fitted on train"
        f"{', coloured by class' if named else ''}; fusion {part.fusions[0] if part.fusions else ''}, seed"
        f" {part.seeds[0]}, at most {SHOWN} methods beside the model alone. Axes differ from panel to panel. Two"
        f" components show a part of what there is; {BASELINE} and methods are compared by the probe, not by this.",
        figure,
        {name: Look(HUES[k]) for k, name in enumerate(part.classes)} if named else {},
        keys="point",
    )
