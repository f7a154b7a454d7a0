"""What the methods see and do, epoch by epoch, as far as several of them log it: lines of methods side by side."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline_src.reports.declared import explained, heading
from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import (
    banded,
    draw_band,
    draw_quantity,
    looks,
    panels,
    same_scale,
    styled,
    whole_epochs,
)
from pipeline_src.reports.results import Results
from pipeline_src.reports.scores import BASELINE


@figures.register("quantities", place="curves", order=20, needs=("quantities",))
def quantities(results: Results) -> Iterator[Drawing]:
    """A figure per fusion: a panel for each modality of each quantity that several methods log, a line per method."""
    look = looks(results.methods, BASELINE)
    for fusion, cells in results.grid(results.logged).items():
        wanted = {}  # (name, modality or None) -> cells that log it
        for cell in cells:
            for name, modalities in results.logged(cell).items():
                if not results.quantities[cell][name].detail:
                    for m in modalities:
                        wanted.setdefault((name, m), []).append(cell)
        wanted = {what: of for what, of in wanted.items() if len(of) > 1}
        if not wanted:
            continue
        legend = {}
        with styled():
            figure, axes = panels(len(wanted), columns=4 if len(results.modalities) == 2 else 3, size=(2.4, 2.05))
            for axis, ((name, m), of) in zip(axes, wanted.items(), strict=True):
                last = 1
                for cell in of:
                    x, y = results.curve(cell, f"{name}/{m}" if m else name)
                    legend[cell[1]] = look[cell[1]]
                    draw_quantity(axis, results.quantities[cell][name], x, y, look[cell[1]])
                    curve = results.seeded(cell, f"{name}/{m}" if m else name)
                    draw_band(axis, curve, results.confidence, look[cell[1]])
                    last = max([last, *results.curve(cell, "epoch")[0]])
                axis.set_title(heading(name) + (f", {m}" if m else ""))
                whole_epochs(axis, last)
            same_scale([axis for axis, (of, _) in zip(axes, wanted, strict=True) if of == name] for name, _ in wanted)
        declared = [(cell[1], results.quantities[cell][name]) for (name, _), of in wanted.items() for cell in of]
        yield Drawing(
            f"quantities-{results.name}-{fusion}",
            f"What methods log, fusion {fusion}",
            f"Means over the steps of an epoch and over seeds.{banded(len(results.seeds), results.confidence)} The"
            f" panels of a quantity have one scale. {explained(declared)}",
            figure,
            legend,
        )
