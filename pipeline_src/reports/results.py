"""What the report shows of the runs besides their metrics, read from their folders dataset by dataset.

A grid may have thousands of runs, so what is kept is small: histories are arrays of numbers, predictions become
confusions and what each sample scored, mean over seeds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from pipeline_src.corruptions.base import CorruptionParams
from pipeline_src.evaluation import CORRUPTED, FUSED
from pipeline_src.features import CACHE_FILE
from pipeline_src.methods.base import Quantity
from pipeline_src.reports import convergence, declared, sweeps
from pipeline_src.reports import predictions as stored
from pipeline_src.reports.ensemble import ENSEMBLE, Ensemble
from pipeline_src.reports.published import Published, published
from pipeline_src.reports.scores import BASELINE, CELL
from pipeline_src.reports.statistics import FEWEST, over_clips
from pipeline_src.reports.sweeps import Sweep
from pipeline_src.study.runs import RunFiles
from pipeline_src.tasks.base import Task, tasks

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Run
    from pipeline_src.study.plan import Plan

Points = tuple[list[int], list[float]]  # epochs from 1, and a number for each


@dataclass(frozen=True)
class Curve:
    """A number over the epochs that all runs of a cell have."""

    epochs: list[int]  # from 1
    values: np.ndarray  # (S, E), of each run

    @property
    def means(self) -> list[float]:
        return self.values.mean(axis=0).tolist()

    def band(self, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds (E,) of Student's t intervals of the means, epoch by epoch; of fewer than FEWEST runs
        the smallest and the largest value.
        """
        runs, mean = len(self.values), self.values.mean(axis=0)
        if runs < FEWEST:
            return self.values.min(axis=0), self.values.max(axis=0)
        half = stats.t.isf((1 - confidence) / 2, runs - 1) * self.values.std(axis=0, ddof=1) / math.sqrt(runs)
        return mean - half, mean + half


History = dict[str, Curve]  # by key of metrics.jsonl


@dataclass
class Outcome:
    """How a cell's models did on the test samples; R rows of features, one per sample or per segment."""

    confusion: np.ndarray | None  # (C, C) targets by class and prediction, summed over seeds; None if they are no class
    scores: pd.Series | None  # (N,) by sample id: its primary metric, mean over seeds; None if seeds differ in test
    label: np.ndarray | None = None  # (R,) of the first seed's samples, if they have classes
    coordinates: dict[str, np.ndarray] = field(default_factory=dict)  # modality -> (R, 2), of the first seed
    neighbours: dict[str, np.ndarray] = field(default_factory=dict)  # the same by t-SNE; NaN for samples left out


@dataclass
class Results:
    """All that tables and figures show of one dataset."""

    name: str
    recipe: str
    primary: declared.Primary
    classes: list[str]
    modalities: list[str]
    fusions: list[str]  # of the models that have all modalities
    methods: list[str]
    alone: dict[str, tuple[str, str]]  # modality -> (fusion, method) of the model that has no other
    seeds: list[int]
    confidence: float
    cache: Path
    table: pd.DataFrame  # the rows of the accuracy table, by (fusion, method)
    metrics: pd.DataFrame  # long form, test split
    histories: dict[tuple[str, str], History]
    outcomes: dict[tuple[str, str], Outcome]
    quantities: dict[tuple[str, str], dict[str, Quantity]]  # what a cell's method declares, by name
    published: Published
    observed: dict[str, dict[str, Quantity]] = field(default_factory=dict)  # what each observer declares, by name
    corruptions: dict[str, CorruptionParams] = field(default_factory=dict)  # of test samples, by name
    corrupted: pd.DataFrame = field(default_factory=pd.DataFrame)  # long form, of corrupted test samples
    operations: dict[tuple[str, str], float] = field(default_factory=dict)  # of an epoch; empty if nobody asks
    ran: dict[tuple[str, str], list[int]] = field(default_factory=dict)  # the seeds whose histories a cell has
    sweeps: list[Sweep] = field(default_factory=list)  # over a parameter of a method that the study has several times

    @cached_property
    def offers(self) -> set[str]:
        """What a figure can need: the test metrics and table columns that have values, by name, and
        fused         scores of a model of several modalities
        gains         a difference in the primary metric from the baseline
        histories     a curve over epochs
        quantities    a curve of a quantity that a method declares
        observed      a curve of a quantity that an observer declares
        corrupted     scores of corrupted test samples
        confusions    classes of test samples, predicted
        coordinates   features of test samples in a plane
        neighbours    the same by t-SNE
        published     published accuracies to draw
        sweeps        a method with several values of one parameter
        cache         the feature cache
        """
        values = self.table.filter(regex="_mean$").dropna(axis="columns", how="all")
        present = {
            "fused": bool(self.grid(lambda cell: not math.isnan(self._scores[cell]))),
            "gains": self.table[f"{self.primary.gain}_mean"].notna().any(),
            "histories": any(self.histories.values()),
            "quantities": any(self.logged(cell) for cell in self.quantities),
            "observed": any(self.watched(name, cell) for cell in self.histories for name in self.observed),
            "corrupted": len(self.corrupted) > 0,
            "confusions": any(outcome.confusion is not None for outcome in self.outcomes.values()),
            "coordinates": any(outcome.coordinates for outcome in self.outcomes.values()),
            "neighbours": any(outcome.neighbours for outcome in self.outcomes.values()),
            "published": self.published.drawable,
            "sweeps": bool(self.sweeps),
            "cache": (self.cache / CACHE_FILE).exists(),
        }
        names = {name for name, there in present.items() if there}
        return names | set(self.metrics.metric) | {column.removesuffix("_mean") for column in values}

    @property
    def _scores(self) -> pd.Series:
        return self.table[f"{self.primary.score}_mean"]

    def confusion(self, cell: tuple[str, str]) -> np.ndarray | None:
        """The confusion of a cell's models; see Outcome."""
        return self.outcomes[cell].confusion if cell in self.outcomes else None

    def cells(self, fusion: str) -> list[tuple[str, str]]:
        """The cells of a fusion whose row has scores, in the study's order."""
        scored = self._scores.dropna().index
        return [(fusion, method) for method in self.methods if (fusion, method) in scored]

    def grid(self, wanted: Callable[[tuple[str, str]], Any]) -> dict[str, list[tuple[str, str]]]:
        """The cells for which `wanted` holds, by fusion; fusions without any are left out."""
        rows = {fusion: [cell for cell in self.cells(fusion) if wanted(cell)] for fusion in self.fusions}
        return {fusion: cells for fusion, cells in rows.items() if cells}

    def curve(self, cell: tuple[str, str] | None, key: str) -> Points:
        """The mean over seeds of a key of metrics.jsonl over the epochs; empty where the cell has none."""
        found = self.seeded(cell, key)
        return (found.epochs, found.means) if found else ([], [])

    def seeded(self, cell: tuple[str, str] | None, key: str) -> Curve | None:
        """The same seed by seed; None where the cell has none."""
        return self.histories.get(cell, {}).get(key)  # type: ignore[arg-type]

    def differences(self, cell: tuple[str, str], other: tuple[str, str], key: str) -> Curve | None:
        """`seeded` of a cell less that of another, paired by seed; None unless both have the same seeds."""
        ours, theirs = self.seeded(cell, key), self.seeded(other, key)
        if ours is None or theirs is None or self.ran.get(cell) != self.ran.get(other):
            return None
        if len(ours.values) != len(theirs.values):  # a run that diverged before its first epoch ended has no rows
            return None
        count = min(len(ours.epochs), len(theirs.epochs))
        if ours.epochs[:count] != theirs.epochs[:count]:
            return None
        return Curve(ours.epochs[:count], ours.values[:, :count] - theirs.values[:, :count])

    def scores(self, cell: tuple[str, str], metric: str, modality: str = FUSED) -> pd.Series:
        """The test scores of a cell by seed; empty where it has none."""
        m = self.metrics
        at = (m.fusion == cell[0]) & (m.method == cell[1]) & (m.modality == modality) & (m.metric == metric)
        return m[at].set_index("seed").value

    def logged(self, cell: tuple[str, str]) -> dict[str, list[str | None]]:
        """The declared quantities of which a cell has curves, each with its modalities, or [None] for the model's."""
        return {name: of for name in self.quantities[cell] if (of := _modalities(name, self.histories[cell]))}

    def watched(self, observer: str, cell: tuple[str, str]) -> dict[str, list[str | None]]:
        """The quantities that an observer declares of which a cell has curves, without details; as `logged`."""
        wanted = [name for name, quantity in self.observed[observer].items() if not quantity.detail]
        return {name: of for name in wanted if (of := _modalities(name, self.histories.get(cell, {})))}


def _modalities(quantity: str, history: History) -> list[str | None]:
    keys = [key.partition("/") for key in history]
    return [modality or None for name, _, modality in keys if name == quantity]


def collect(
    plan: Plan, table: pd.DataFrame, metrics: pd.DataFrame, records: dict, ensembles: dict[str, Ensemble]
) -> list[Results]:
    """The Results of each dataset of `plan`. `table`, `metrics` and `records` as the report has them; an ensemble is
    one more method of each fusion.
    """
    every, scored = [], defaultdict(list)
    for run in plan.runs:
        if tuple(run.names.values()) in records:
            scored[run.cell.place].append(run)
    for data in plan.datasets.values():
        cells = [cell for cell in plan.rows if cell.data.name == data.name]
        whole = [cell for cell in cells if len(cell.spec.modalities) == len(data.extractors)]
        rows = table[(table.dataset == data.name) & (table.recipe == data.recipe)]
        histories, outcomes, ran = {}, {}, {}
        for cell in cells:
            runs, key = scored[cell.place], (cell.fusion, cell.method)
            histories[key], ran[key] = history(runs), [run.seed for run in runs]
            task = tasks[data.dataset.task](len(data.dataset.classes))
            if (outcome := predictions(runs, task, "data" not in data.vary)) is not None:
                outcomes[key] = outcome
        methods = list(dict.fromkeys(cell.method for cell in whole))
        quantities = {(cell.fusion, cell.method): declared.of_method(cell) for cell in cells}
        observed = {name: of for cell in whole for name, of in declared.of_observers(cell).items()}
        if (ensemble := ensembles.get(data.name)) is not None:
            methods.append(ENSEMBLE)
            scores = None if "data" in data.vary else over_seeds(ensemble.scores)
            for cell in whole:
                key = cell.fusion, ENSEMBLE
                histories[key], quantities[key] = {}, {}
                outcomes[key] = Outcome(ensemble.confusion, scores)
        every.append(
            Results(
                name=data.name,
                recipe=data.recipe,
                primary=declared.primary(data.dataset.task),
                classes=list(data.dataset.classes),
                modalities=list(data.extractors),
                fusions=list(dict.fromkeys(cell.fusion for cell in whole)),
                methods=methods,
                alone={c.spec.modalities[0]: (c.fusion, c.method) for c in cells if len(c.spec.modalities) == 1},
                seeds=list(plan.params.study.seeds),
                confidence=plan.params.reporting.confidence,
                cache=data.cache,
                table=rows.set_index(["fusion", "method"]),
                metrics=metrics[(metrics.dataset == data.name) & (metrics.split == "test")],
                histories=histories,
                outcomes=outcomes,
                quantities=quantities,
                observed=observed,
                operations=convergence.operations(cells, records) if plan.params.reporting.convergence else {},
                corruptions=dict(cells[0].evaluation.corruptions),
                corrupted=metrics[(metrics.dataset == data.name) & (metrics.split == CORRUPTED)],
                published=published(
                    data.name,
                    data.dataset.name,
                    data.recipe,
                    list(rows.method),
                    plan.params.training_of(data.name).optimizer,
                    declared.primary(data.dataset.task),
                ),
                ran=ran,
                sweeps=sweeps.of_methods(whole),
            )
        )
    return every


def history(runs: list[Run]) -> History:
    """Every number in the metrics.jsonl of the runs, at the epochs that all of them have."""
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
    curves = {}
    for key, epochs in values.items():
        kept = [epoch for epoch in sorted(epochs) if len(epochs[epoch]) == read]
        curves[key] = Curve(kept, np.array([epochs[epoch] for epoch in kept], dtype=float).reshape(len(kept), read).T)
    return curves


def over_seeds(scores: Sequence[pd.Series]) -> pd.Series | None:
    """The mean over seeds of what samples score, by id; None where there is nothing."""
    return sum(scores[1:], scores[0]) / len(scores) if scores else None


def predictions(runs: list[Run], task: Task, paired: bool = True) -> Outcome | None:
    """The outcome on the test samples from the runs' predictions.parquet; None where there is none.

    `paired`: all seeds have the same test samples. Else an id names another sample in each.
    """
    outcome: Outcome | None = None
    scores: list[pd.Series] = []
    for run in runs:
        file = RunFiles(run).predictions()
        places = []
        if outcome is None:
            places = [name for name in stored.names(file) if name.endswith(("/pca", "/tsne"))]
        rows = stored.read(file, ["id", "label", "predicted", *places], "test")
        label, predicted = rows["label"], rows["predicted"]
        each, confusion = task.by_sample(predicted, label), task.confusion(predicted, label)
        if each is not None:
            scores.append(pd.Series(each, index=rows["id"]))
        if outcome is None:
            plane: dict[str, dict[str, np.ndarray]] = {"pca": {}, "tsne": {}}
            for name in places:
                modality, _, kind = name.rpartition("/")
                plane[kind][modality] = rows[name].reshape(-1, 2)
            classes = label.reshape(-1) if task.counted else None
            outcome = Outcome(confusion, None, classes, plane["pca"], plane["tsne"])
        elif confusion is not None:
            outcome.confusion = outcome.confusion + confusion
    if outcome is not None and paired:
        outcome.scores = over_seeds(scores)
    return outcome


def test_samples(finished: Iterable[Run]) -> dict[str, int]:
    """The number of test targets (a sample has one, or one per segment) by dataset, the smallest of its seeds', from
    the runs of one cell of each.
    """
    counts: dict[str, int] = {}
    first: dict[str, str] = {}  # dataset -> its cell that is read
    for run in finished:
        name, place = run.cell.data.name, str(run.cell.place)
        if first.setdefault(name, place) == place:
            count = stored.read(RunFiles(run).predictions(), ["label"], "test")["label"].size
            counts[name] = min(count, counts.get(name, count))
    return counts


def add_clips(table: pd.DataFrame, every: list[Results]) -> pd.DataFrame:
    """The table with <score>_gain_clips_low and _high: the interval of the gain over the choice of test samples; none
    where the seeds' test samples differ, as the intervals over seeds hold that, and of a metric that is no mean over
    samples.
    """
    bounds: dict[str, dict[tuple, tuple[float, float]]] = {}
    for results in every:
        gain = results.primary.gain
        bounds.setdefault(gain, {})
        for (fusion, method), outcome in results.outcomes.items():
            baseline = results.outcomes.get((fusion, BASELINE))
            row = results.table.loc[(fusion, method)]
            if baseline is None or outcome.scores is None or baseline.scores is None:
                continue
            if not np.isnan(row[f"{gain}_mean"]):
                both = pd.concat([outcome.scores, baseline.scores], axis=1, join="inner").to_numpy()
                interval = over_clips(both[:, 0], both[:, 1], results.confidence)
                bounds[gain][results.name, results.recipe, fusion, method] = interval
    keys = list(table[CELL].itertuples(index=False, name=None))
    none = (float("nan"), float("nan"))
    for gain, of in bounds.items():
        low, high = zip(*(of.get(key, none) for key in keys), strict=True) if keys else ((), ())
        table = table.assign(**{f"{gain}_clips_low": low, f"{gain}_clips_high": high})
    return table
