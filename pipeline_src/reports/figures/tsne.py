"""Which samples are near each other in each modality's features."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.features import SHOWN, placed
from pipeline_src.reports.results import Results


@figures.register("tsne", place="views", order=25, needs=("neighbours",))
def tsne(results: Results) -> Iterator[Drawing]:
    """A panel for each method and modality, of the first fusion and seed."""
    made = placed(results, "neighbours")
    if made is None:
        return
    fusion = f"fusion {results.fusions[0]}, " if results.fusions else ""
    caption = (
        f"t-SNE of the test samples{', coloured by class' if made.legend else ''}, of each encoder by itself;"
        f" {fusion}seed {results.seeds[0]}, at most {SHOWN} methods and the model trained alone. Near samples stay"
        " near; distances between clusters, their sizes and the axes say nothing. The probe compares encoders, this"
        " figure does not."
    )
    yield Drawing(f"tsne-{results.name}", "Neighbours among features", caption, made.figure, made.legend, keys="point")
