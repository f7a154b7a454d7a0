"""What DVC compares and draws: a small file of numbers per cell, and every epoch of every cell."""

import itertools
from pathlib import Path

import pandas as pd

from pipeline_src.reports import runs, tables

HISTORY = ["dataset", "fusion", "method", "modality", "metric", "epoch", "value"]
UNDRAWN = ("epoch", "lr", "seconds")  # of a line of metrics.jsonl: the epoch itself, and what no method changes


def cells(metrics: pd.DataFrame, seeds: int) -> dict[Path, dict[str, float]]:
    """Of every cell whose `seeds` runs are all there, the mean test accuracy over seeds: of the whole (`fused`), and of
    a linear probe on each modality's encoder. The keys are the cells' places, <dataset>/<fusion>/<method>.json.

    `metrics` has tables.COLUMNS. Means are rounded to what DVC shows.
    """
    test = metrics[metrics.split == "test"]
    own = (test.modality == tables.FUSED) & (test.metric == "accuracy")
    found: dict[Path, dict[str, float]] = {}
    for names, part in test[own | (test.metric == "accuracy_probe")].groupby(
        ["dataset", "fusion", "method"], sort=False
    ):
        if part.seed.nunique() == seeds:
            means = part.groupby("modality", sort=False).value.mean()
            found[Path(*names).with_name(f"{names[-1]}.json")] = {m: round(float(v), 5) for m, v in means.items()}
    return found


def history(complete: list) -> pd.DataFrame:
    """Every epoch (from 1) of every cell in long form, with the columns HISTORY: means over the `complete` runs (of a
    Plan) of a cell, of each number that all of them logged.

    What concerns the whole model has the modality `fused`; in a model of one modality, that. Raises UserError for a
    broken metrics.jsonl.
    """
    rows = []
    for cell, members in itertools.groupby(complete, lambda run: run.cell):
        own = cell.spec.modalities
        whole = own[0] if len(own) == 1 else tables.FUSED
        for key, (epochs, means) in runs.history(list(members)).items():
            metric, _, modality = key.partition("/")
            if metric not in UNDRAWN:
                names = (cell.data.name, cell.fusion, cell.method, modality or whole, metric)
                rows += [(*names, epoch, mean) for epoch, mean in zip(epochs, means, strict=True)]
    return pd.DataFrame(rows, columns=HISTORY)
