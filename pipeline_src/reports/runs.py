"""What the report shows of the runs beside their metrics, read from their folders dataset by dataset.

A grid may have thousands of runs, so what is kept is small: histories are means over seeds, predictions become
confusions and the share of seeds that had a clip right.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pipeline_src.reports.figures.run import ACCURACY
from pipeline_src.reports.statistics import over_clips
from pipeline_src.reports.tables import BASELINE, CELL, GAIN
from pipeline_src.study.runs import RunFiles

History = dict[str, tuple[list[int], list[float]]]  # key of metrics.jsonl -> epochs from 1, means over seeds


@dataclass
class Outcome:
    """How a cell's models did on the test clips."""

    confusion: np.ndarray  # (C, C) clips by label and prediction, summed over seeds
    right: pd.Series  # (N,) by clip id: the share of seeds that had it right
    label: np.ndarray | None = None  # (N,) of the first seed's clips, as coordinates are
    coordinates: dict[str, np.ndarray] = field(default_factory=dict)  # modality -> (N, 2), of the first seed


@dataclass
class Part:
    """All that tables and figures show of one dataset."""

    name: str
    recipe: str
    classes: list[str]
    modalities: list[str]
    fusions: list[str]  # of the models that have all modalities
    methods: list[str]
    alone: dict[str, tuple[str, str]]  # modality -> (fusion, method) of the model that has no other
    seeds: list[int]
    confidence: float
    table: pd.DataFrame  # the rows of the accuracy table, by (fusion, method)
    metrics: pd.DataFrame  # long form, test split
    histories: dict[tuple[str, str], History]
    outcomes: dict[tuple[str, str], Outcome]

    def cells(self, fusion: str) -> list[tuple[str, str]]:
        """The cells of a fusion that have a row with figures, in the study's order."""
        known = self.table[self.table.accuracy_mean.notna()].index
        return [(fusion, method) for method in self.methods if (fusion, method) in known]


def parts(plan, table: pd.DataFrame, metrics: pd.DataFrame, records: dict) -> list[Part]:
    """One Part for each dataset of `plan`. `table`, `metrics` and `records` as the report has them."""
    found = []
    for data in plan.data.values():
        cells = [cell for cell in plan.cells if cell.data is data]
        whole = [cell for cell in cells if len(cell.spec.modalities) == len(data.extractors)]
        own = table[(table.dataset == data.name) & (table.recipe == data.recipe)].set_index(["fusion", "method"])
        histories, outcomes = {}, {}
        for cell in cells:
            runs = [run for run in plan.runs if run.cell is cell and tuple(run.names.values()) in records]
            key = cell.fusion, cell.method
            histories[key] = history(runs)
            if (outcome := predictions(runs, len(data.dataset.classes))) is not None:
                outcomes[key] = outcome
        found.append(
            Part(
                name=data.name,
                recipe=data.recipe,
                classes=list(data.dataset.classes),
                modalities=list(data.extractors),
                fusions=list(dict.fromkeys(cell.fusion for cell in whole)),
                methods=list(dict.fromkeys(cell.method for cell in whole)),
                alone={c.spec.modalities[0]: (c.fusion, c.method) for c in cells if len(c.spec.modalities) == 1},
                seeds=list(plan.params.study.seeds),
                confidence=plan.params.reporting.confidence,
                table=own,
                metrics=metrics[(metrics.dataset == data.name) & (metrics.split == "test")],
                histories=histories,
                outcomes=outcomes,
            )
        )
    return found


def history(runs: list) -> History:
    """Mean over the runs of every number in their metrics.jsonl, at the epochs that all of them have."""
    values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    read = 0
    for run in runs:
        rows = RunFiles(run).rows()
        if not rows:
            continue
        read += 1
        for i, row in enumerate(rows):
            for key, value in row.items():
                if isinstance(value, int | float):
                    values[key][i + 1].append(value)
    found = {}
    for key, epochs in values.items():
        kept = [epoch for epoch in sorted(epochs) if len(epochs[epoch]) == read]
        found[key] = kept, [float(np.mean(epochs[epoch])) for epoch in kept]
    return found


def predictions(runs: list, classes: int) -> Outcome | None:
    """The outcome on the test clips from the runs' predictions.parquet; None where none is there."""
    import pyarrow.parquet as pq

    outcome, right, read = None, None, 0
    for run in runs:
        file = RunFiles(run).predictions()
        if file is None:
            continue
        schema = pq.read_schema(file)
        places = [name for name in schema.names if name.endswith("/pca")] if outcome is None else []
        columns = ["id", "split", "label", "predicted", *places]
        rows = pq.read_table(file, columns=columns, filters=[("split", "==", "test")])
        label, predicted = rows["label"].to_numpy(), rows["predicted"].to_numpy()
        own = pd.Series((label == predicted).astype(float), index=rows["id"].to_pandas())
        confusion = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(confusion, (label, predicted), 1)
        read += 1
        if outcome is None:
            coordinates = {
                name.removesuffix("/pca"): rows[name].combine_chunks().flatten().to_numpy().reshape(-1, 2)
                for name in places
            }
            outcome, right = Outcome(confusion, own, label, coordinates), own
        else:
            outcome.confusion += confusion
            right = right + own
    if outcome is not None:
        outcome.right = right / read
    return outcome


def add_clips(table: pd.DataFrame, found: list[Part]) -> pd.DataFrame:
    """The table with accuracy_gain_clips_low and _high: the interval of the gain over the choice of test clips."""
    bounds = {}
    for part in found:
        for (fusion, method), outcome in part.outcomes.items():
            baseline = part.outcomes.get((fusion, BASELINE))
            row = part.table.loc[(fusion, method)]
            if baseline is not None and not np.isnan(row[f"{GAIN}_mean"]):
                both = pd.concat([outcome.right, baseline.right], axis=1, join="inner").to_numpy()
                bounds[part.name, part.recipe, fusion, method] = over_clips(both[:, 0], both[:, 1], part.confidence)
    keys = list(table[CELL].itertuples(index=False, name=None))
    none = (float("nan"), float("nan"))
    low, high = zip(*(bounds.get(key, none) for key in keys), strict=True) if keys else ((), ())
    return table.assign(**{f"{GAIN}_clips_low": low, f"{GAIN}_clips_high": high})


def accuracy_key(modality: str | None) -> str:
    """The key of metrics.jsonl of the accuracy on val, of the whole or of a modality's unimodal logits."""
    return f"{ACCURACY}/{modality}" if modality else ACCURACY
