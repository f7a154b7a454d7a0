"""The published figures, with where they come from (published.csv beside this file), next to those of a study.

A figure is set beside ours only if it was made by the same recipe on the same dataset with the same fusion. What else
is published is shown as what it is: how far figures of one method on one dataset lie apart.

Columns of published.csv: dataset, method (`<modality>-only`: trained alone), fusion (`none` of those; `concat-mlp`: two
layers), metric (accuracy is top-1), percent, recipe (ours that repeats the source's preprocessing; empty where it does
not name it or is another), source, provenance, remark (what differs from the recipe, too). Provenance is
`first-hand` (read in the authors' own artefact), `quoted` (by somebody else, not checked against the paper) or `user`
(a third party's run of released code or weights).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from pipeline_src.reports.figures.drawing import Drawing
from pipeline_src.reports.figures.style import INK, Look, panels, styled
from pipeline_src.reports.tables import BASELINE, Figure, Table, figure, percent, read

CONTEXT = "cremad"  # whose figures are shown where a study's dataset has none
LOOKS = {
    "first-hand": Look(INK, marker="o"),
    "quoted": Look("#0072b2", marker="s"),
    "user": Look("#d55e00", marker="^"),
}
PROTOCOL = (
    "Published figures are mostly of one run; the epoch with the best test accuracy is the one reported; some are"
    " scored without the last, incomplete batch of the test set; frames, spectrograms, schedules and fusions differ"
    " between papers even under one name. Here every method has the same of all of these, over several seeds, and"
    " the epoch is chosen on val; the figure by the papers' rule stands in the column of that name."
)


@dataclass(frozen=True)
class Published:
    """What is published of a dataset: side by side with ours, and how far it lies apart."""

    line: str  # what was found, in a sentence
    table: Table | None
    drawing: Drawing | None
    protocol: str = PROTOCOL


@cache
def figures() -> pd.DataFrame:
    """published.csv; `fusion` and `recipe` are empty text where the source does not say."""
    return pd.read_csv(Path(__file__).parent / "published.csv", keep_default_na=False, dtype={"percent": float})


def published(name: str, kind: str, recipe: str, part: pd.DataFrame, seeds: int) -> Published:
    """What is published of the dataset `name` of the registered `kind`; `part`: its rows of the accuracy table."""
    known = figures()[figures().metric == "accuracy"]
    own = known[known.dataset == kind]
    same = own[own.recipe == recipe]
    methods = list(dict.fromkeys([BASELINE, *part.method]))
    if own.empty:
        line = f"No figure on {name} is published: nothing to set beside."
        where, shown = CONTEXT, known[known.dataset == CONTEXT]
    else:
        beside = "none" if same.empty else f"{len(same)}"
        line = (
            f"{len(own)} accuracies on {name} are on record, {beside} of them by the recipe {recipe}."
            " Those by another recipe, or by one that the source does not name, are not comparable and only drawn."
        )
        where, shown = kind, own
    table = _side_by_side(name, recipe, same, part, seeds)
    return Published(line, table, _spread(name, where, shown[shown.method.isin(methods)], methods, where != kind))


def _side_by_side(name: str, recipe: str, same: pd.DataFrame, part: pd.DataFrame, seeds: int) -> Table | None:
    rows = []
    for row in part.to_dict("records"):
        found = same[(same.method == row["method"]) & same["fusion"].isin([row["fusion"], ""])]
        for one in found.to_dict("records"):
            baseline = same[
                (same.method == BASELINE) & (same["fusion"] == one["fusion"]) & (same.source == one["source"])
            ].percent
            gain = (
                (one["percent"] - baseline.item()) / 100
                if len(baseline) == 1 and row["method"] != BASELINE
                else math.nan
            )
            rows.append(
                [
                    *map(Figure, (row["fusion"], row["method"])),
                    Figure(one["source"]),
                    Figure(one["provenance"] + (f": {one['remark']}" if one["remark"] else "")),
                    Figure(f"{one['percent']:.1f}"),
                    figure(read(row, "accuracy"), seeds),
                    figure(read(row, "accuracy_best_test_epoch"), seeds),
                    Figure(percent(gain, True)),
                    figure(read(row, "accuracy_gain"), seeds, sign=True),
                ]
            )
    if not rows:
        return None
    columns = [
        "fusion",
        "method",
        "source",
        "provenance",
        "published",
        "here",
        "here, by the papers' rule",
        f"published gain over its {BASELINE}",
        "gain here",
    ]
    caption = (
        "Accuracy on test, percent. Figures of the same dataset, fusion and recipe; a published gain only where the"
        " same source gives its own joint training. A row of the published side is one figure, without a deviation."
    )
    return Table(f"Published figures and ours: {name} (recipe {recipe})", caption, columns, rows, 4)


def _spread(name: str, where: str, shown: pd.DataFrame, methods: list[str], foreign: bool) -> Drawing | None:
    methods = [method for method in methods if (shown.method == method).any()]
    if not methods:
        return None
    with styled():
        chart, (axis,) = panels(1, size=(6.2, 0.8 + 0.34 * len(methods)))
        for i, method in enumerate(methods):
            own = shown[shown.method == method]
            axis.plot([own.percent.min(), own.percent.max()], [i, i], color=INK, linewidth=0.8)
            for provenance, look in LOOKS.items():
                x = own[own.provenance == provenance].percent
                axis.plot(x, [i] * len(x), linestyle="none", marker=look.marker, color=look.color, alpha=0.85)
        axis.set_yticks(range(len(methods)), methods)
        axis.set(xlabel=f"published accuracy on {where}, percent", ylim=(len(methods) - 0.5, -0.5))
        axis.grid(visible=False, axis="y")
    spans = {m: shown[shown.method == m].percent.agg(["min", "max", "size"]) for m in methods}
    widest = max(methods, key=lambda m: spans[m]["max"] - spans[m]["min"])
    low, high, count = spans[widest]
    return Drawing(
        f"published-{name}",
        f"How far published figures of one method lie apart ({where})",
        (f"For context only; {where} is not in this study. " if foreign else "")
        + f"Every accuracy of these methods on {where} that is on record, whatever the recipe and fusion: of {widest}"
        f" {count:.0f}, from {low:.1f} to {high:.1f} percent. A figure is comparable within its own table alone.",
        chart,
        {name: look for name, look in LOOKS.items() if (shown.provenance == name).any()},
        keys="point",
    )
