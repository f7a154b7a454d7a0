"""A task says what a label is: how a prediction is trained, scored and told right. Imports no torch.

Nothing outside this package calls cross-entropy on labels or takes an argmax of logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pipeline_src.core.labels import Label
from pipeline_src.core.lazy import torch
from pipeline_src.core.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

LABELS = ("target", "counted", "segmented", "named", "stratum", "stored")  # of a Task: what reads labels
tasks = Registry("pipeline_src.tasks", "task")


@dataclass(frozen=True)
class Metric:
    """A number that says how good predictions are, and how it is shown."""

    name: str  # key of metrics.jsonl and metrics.json
    label: str  # in tables
    unit: str  # "%" for a fraction of 1 that is shown in percent, "" for a pure number
    caption: str  # a whole sentence: what the number is
    higher: bool = True  # is better
    whole: bool = False  # of the whole model only, not of its modalities
    counts: bool = False  # a fraction of the targets that are told right: a multiple of 1 over their number

    def shown(self, value: float) -> str:
        return f"{value:.1%}" if self.unit == "%" else f"{value:.3f} {self.unit}".rstrip()

    def best(self, values: list[float]) -> float:
        return max(values) if self.higher else min(values)

    def at_least(self, value: float, other: float) -> bool:
        """Whether a value is as good as another or better."""
        return value >= other if self.higher else value <= other


class Target(NamedTuple):
    """The target of one sample, as the cache holds it: (N, *shape)."""

    dtype: str = "int64"  # as PyTorch and NumPy both call it
    shape: tuple[int, ...] | None = ()  # None: a list, as long as the data's


class Task:
    """Targets (B, ...) against logits (B, outputs, ...), as `Loader.label` and `Method.logits` give them.

    `metrics` names all metrics; the first is the primary one: it is computed after each epoch, selects the epoch on
    val, and measures what a modality contributes. A name means the same metric in every task.

    Where `segmented`, a sample has a target for each of its segments, and each segment is a row of its own: inputs,
    features, logits and targets have B x T rows, those of a sample one after the other.

    What balancing methods ask of a task: `loss`, always; `confidence`, for scores and ratios; `right`, only of tasks
    that are `counted`. A method that needs classes (`Setting.lacks(classes=True)`) refuses the others before any run.
    """

    name: ClassVar[str]  # that it is registered under
    metrics: ClassVar[tuple[Metric, ...]]
    target: ClassVar[Target] = Target()
    counted: ClassVar[bool] = False  # whether a target is one of the classes, so that a split can lack some
    segmented: ClassVar[bool] = False

    def __init__(self, classes: int):
        self.classes = classes

    @property
    def primary(self) -> Metric:
        return self.metrics[0]

    @property
    def outputs(self) -> int:
        """Numbers that the model predicts for a sample (or for each of its segments)."""
        return self.classes

    # A label on its way from the dataset's lists to the cache.

    @classmethod
    def named(cls, label: Label) -> tuple[str, ...]:
        """The classes that a label names."""
        return label if isinstance(label, tuple) else (str(label),)

    @classmethod
    def stratum(cls, label: Label) -> str:
        """What a split is stratified by."""
        return str(label)

    @classmethod
    def stored(cls, label: Label, number: Mapping[str, int]) -> int | float | list[int]:
        """A label as the cache holds it; `number` counts the classes from 0."""
        return number[str(label)]

    # Training and scores.

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss (B,) of each sample."""
        raise NotImplementedError

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss () of a batch."""
        return self.losses(logits, target).mean()

    def confidence(self, logits: Tensor, target: Tensor) -> Tensor:
        """How much of its belief the prediction gives to the truth, (B,) float32 in [0, 1]: what scores are made of.

        Here exp(-loss): with cross-entropy, the probability of the true class, as the papers define it. For other
        losses it is an extension of ours; no paper says what stands in its place.
        """
        return torch.exp(-self.losses(logits.float(), target))

    def of_samples(self, target: Tensor, samples: int) -> Tensor:
        """A target for each of so many samples, by which they are drawn: their own, unless they are segmented."""
        return target

    def events(self, target: Tensor) -> Tensor | None:
        """The rows (B,) bool that show an event, where some show none; None: all do."""
        return None

    def right(self, logits: Tensor, target: Tensor) -> Tensor:
        """Whether each prediction is right, (B,) bool."""
        raise NotImplementedError

    def score(self, logits: Tensor, target: Tensor) -> float:
        """The primary metric of a split's predictions."""
        raise NotImplementedError

    def predicted(self, logits: np.ndarray) -> np.ndarray:
        """What the logits (N, ...) predict, in the targets' shape, for predictions.parquet."""
        raise NotImplementedError

    def by_sample(self, predicted: np.ndarray, target: np.ndarray) -> np.ndarray | None:
        """The primary metric of each sample (N,), from what is predicted; None if that of a split is not their mean."""
        return None

    def confusion(self, predicted: np.ndarray, target: np.ndarray) -> np.ndarray | None:
        """Targets (C, C) int64 by class and by the class that is predicted; None if targets are no classes."""
        if not self.counted:
            return None
        import numpy as np

        counts = np.zeros((self.classes, self.classes), dtype=np.int64)
        np.add.at(counts, (target.reshape(-1), predicted.reshape(-1)), 1)
        return counts

    def evaluate(self, logits: np.ndarray, target: np.ndarray, whole: bool) -> dict[str, float]:
        """The metrics of a split's predictions by name; of the whole model all, of a modality those without `whole`."""
        raise NotImplementedError

    def ensemble(self, logits: list[np.ndarray]) -> np.ndarray:
        """Logits (N, ...) of the mean of what several models predict by `logits`: of their probabilities, if any."""
        raise NotImplementedError

    def probe(
        self, train: np.ndarray, target: np.ndarray, others: list[np.ndarray], c: float, iterations: int
    ) -> list[np.ndarray]:
        """Logits on each of `others` (N, D) of a linear model that is fitted on features `train` (N, D)."""
        raise NotImplementedError
