"""What each method gains over joint training, with its intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pipeline_src.reports.ensemble import CAPTION, ENSEMBLE
from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import INK, PAPER, draw_seeds, looks, method_rows, styled
from pipeline_src.reports.results import Results
from pipeline_src.reports.scores import BASELINE, significant
from pipeline_src.reports.statistics import FEWEST
from pipeline_src.reports.tables import corrections
from pipeline_src.reports.wording import level


@figures.register("gains", place="answer", order=10, needs=("gains",))
def gains(results: Results) -> Iterator[Drawing]:
    """A panel per fusion, a row per method."""
    gain, factor, label = results.primary.gain, results.primary.factor, results.primary.metric.label
    rows = results.grid(lambda cell: not math.isnan(results.table[f"{gain}_mean"][cell]))
    shown = results.table.loc[[cell for cells in rows.values() for cell in cells]]
    each = {cell: _by_seed(results, cell) for cells in rows.values() for cell in cells}
    widest = max(shown[[f"{gain}_ci_low", f"{gain}_ci_high", f"{gain}_mean"]].abs().max().max(), 0.005)
    reach = 1.08 * max(factor * widest, *(abs(value) for values in each.values() for value in values))
    look = looks(results.methods, BASELINE)
    with styled():
        figure, panels = method_rows(rows, each=0.36, wide=5.2 if len(rows) == 1 else 3.15)
        for axis, cells in panels:
            axis.axvline(0, color=INK, linewidth=0.9)
            for i, cell in enumerate(cells):
                row = results.table.loc[cell]
                low, high, mean = (factor * row[f"{gain}_{name}"] for name in ("ci_low", "ci_high", "mean"))
                color = look[cell[1]].color
                draw_seeds(axis, each[cell], i + 0.3, look[cell[1]], across=0.1)
                axis.plot([low, high], [i, i], color=color, linewidth=2, solid_capstyle="butt")
                filled = color if significant(row, gain, results.confidence) else PAPER
                axis.plot([mean], [i], marker="o", markersize=6.5, color=color, markerfacecolor=filled)
            axis.set(xlabel=f"{results.primary.points} above {BASELINE}", xlim=(-reach, reach))
    tested = shown[f"{gain}_p"].notna().any()
    caption = f"Difference in test {label} from {BASELINE} with the same fusion, paired by seed. Small points:"
    caption += " seeds."
    if not results.primary.metric.higher:
        caption += f" Lower {label} is better: a gain is left of 0."
    if tested:
        numbers = corrections(shown.reset_index(), [gain])
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
    """The difference of every seed that both have, as it is drawn."""
    score = results.primary.score
    differences = results.scores(cell, score) - results.scores((cell[0], BASELINE), score)
    return (results.primary.factor * differences.reindex(results.seeds).dropna()).tolist()
