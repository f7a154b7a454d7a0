"""What a method alone logs, epoch by epoch: lines of modalities side by side."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline_src.reports.declared import explained, heading
from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import (
    INK,
    Look,
    banded,
    draw_band,
    draw_quantity,
    modality_looks,
    panels,
    styled,
    whole_epochs,
)
from pipeline_src.reports.results import Results


@figures.register("own_quantities", place="curves", order=30, needs=("quantities",))
def own_quantities(results: Results) -> Iterator[Drawing]:
    """A figure per fusion: a panel for each quantity that only one method logs, a line per modality."""
    look = modality_looks(results.modalities)
    for fusion, cells in results.grid(results.logged).items():
        names = [name for cell in cells for name in results.logged(cell)]
        wanted = [
            (cell, name)
            for cell in cells
            for name in results.logged(cell)
            if names.count(name) == 1 and not results.quantities[cell][name].detail
        ]
        if not wanted:
            continue
        with styled():
            figure, axes = panels(len(wanted))
            for axis, (cell, name) in zip(axes, wanted, strict=True):
                last = max([1, *results.curve(cell, "epoch")[0]])
                for m in results.logged(cell)[name]:
                    x, y = results.curve(cell, f"{name}/{m}" if m else name)
                    draw_quantity(axis, results.quantities[cell][name], x, y, look.get(m, Look(INK)))
                    curve = results.seeded(cell, f"{name}/{m}" if m else name)
                    draw_band(axis, curve, results.confidence, look.get(m, Look(INK)))
                axis.set_title(f"{cell[1]}: {heading(name)}")
                whole_epochs(axis, last)
        declared = [(cell[1], results.quantities[cell][name]) for cell, name in wanted]
        yield Drawing(
            f"own-quantities-{results.name}-{fusion}",
            f"What single methods log, fusion {fusion}",
            f"Means over the steps of an epoch and over seeds.{banded(len(results.seeds), results.confidence)}"
            f" {explained(declared)}",
            figure,
            look,
        )
