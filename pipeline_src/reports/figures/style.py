"""How every figure looks: colours that stay apart for colour-blind readers, thin axes, no ornament.

Series are told apart by colour and by dashes or marker. In the HTML report each colour here becomes a variable of the
page, so that figures follow its light or dark scheme; everywhere else they are as written here, on paper.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from pipeline_src.reports.statistics import FEWEST
from pipeline_src.reports.wording import level

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline_src.methods.base import Quantity
    from pipeline_src.reports.results import Curve

PAPER, INK, SOFT, LINE = "#fdfdfb", "#1d2021", "#5d6266", "#d9dad5"
# Okabe and Ito's colours without yellow and black, then two more; the baseline is drawn in INK.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a3d9a", "#8f8a00")
MODALITIES = ("#0b6e80", "#b5541d", "#74539c", "#5f7a1f", "#a33b5e")
DASHES = ("solid", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
PANEL = 3.15, 2.45  # inches of one set of axes with its labels
NAMED = 12  # classes whose names fit at an axis, and that have a colour of their own

RC = {
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "savefig.facecolor": PAPER,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",  # text as text: small, searchable, in the reader's own font
    "svg.hashsalt": "counterpoise",  # the same figure gives the same bytes
    "axes.unicode_minus": True,
}


class Look(NamedTuple):
    """How one series is drawn."""

    color: str
    dashes: object = "solid"
    marker: str = "o"


def looks(names: list[str], baseline: str | None = None) -> dict[str, Look]:
    """A look for each name, the same for the same list; `baseline`, where it is among them, in ink and solid."""
    found, i = {}, 0
    for name in names:
        if name == baseline:
            found[name] = Look(INK)
            continue
        found[name] = Look(SERIES[i % len(SERIES)], DASHES[(i + 1) % len(DASHES)], MARKERS[(i + 1) % len(MARKERS)])
        i += 1
    return found


def modality_looks(names: list[str]) -> dict[str, Look]:
    """The same for modalities, in colours that no method has."""
    return {
        name: Look(MODALITIES[i % len(MODALITIES)], DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)])
        for i, name in enumerate(names)
    }


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's settings for drawing and saving, for the length of the block."""
    import matplotlib

    with matplotlib.rc_context(RC):
        yield


def svg(figure: Figure) -> str:
    """The figure as SVG text, the same for the same figure: no date, no random names."""
    text = io.StringIO()
    with styled():
        figure.savefig(text, format="svg", dpi=120, metadata={"Date": None, "Creator": None})
    return text.getvalue()


def panels(count: int, columns: int = 3, size: tuple[float, float] = PANEL) -> tuple[Figure, list[Axes]]:
    """A figure of `count` axes, each of `size` inches with its labels, at most `columns` beside each other."""
    from matplotlib.figure import Figure

    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    return figure, axes


def draw_band(axes: Axes, curve: Curve | None, confidence: float, look: Look, scale: float = 1.0) -> None:
    """Where the mean of a curve lies; nothing for a single seed. `scale` is what values are multiplied by."""
    if curve is None or len(curve.values) < 2:
        return
    low, high = curve.band(confidence)
    if axes.get_yscale() == "log":  # no lower than the smallest seed, as 0 is infinitely far below
        low = low.clip(min=curve.values.min(axis=0))
    axes.fill_between(curve.epochs, scale * low, scale * high, color=look.color, alpha=0.13, linewidth=0)


def draw_seeds(axes: Axes, values: Sequence[float], at: float, look: Look, across: float = 0.26) -> None:
    """Values of seeds as small points about the height `at` of a row; the first seed is the uppermost."""
    count = len(values)
    heights = [at + across * ((i + 0.5) / count - 0.5) * 2 for i in range(count)]
    axes.scatter(values, heights, s=10, color=look.color, alpha=0.6, linewidths=0, zorder=1.5)


def banded(seeds: int, confidence: float) -> str:
    """What a band is, in a sentence for a caption."""
    if seeds < 2:
        return ""
    if seeds < FEWEST:
        return " Band: from the smaller to the larger of the two values."
    return f" Band: {level(confidence)} Student t interval of the mean, epoch by epoch."


def same_scale(groups: Iterable[Sequence[Axes]]) -> None:
    """Give the axes of each group one vertical scale, that of all their data."""
    for group in filter(None, groups):
        limits = [axes.get_ylim() for axes in group]
        for axes in group:
            axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def draw_quantity(axes: Axes, quantity: Quantity, x: list[int], y: list[float], look: Look) -> None:
    """A curve of a declared quantity, with what it declares of its axis. Values of some epochs only become points."""
    sparse = len(x) < 2 or max(b - a for a, b in itertools.pairwise(x)) > 1
    axes.plot(x, y, color=look.color, linestyle=look.dashes, marker=look.marker if sparse else None)
    if quantity.reference is not None and len(axes.lines) == 1:  # once
        axes.axhline(quantity.reference, color=SOFT, linewidth=0.8, zorder=1)
    if quantity.limits:
        low, high = quantity.limits
        room = 0.03 * (high - low)
        axes.set_ylim(low - room, high + room)
    if quantity.unit:
        axes.set_ylabel(quantity.unit)
    if quantity.scale == "log":
        _plain_log(axes)


def _plain_log(axes: Axes) -> None:
    """A logarithmic axis with few, plain labels."""
    from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def method_rows(
    rows: dict[str, list[tuple[str, str]]], each: float = 0.27, wide: float = 3.15
) -> tuple[Figure, list[tuple[Axes, list[tuple[str, str]]]]]:
    """A figure with a panel per fusion and a row per method, of {fusion: [(fusion, method)]}: axes with their cells.
    A row is `each` inches high, a panel `wide` inches wide.
    """
    most = max(map(len, rows.values()))
    figure, axes = panels(len(rows), size=(wide, 0.75 + each * most))
    for axis, (fusion, cells) in zip(axes, rows.items(), strict=True):
        axis.set_yticks(range(len(cells)), [method for _, method in cells])
        axis.set(title=fusion, ylim=(most - 0.4, -0.6))
        axis.grid(visible=False, axis="y")
    return figure, list(zip(axes, rows.values(), strict=True))


def whole_epochs(axes: Axes, epochs: int) -> None:
    """Epochs from 1 on the horizontal axis, ticks on whole ones."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.set_xlim(0.5, max(epochs, 1) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
