"""What one run saw, epoch by epoch."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from pipeline_src.reports.figures.style import INK, modality_looks, panels, styled, whole_epochs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACCURACY = "val_accuracy"
UNSEEN = ("test_accuracy", "modulated_tensors")  # the first is drawn by nobody who chooses, the second is a constant


def quantities(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What a method logged of each modality: quantity -> its modalities, both in the order of the rows.

    A key of metrics.jsonl is `quantity/modality`; accuracies are not among them.
    """
    found: dict[str, list[str]] = {}
    for row in rows:
        for key in row:
            quantity, slash, modality = key.partition("/")
            if slash and quantity != ACCURACY and quantity not in UNSEEN and modality not in found.get(quantity, ()):
                found.setdefault(quantity, []).append(modality)
    return found


def series(rows: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Epochs, from 1, and values of a key, where it was logged as a finite number; the last row of an epoch counts."""
    found = {}
    for i, row in enumerate(rows):
        value = row.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            found[int(row.get("epoch", i)) + 1] = float(value)
    return sorted(found), [found[epoch] for epoch in sorted(found)]


def history(rows: list[dict[str, Any]], title: str) -> Figure:
    """A run's metrics.jsonl as a figure: accuracy on val of the whole and of each modality's unimodal logits, then
    a panel for each quantity that the method logged by modality (ratios, coefficients, purities, ...).

    `rows` are the lines, one epoch each, `epoch` from 0; any number of them, none included. It belongs to no backend:
    save it with `savefig`, or with `style.svg` for an SVG that is the same for the same rows.
    """
    logged = quantities(rows)
    modalities = list(dict.fromkeys(m for names in logged.values() for m in names))
    modalities = list(
        dict.fromkeys([k.partition("/")[2] for row in rows for k in row if k.startswith(f"{ACCURACY}/")] + modalities)
    )
    looks = modality_looks(modalities)
    epochs = max((int(row.get("epoch", i)) + 1 for i, row in enumerate(rows)), default=1)
    with styled():
        figure, axes = panels(1 + len(logged))
        first, *others = axes
        shown: dict[str, Any] = defaultdict(lambda: None)
        x, y = series(rows, ACCURACY)
        (shown["whole"],) = first.plot(x, [100 * v for v in y], color=INK, marker="." if len(x) < 30 else None)
        for m in modalities:
            x, y = series(rows, f"{ACCURACY}/{m}")
            (shown[m],) = first.plot(x, [100 * v for v in y], color=looks[m].color, linestyle=looks[m].dashes)
        first.set(title="Accuracy on val", ylabel="percent", ylim=(0, 102))
        for axis, (quantity, names) in zip(others, logged.items(), strict=True):
            for m in names:
                x, y = series(rows, f"{quantity}/{m}")
                sparse = len(x) < 2 or max(b - a for a, b in itertools.pairwise(x)) > 1
                axis.plot(
                    x,
                    y,
                    color=looks[m].color,
                    linestyle=looks[m].dashes,
                    marker=looks[m].marker if sparse else None,
                )
            axis.set(title=quantity.replace("_", " ").capitalize())
        for axis in axes:
            whole_epochs(axis, epochs)
        if not rows:
            first.text(0.5, 0.5, "no epoch has ended yet", transform=first.transAxes, ha="center", va="center")
        figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure
