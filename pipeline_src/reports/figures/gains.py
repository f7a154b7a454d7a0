"""What each method gains over joint training, with its intervals."""

from __future__ import annotations

import math

from pipeline_src.reports.figures.drawing import Drawing
from pipeline_src.reports.figures.style import INK, PAPER, looks, panels, styled
from pipeline_src.reports.runs import Part
from pipeline_src.reports.tables import BASELINE, GAIN, level, supported


def gains(part: Part) -> Drawing | None:
    """A panel per fusion, a line per method; None where there is nothing to compare."""
    rows = {f: [c for c in part.cells(f) if not math.isnan(part.table[f"{GAIN}_mean"][c])] for f in part.fusions}
    rows = {fusion: cells for fusion, cells in rows.items() if cells}
    if not rows:
        return None
    shown = part.table.loc[[cell for cells in rows.values() for cell in cells]]
    reach = 100 * max(shown[[f"{GAIN}_ci_low", f"{GAIN}_ci_high", f"{GAIN}_mean"]].abs().max().max(), 0.005) * 1.08
    look = looks(part.methods, BASELINE)
    most = max(map(len, rows.values()))
    with styled():
        figure, axes = panels(len(rows), size=(3.15, 0.75 + 0.27 * most))
        for axis, (fusion, cells) in zip(axes, rows.items(), strict=True):
            axis.axvline(0, color=INK, linewidth=0.9)
            for i, cell in enumerate(cells):
                row = part.table.loc[cell]
                low, high, wide_low, wide_high, mean = (
                    100 * row[f"{GAIN}_{name}"] for name in ("ci_low", "ci_high", "all_low", "all_high", "mean")
                )
                color = look[cell[1]].color
                axis.plot([max(wide_low, -reach), min(wide_high, reach)], [i, i], color=color, linewidth=0.9)
                axis.plot([low, high], [i, i], color=color, linewidth=3.2, solid_capstyle="butt")
                filled = color if supported(row, GAIN, part.confidence) else PAPER
                axis.plot([mean], [i], marker="o", markersize=6.5, color=color, markerfacecolor=filled)
            axis.set_yticks(range(len(cells)), [method for _, method in cells])
            axis.set(title=fusion, xlabel=f"points above {BASELINE}", xlim=(-reach, reach), ylim=(most - 0.4, -0.6))
            axis.grid(visible=False, axis="y")
    one_seed = len(part.seeds) < 2
    caption = (
        "One seed: points without intervals, from which nothing can be concluded."
        if one_seed
        else f"Difference in test accuracy to {BASELINE} with the same fusion, paired over {len(part.seeds)} seeds."
        f" Thick: {level(part.confidence)} Student t interval of each difference alone. Thin: the interval"
        " with which all of this dataset's differences hold at once (Bonferroni), cut at the frame. Filled: the"
        " difference stands after Holm's correction; hollow: it does not."
    )
    return Drawing(f"gains-{part.name}", "Gain over joint training", caption, figure)
