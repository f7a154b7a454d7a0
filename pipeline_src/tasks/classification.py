"""Classification: one of C classes per sample, trained with cross-entropy. Target: (B,) int64."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pipeline_src.core.lazy import torch
from pipeline_src.tasks.base import Metric, Task, tasks

if TYPE_CHECKING:
    from torch import Tensor


MAP = Metric("map", "mAP", "%", "The mean of the average precisions of the classes that occur.")


@tasks.register("classification")
class Classification(Task):
    counted = True
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("accuracy", "accuracy", "%", "The fraction of samples whose class is predicted.", counts=True),
        Metric("macro_f1", "macro-F1", "%", "The mean of the F1 scores of the classes that occur."),
        MAP,
        Metric("nll", "NLL", "", "The mean negative log likelihood of the true class.", higher=False, whole=True),
        Metric("ece", "ECE", "%", "The expected calibration error over 15 bins.", higher=False, whole=True),
    )

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits, target, reduction="none")

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits, target)

    def confidence(self, logits: Tensor, target: Tensor) -> Tensor:
        """Probability of the true class."""
        return torch.softmax(logits.float(), dim=1).gather(1, target[:, None])[:, 0]

    def right(self, logits: Tensor, target: Tensor) -> Tensor:
        return logits.argmax(1) == target

    def score(self, logits: Tensor, target: Tensor) -> float:
        return float(self.right(logits, target).sum()) / len(target)

    def predicted(self, logits: np.ndarray) -> np.ndarray:
        return logits.argmax(1).astype(np.int32)

    def by_sample(self, predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
        return (predicted == target).astype(float)

    def evaluate(self, logits: np.ndarray, target: np.ndarray, whole: bool) -> dict[str, float]:
        return ranking(logits, target) | (calibration(logits, target) if whole else {})

    def ensemble(self, logits: list[np.ndarray]) -> np.ndarray:
        from scipy.special import log_softmax, logsumexp

        each = [log_softmax(z.astype(np.float64), axis=1) for z in logits]
        return logsumexp(each, axis=0) - np.log(len(each))

    def probe(
        self, train: np.ndarray, target: np.ndarray, others: list[np.ndarray], c: float, iterations: int
    ) -> list[np.ndarray]:
        from pipeline_src.tasks.probe import linear_probe

        return linear_probe(train, target, others, self.classes, c, iterations)


def ranking(logits: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """accuracy; macro_f1, the mean over the classes that occur; map, the mean of their average precisions.

    To the bit what scikit-learn's functions give, which check their arguments for longer than they compute.
    """
    from scipy.special import softmax

    present = np.unique(label)
    predicted = logits.argmax(1)
    scores = softmax(logits, axis=1)
    own, chosen = (values[:, None] == present for values in (label, predicted))
    f1 = 2.0 * (own & chosen).sum(0) / (own.sum(0) + chosen.sum(0))
    precision = [average_precision(label == c, scores[:, c]) for c in present]
    return {
        "accuracy": float((label == predicted).mean()),
        "macro_f1": float(np.average(f1)),
        "map": float(np.mean(precision)),
    }


def average_precision(right: np.ndarray, scores: np.ndarray) -> float:
    """Precision at each distinct score (N,), from the highest on, weighted by what it adds to the recall of `right`
    (N,) bool, which holds somewhere.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of those that are equal
    hits = np.cumsum(right[order], dtype=np.float64)[last]
    precision, recall = (hits / (1 + last))[::-1], np.append((hits / hits[-1])[::-1], 0.0)
    return float(max(0.0, -np.sum(np.diff(recall) * precision)))


def calibration(logits: np.ndarray, label: np.ndarray, bins: int = 15) -> dict[str, float]:
    """nll, the mean negative log likelihood; ece, the expected calibration error (Guo et al., ICML 2017, Eq. 3)."""
    from scipy.special import log_softmax, softmax

    scores = softmax(logits, axis=1)
    confidence, right = scores.max(1), scores.argmax(1) == label
    where = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(where, confidence, bins) - np.bincount(where, right, bins)
    nll = -log_softmax(logits, axis=1)[np.arange(len(label)), label].mean()
    return {"nll": float(nll), "ece": float(np.abs(gaps).sum() / len(label))}
