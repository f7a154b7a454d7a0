"""The ensemble of the models trained alone: a reference that needs no training of its own.

The mean of the probabilities that the models of each modality predict, of the same seed (UME: Du et al., "On uni-modal
feature learning in supervised multi-modal learning", ICML 2023, arXiv:2305.01233). A fused model that is worse than it
gains nothing by being trained jointly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline_src.core.errors import UserError
from pipeline_src.evaluation import FUSED
from pipeline_src.reports import predictions
from pipeline_src.study.runs import RunFiles
from pipeline_src.tasks.base import Task, tasks

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Cell, Data, Run
    from pipeline_src.study.plan import Plan

ENSEMBLE = "ensemble"  # the name of its row, beside the methods of each fusion
CAPTION = (
    f"Reference without training of its own: {ENSEMBLE}, the mean of the probabilities of the models trained alone"
    " (Du et al., ICML 2023, arXiv:2305.01233)."
)
COSTS = ("seconds", "forwards", "backwards")
BLOCK = 1 << 18  # logits of a model that are averaged at once


@dataclass
class Ensemble:
    """The ensembles of one dataset: rows of metrics in long form without names, and test predictions, by seed."""

    data: Data
    modalities: list[str]
    metrics: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    scores: list[pd.Series] = field(default_factory=list)  # (N,) by sample id, of each seed; see Task.by_sample
    confusion: np.ndarray | None = None  # (C, C) samples by label and prediction, summed over seeds


def ensembles(plan: Plan, finished: Sequence[Run]) -> dict[str, Ensemble]:
    """The Ensemble of every dataset of which the study trains each of several modalities alone and a model of all of
    them, from the `finished` runs; datasets of which no seed is complete are left out.
    """
    made = {}
    for data in plan.datasets.values():
        modalities = list(data.extractors)
        alone = {cell.spec.modalities[0]: cell for cell in cells(plan, data) if len(cell.spec.modalities) == 1}
        if len(modalities) < 2 or set(alone) != set(modalities):
            continue
        one = Ensemble(data, modalities)
        for seed in plan.params.study.seeds:
            runs = [
                run for m in modalities for run in finished if run.cell.place == alone[m].place and run.seed == seed
            ]
            if len(runs) == len(modalities):
                _add(one, runs)
        if one.metrics:
            made[data.name] = one
    return made


def cells(plan: Plan, data: Data) -> list[Cell]:
    """The rows of a dataset."""
    return [cell for cell in plan.rows if cell.data.name == data.name]


def rows(plan: Plan, every: dict[str, Ensemble]) -> list[dict[str, Any]]:
    """The ensembles' metrics in long form, once for each fusion that they stand beside."""
    return [
        {**names, "seed": seed, **row}
        for one in every.values()
        for names in named(plan, one)
        for seed, metrics in one.metrics.items()
        for row in metrics
    ]


def named(plan: Plan, one: Ensemble) -> list[dict[str, str]]:
    """{dataset, recipe, fusion, method} of the ensemble beside each fusion of all modalities."""
    whole = [cell for cell in cells(plan, one.data) if len(cell.spec.modalities) == len(one.modalities)]
    fusions = dict.fromkeys(cell.fusion for cell in whole)
    names = {"dataset": one.data.name, "recipe": one.data.recipe}
    return [{**names, "fusion": fusion, "method": ENSEMBLE} for fusion in fusions]


def with_ensembles(plan: Plan, every: dict[str, Ensemble]) -> list[dict[str, str]]:
    """The names of the plan's rows in order, each fusion's followed by its ensemble."""
    order: list[dict[str, str]] = []
    added = {(n["dataset"], n["fusion"]): n for one in every.values() for n in named(plan, one)}
    last = {(cell.data.name, cell.fusion): i for i, cell in enumerate(plan.rows)}
    for i, cell in enumerate(plan.rows):
        order.append(cell.names)
        key = cell.data.name, cell.fusion
        if last[key] == i and key in added:
            order.append(added[key])
    return order


def _add(one: Ensemble, runs: list[Run]) -> None:
    """One seed's ensemble of its unimodal runs, in the order of the modalities; none where a run has no logits."""
    task = tasks[one.data.dataset.task](len(one.data.dataset.classes))
    places = [RunFiles(run).predictions() for run in runs]
    if any(FUSED not in predictions.names(file) for file in places):
        return
    metrics: list[dict[str, Any]] = []
    for split in ("val", "test"):
        read = [predictions.read(file, ["id", "label", FUSED], split) for file in places]
        ids, label = read[0]["id"], read[0]["label"]
        for run, table in zip(runs, read, strict=True):
            if not ids.equals(table["id"]):
                raise UserError(
                    f"{run.evaluation}: expected predictions of the samples of {runs[0].evaluation}, but got others; "
                    "delete both folders and run snakemake again"
                )
        if not len(ids):
            continue
        mean = averaged(task, [table.pop(FUSED).reshape(-1, task.outputs) for table in read])
        values = task.evaluate(mean, label.reshape(-1) if task.segmented else label, whole=True)
        metrics += [{"split": split, "modality": FUSED, "metric": k, "value": v} for k, v in values.items()]
        if split == "test":
            predicted = task.predicted(mean).reshape(label.shape)
            each, confusion = task.by_sample(predicted, label), task.confusion(predicted, label)
            if each is not None:
                one.scores.append(pd.Series(each, index=ids))
            if confusion is not None:
                one.confusion = confusion if one.confusion is None else one.confusion + confusion
    metrics += [{"split": "train", "modality": FUSED, "metric": k, "value": v} for k, v in _costs(runs).items()]
    one.metrics[runs[0].seed] = metrics


def averaged(task: Task, logits: Sequence[np.ndarray]) -> np.ndarray:
    """`task.ensemble` of logits (N, outputs), by blocks of rows: it takes some ten times the memory of its result."""
    mean = np.empty(logits[0].shape)
    step = max(1, BLOCK // mean.shape[1])
    for start in range(0, len(mean), step):
        rows = slice(start, start + step)
        mean[rows] = task.ensemble([each[rows] for each in logits])
    return mean


def _costs(runs: list[Run]) -> dict[str, float]:
    """What the unimodal runs cost together; a sample through one of M encoders is 1 / M of a pass."""
    records = [RunFiles(run).record() for run in runs]
    share = {"seconds": 1.0, "forwards": 1 / len(runs), "backwards": 1 / len(runs)}
    return {name: sum(record[name] for record in records) * share[name] for name in COSTS}
