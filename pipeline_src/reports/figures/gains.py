"""What each method gains over joint training, with its intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pipeline_src.reports.ensemble import CAPTION, ENSEMBLE
from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import INK, PAPER, draw_seeds, looks, method_rows, styled
from pipeline_src.reports.results import Results
from pipeline_src.reports.scores import BASELINE, GAIN, significant
from pipeline_src.reports.statistics import FEWEST
from pipeline_src.reports.tables import corrections
from pipeline_src.reports.wording import level


@figures.register("gains", place="answer", order=10, needs=("gains",))
def gains(results: Results) -> Iterator[Drawing]:
    """A panel per fusion, a row per method."""
    rows = results.grid(lambda cell: not math.isnan(results.table[f"{GAIN}_mean"][cell]))
    shown = results.table.loc[[cell for cells in rows.values() for cell in cells]]
    each = {cell: _by_seed(results, cell) for cells in rows.values() for cell in cells}
    widest = max(shown[[f"{GAIN}_ci_low", f"{GAIN}_ci_high", f"{GAIN}_mean"]].abs().max().max(), 0.005)
    reach = 1.08 * max(100 * widest, *(abs(value) for values in each.values() for value in values))
    look = looks(results.methods, BASELINE)
    with styled():
        figure, panels = method_rows(rows)
        for axis, cells in panels:
            axis.axvline(0, color=INK, linewidth=0.9)
            for i, cell in enumerate(cells):
                row = results.table.loc[cell]
                low, high, mean = (100 * row[f"{GAIN}_{name}"] for name in ("ci_low", "ci_high", "mean"))
                color = look[cell[1]].color
                draw_seeds(axis, each[cell], i, look[cell[1]])
                axis.plot([low, high], [i, i], color=color, linewidth=2, solid_capstyle="butt")
                filled = color if significant(row, GAIN, results.confidence) else PAPER
                axis.plot([mean], [i], marker="o", markersize=6.5, color=color, markerfacecolor=filled)
            axis.set(xlabel=f"points above {BASELINE}", xlim=(-reach, reach))
    tested = shown[f"{GAIN}_p"].notna().any()
    caption = f"Difference in test accuracy from {BASELINE} with the same fusion, paired by seed. Small"
    caption += " points: seeds."
    if tested:
        numbers = corrections(shown.reset_index(), [GAIN])
        caption += (
            f" Line: {level(results.confidence)} interval, corrected for {numbers}. A filled point is significant: its"
            " interval excludes 0. A hollow point is not."
        )
    else:
        caption += f" Fewer than {FEWEST} seeds give points without intervals; they support no conclusion."
    if ENSEMBLE in results.methods:
        caption += f" {CAPTION}"
    yield Drawing(f"gains-{results.name}", "Gain over joint training", caption, figure)


def _by_seed(results: Results, cell: tuple[str, str]) -> list[float]:
    """The difference of every seed that both have, in points."""
    differences = results.scores(cell, "accuracy") - results.scores((cell[0], BASELINE), "accuracy")
    return (100 * differences.reindex(results.seeds).dropna()).tolist()
