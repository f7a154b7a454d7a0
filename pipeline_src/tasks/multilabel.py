"""Multilabel: any number of C labels per sample, trained with binary cross-entropy. Target: (B, C) uint8 of 0 and 1.

loss        mean_c BCE(sigmoid(z_c), y_c)
confidence  exp(-loss): the geometric mean over labels of the probability that each has its true value [extension]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pipeline_src.core.lazy import torch
from pipeline_src.tasks.base import Label, Metric, Target, Task, tasks
from pipeline_src.tasks.classification import MAP

if TYPE_CHECKING:
    from torch import Tensor


@tasks.register("multilabel")
class Multilabel(Task):
    target = Target("uint8", None)  # 2 million clips of 527 classes are 1 GB
    metrics = (
        MAP,
        Metric("micro_f1", "micro-F1", "%", "The F1 score of all labels of all samples together."),
        Metric("exact_match", "exact match", "%", "The fraction of samples with all labels told right."),
    )

    @classmethod
    def stratum(cls, label: Label) -> str:
        return ""  # combinations are too rare to stratify by

    @classmethod
    def stored(cls, label: Label, number: Mapping[str, int]) -> list[int]:
        names = set(cls.named(label))
        return [int(name in names) for name in number]

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
        return each.mean(dim=1)

    def score(self, logits: Tensor, target: Tensor) -> float:
        return mean_precision(logits.float().cpu().numpy(), target.cpu().numpy())

    def predicted(self, logits: np.ndarray) -> np.ndarray:
        return (logits > 0).astype(np.int32)

    def evaluate(self, logits: np.ndarray, target: np.ndarray, whole: bool) -> dict[str, float]:
        from sklearn.metrics import f1_score

        predicted = self.predicted(logits)
        return {
            "map": mean_precision(logits, target),
            "micro_f1": float(f1_score(target.reshape(-1), predicted.reshape(-1), zero_division=0)),
            "exact_match": float((predicted == target).all(axis=1).mean()),
        }

    def ensemble(self, logits: list[np.ndarray]) -> np.ndarray:
        from scipy.special import expit, logit

        mean = np.mean([expit(z.astype(np.float64)) for z in logits], axis=0)
        return logit(np.clip(mean, 1e-12, 1 - 1e-12))

    def probe(
        self, train: np.ndarray, target: np.ndarray, others: list[np.ndarray], c: float, iterations: int
    ) -> list[np.ndarray]:
        """Log odds of a logistic regression of each label; a label that train has always or never is a constant."""
        from pipeline_src.tasks.probe import linear_probe

        columns: list[list[np.ndarray]] = [[] for _ in others]
        for label in range(self.classes):
            for column, scores in zip(
                columns, linear_probe(train, target[:, label].astype(int), others, 2, c, iterations), strict=True
            ):
                odds = np.clip(scores[:, 1], -1e3, None) - np.clip(scores[:, 0], -1e3, None)
                column.append(odds)
        return [np.stack(column, axis=1) for column in columns]


def mean_precision(scores: np.ndarray, target: np.ndarray) -> float:
    """Mean average precision of scores (N, C) over the labels that occur in the targets (N, C)."""
    from sklearn.metrics import average_precision_score

    present = [c for c in range(target.shape[1]) if target[:, c].any()]
    if not present:
        return 0.0
    return float(np.mean([average_precision_score(target[:, c], scores[:, c]) for c in present]))
