"""What one run logged, epoch by epoch: the figure that MLflow shows with the run."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from pipeline_src.reports.declared import Primary, heading
from pipeline_src.reports.figures.style import INK, Look, draw_quantity, modality_looks, panels, styled, whole_epochs
from pipeline_src.reports.wording import capital

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline_src.methods.base import Quantity


def logged(rows: list[dict[str, Any]], declared: dict[str, Quantity]) -> dict[str, list[str]]:
    """The declared quantities in the rows, each with its modalities ("" for the model), in the order declared."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    by_name: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        name, _, modality = key.partition("/")
        by_name[name].append(modality)
    return {name: by_name[name] for name in declared if name in by_name}


def series(rows: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Epochs, from 1, and values of a key, where it was logged as a finite number; the last row of an epoch counts."""
    values = {}
    for i, row in enumerate(rows):
        value = row.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            values[int(row.get("epoch", i)) + 1] = float(value)
    return sorted(values), [values[epoch] for epoch in sorted(values)]


def history(rows: list[dict[str, Any]], title: str, declared: dict[str, Quantity], primary: Primary) -> Figure:
    """A run's metrics.jsonl as a figure: the primary metric on val of the fused model and of each modality's unimodal
    logits, then a panel for each quantity that its method declares and logged.

    `rows` are the lines, one epoch each, `epoch` from 0; any number of them, none included. It belongs to no backend:
    save it with `savefig`, or with `style.svg` for an SVG that is the same for the same rows. Scores on test are
    not plotted: they must not guide choices.
    """
    wanted = logged(rows, declared)
    scored = [key.partition("/")[2] for row in rows for key in row if key.startswith(primary.by_epoch() + "/")]
    modalities = list(dict.fromkeys(m for m in [*scored, *(m for of in wanted.values() for m in of)] if m))
    looks = modality_looks(modalities)
    epochs = max((int(row.get("epoch", i)) + 1 for i, row in enumerate(rows)), default=1)
    with styled():
        figure, (first, *others) = panels(1 + len(wanted))
        lines: dict[str, Any] = {}
        x, y = series(rows, primary.by_epoch())
        (lines["fused model"],) = first.plot(
            x, [primary.factor * v for v in y], color=INK, marker="." if len(x) < 30 else None
        )
        for m in modalities:
            x, y = series(rows, primary.by_epoch(m))
            (lines[m],) = first.plot(
                x, [primary.factor * v for v in y], color=looks[m].color, linestyle=looks[m].dashes
            )
        first.set(title=f"{capital(primary.metric.label)} on val")
        if primary.factor == 100:
            first.set(ylabel="percent")
        for axis, (name, of) in zip(others, wanted.items(), strict=True):
            for m in of:
                x, y = series(rows, f"{name}/{m}" if m else name)
                draw_quantity(axis, declared[name], x, y, looks.get(m, Look(INK)))
            axis.set(title=heading(name))
        for axis in (first, *others):
            whole_epochs(axis, epochs)
        if not rows:
            first.text(0.5, 0.5, "no epoch has ended yet", transform=first.transAxes, ha="center", va="center")
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure
