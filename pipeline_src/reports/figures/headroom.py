"""The gain of each method against the head-room, from different halves of the seeds, a point per dataset of a grid."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline_src.reports import headroom as test
from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import INK, SERIES, Look, panels, styled
from pipeline_src.reports.grids import GridResults
from pipeline_src.reports.scores import BASELINE
from pipeline_src.reports.wording import words

LOOKS = Look(SERIES[0], marker="o"), Look(SERIES[1], marker="^")  # of the half of the seeds that the gain is from


@figures.register("headroom", place="grid", order=20, needs=("gains", "headroom"))
def headroom(grid: GridResults) -> Iterator[Drawing]:
    """A figure per fusion, a panel per method; none for fewer than two seeds."""
    if len(grid.seeds) < 2:
        return
    halves = test.halves(grid.seeds)
    keys = [f"gain on seeds {words(own)}, head-room on the others" for own in halves]
    for fusion in grid.fusions:
        baseline, one = grid.scores(BASELINE, fusion), grid.first.primary
        room = grid.scores(ENSEMBLE, fusion) - baseline
        with styled():
            figure, axes = panels(len(grid.methods), columns=3, size=(2.5, 2.2))
            for axis, method in zip(axes, grid.methods, strict=True):
                gain = grid.scores(method, fusion) - baseline
                for look, own, other in zip(LOOKS, halves, reversed(halves), strict=True):
                    x, y = (one.factor * of.mean(axis=1) for of in (room[other], gain[own]))
                    axis.plot(x, y, linestyle="none", marker=look.marker, color=look.color, alpha=0.85)
                axis.axhline(0, color=INK, linewidth=0.9)
                axis.set(title=method, xlabel=f"head-room, {one.points}", ylabel=f"gain over {BASELINE}, {one.points}")
        yield Drawing(
            f"headroom-{grid.name}-{fusion}",
            f"Gain against head-room: {grid.name}, fusion {fusion}",
            "A point per dataset and half of the seeds. Gain and head-room of a point are from different seeds, so that"
            f" the noise of {BASELINE} cannot move both.",
            figure,
            dict(zip(keys, LOOKS, strict=True)),
            keys="point",
        )
