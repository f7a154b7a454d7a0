"""Where each modality's features lie."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import NAMED, SOFT, Look, panels, styled
from pipeline_src.reports.results import Results

SHOWN = 8  # methods
# Middle tones, for classes: points are pixels, so they cannot change with the page's scheme.
HUES = ("#1f7fc4", "#e0692a", "#1fa37a", "#c77ba6", "#d99a1c", "#63b4e0", "#8a63c4", "#9a9420", "#808080", "#2aa9b8")
HUES += ("#b5674a", "#5a78c0")


@figures.register("features", place="views", order=20, needs=("coordinates",))
def features(results: Results) -> Iterator[Drawing]:
    """A panel for each method and modality, of the first fusion and seed."""
    fusion = results.fusions[0] if results.fusions else ""
    wanted = []
    for m in results.modalities:
        cells = [results.alone[m]] if m in results.alone else []
        cells += results.cells(fusion)[:SHOWN]
        wanted += [(m, cell) for cell in cells if m in getattr(results.outcomes.get(cell), "coordinates", {})]
    if not wanted:
        return
    named = len(results.classes) <= NAMED and all(results.outcomes[cell].label is not None for _, cell in wanted)
    with styled():
        figure, axes = panels(len(wanted), columns=4, size=(2.2, 2.1))
        for axis, (m, cell) in zip(axes, wanted, strict=True):
            outcome = results.outcomes[cell]
            hues = [HUES[k % len(HUES)] for k in outcome.label] if named else SOFT
            axis.scatter(*outcome.coordinates[m].T, c=hues, s=5, linewidths=0, alpha=0.85, rasterized=True)
            axis.set(title=f"{m}: {cell[1]}", xticks=[], yticks=[])
            axis.grid(visible=False)
            axis.spines[:].set_visible(True)
    caption = (
        f"Test samples{', coloured by class,' if named else ''} in the plane of the first two principal components of"
        f" each encoder's features, fitted on train; {f'fusion {fusion}, ' if fusion else ''}seed {results.seeds[0]},"
        f" at most {SHOWN} methods and the model trained alone. Axes differ between panels. Two components show only a"
        " part of the features; the probe compares encoders, this figure does not."
    )
    legend = {name: Look(HUES[k]) for k, name in enumerate(results.classes)} if named else {}
    yield Drawing(f"features-{results.name}", "Features of each modality", caption, figure, legend, keys="point")
