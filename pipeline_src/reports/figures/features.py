"""Where each modality's features lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import NAMED, SOFT, Look, panels, styled
from pipeline_src.reports.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 8  # methods
# Middle tones, for classes: points are pixels, so they cannot change with the page's scheme.
HUES = ("#1f7fc4", "#e0692a", "#1fa37a", "#c77ba6", "#d99a1c", "#63b4e0", "#8a63c4", "#9a9420", "#808080", "#2aa9b8")
HUES += ("#b5674a", "#5a78c0")


class Placed(NamedTuple):
    """Panels of points, and the classes that their colours stand for; empty if there are too many."""

    figure: Figure
    legend: dict[str, Look]


@figures.register("features", place="views", order=20, needs=("coordinates",))
def features(results: Results) -> Iterator[Drawing]:
    """A panel for each method and modality, of the first fusion and seed."""
    made = placed(results, "coordinates")
    if made is None:
        return
    fusion = f"fusion {results.fusions[0]}, " if results.fusions else ""
    caption = (
        f"Test samples{', coloured by class,' if made.legend else ''} in the plane of the first two principal"
        f" components of each encoder's features, fitted on train; {fusion}seed {results.seeds[0]},"
        f" at most {SHOWN} methods and the model trained alone. Axes differ between panels. Two components show only a"
        " part of the features; the probe compares encoders, this figure does not."
    )
    title = "Features of each modality"
    yield Drawing(f"features-{results.name}", title, caption, made.figure, made.legend, keys="point")


def placed(results: Results, what: Literal["coordinates", "neighbours"]) -> Placed | None:
    """A panel for each method and modality, of the first fusion and seed, of what an Outcome has; None if it has none.

    Samples without a place are left out.
    """
    fusion = results.fusions[0] if results.fusions else ""
    wanted = []
    for m in results.modalities:
        cells = [results.alone[m]] if m in results.alone else []
        cells += results.cells(fusion)[:SHOWN]
        wanted += [(m, cell) for cell in cells if m in getattr(results.outcomes.get(cell), what, {})]
    if not wanted:
        return None
    named = len(results.classes) <= NAMED and all(results.outcomes[cell].label is not None for _, cell in wanted)
    with styled():
        figure, axes = panels(len(wanted), columns=4, size=(2.2, 2.1))
        for axis, (m, cell) in zip(axes, wanted, strict=True):
            places, label = getattr(results.outcomes[cell], what)[m], results.outcomes[cell].label
            there = np.isfinite(places).all(axis=1)
            hues = [HUES[k % len(HUES)] for k in label[there]] if named and label is not None else SOFT
            axis.scatter(*places[there].T, c=hues, s=5, linewidths=0, alpha=0.85, rasterized=True)
            axis.set(title=f"{m}: {cell[1]}", xticks=[], yticks=[])
            axis.grid(visible=False)
            axis.spines[:].set_visible(True)
    return Placed(figure, {name: Look(HUES[k]) for k, name in enumerate(results.classes)} if named else {})
