"""What DVC compares and draws: a small file of numbers per cell, and every epoch of every cell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pipeline_src.evaluation import FUSED
from pipeline_src.reports import declared, results
from pipeline_src.reports.declared import Primary

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Run

HISTORY = ["dataset", "fusion", "method", "modality", "metric", "epoch", "value", "caption"]
UNDRAWN = ("epoch", "lr", "seconds")  # of a line of metrics.jsonl: the epoch itself, and what no method changes


def cells(metrics: pd.DataFrame, seeds: int, primaries: Mapping[str, Primary]) -> dict[Path, dict[str, float]]:
    """Of every cell whose `seeds` runs are all there, the mean over seeds of the primary metric on test: of the fused
    model (`fused`), and of a linear probe on each modality's encoder. The keys are the cells' places,
    <dataset>/<fusion>/<method>.json.

    `metrics` has scores.COLUMNS, `primaries` the primary metric by dataset. Means are rounded to what DVC shows.
    """
    test = metrics[metrics.split == "test"]
    score, probe = (test.dataset.map({k: name(one) for k, one in primaries.items()}) for name in (_score, _probe))
    chosen = ((test.modality == FUSED) & (test.metric == score)) | (test.metric == probe)
    numbers: dict[Path, dict[str, float]] = {}
    for names, rows in test[chosen].groupby(["dataset", "fusion", "method"], sort=False):
        if rows.seed.nunique() == seeds:
            means = rows.groupby("modality", sort=False).value.mean()
            numbers[Path(*names).with_name(f"{names[-1]}.json")] = {m: round(float(v), 5) for m, v in means.items()}
    return numbers


def _score(one: Primary) -> str:
    return one.score


def _probe(one: Primary) -> str:
    return one.view("probe")


def history(complete: list[Run]) -> pd.DataFrame:
    """Every epoch (from 1) of every cell in long form, with the columns HISTORY: means over the `complete` runs (of a
    Plan) of a cell, of each number that all of them logged.

    `caption` is the method's declaration of a quantity, with its unit; it is empty of all else, and of details. What
    concerns the fused model has the modality `fused`; in a model of one modality, that. Raises UserError for a broken
    metrics.jsonl.
    """
    rows, members = [], defaultdict(list)
    for run in complete:
        members[run.cell.place].append(run)
    for runs in members.values():
        cell = runs[0].cell
        modalities, quantities = cell.spec.modalities, declared.quantities(cell)
        whole = modalities[0] if len(modalities) == 1 else FUSED
        for key, curve in results.history(runs).items():
            metric, _, modality = key.partition("/")
            if metric not in UNDRAWN:
                quantity = quantities.get(metric)
                caption = declared.sentence(quantity) if quantity and not quantity.detail else ""
                names = (cell.data.name, cell.fusion, cell.method, modality or whole, metric)
                rows += [(*names, epoch, mean, caption) for epoch, mean in zip(curve.epochs, curve.means, strict=True)]
    return pd.DataFrame(rows, columns=HISTORY)
