"""A figure of the report is a plug-in: one file, a function that draws what `Results` hold, registered where it stands.

    @figures.register("gains", place="answer", order=10, needs=("gains",))
    def gains(results: Results) -> Iterator[Drawing]:
        ...

`place` is one of PLACES, or GRID, whose figures draw GridResults; `order` sorts the figures of a place; `needs` names
what must be among `results.offers`, or the figure is left out and the report says so. Of the drawings that a figure
gives, all but the first are folded.

Matplotlib draws, and is imported only then: it draws what papers print, its SVG needs no script and no network, and
MLflow installs it anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline_src.core.errors import UserError
from pipeline_src.reports.figures.registry import figures
from pipeline_src.reports.figures.style import Look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLACES = ("answer", "curves", "views", "published", "data")  # parts of a dataset's section, in the order of the report
GRID = "grid"  # the section of a grid of datasets; its figures get GridResults


@dataclass
class Drawing:
    """What a figure gives: `name` is its file's stem, `legend` what its series are and how they look."""

    name: str
    title: str
    caption: str
    figure: Figure
    legend: dict[str, Look] = field(default_factory=dict)
    keys: str = "line"  # what a series is: line, point or area


Draw = Callable[[Any], Iterable[Drawing]]  # of Results, or of GridResults where the place is GRID


def registered(place: str) -> list[tuple[str, Draw, tuple[str, ...]]]:
    """The figures of a place in their order: name, function and needs. Raises UserError for an unknown place."""
    rows = []
    for name in figures:
        facts = figures.facts(name)
        if facts.get("place") not in (*PLACES, GRID):
            raise UserError(
                f"figure {name!r}: expected a place of {', '.join((*PLACES, GRID))}, but got {facts.get('place')!r}; "
                f"change it in {figures.module(name)}"
            )
        if facts["place"] == place:
            rows.append((facts.get("order", 100), name, tuple(facts.get("needs", ()))))
    return [(name, figures[name], needs) for _, name, needs in sorted(rows)]
