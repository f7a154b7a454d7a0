"""Regression: a number per sample, trained with the absolute error. Target: (B,) float32; logits: (B, 1).

    loss        |z - y|                          the L1 loss of MulT (Tsai et al., ACL 2019) on CMU-MOSI
    confidence  exp(-|z - y|), of the truth      [extension], see `Task.confidence`

Sentiment runs from -3 to 3. Its usual metrics are the mean absolute error, Pearson's correlation, and the accuracy of
the sign: negative below 0, positive from 0, as the classes of CMU-MOSI are cut here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pipeline_src.tasks.base import Label, Metric, Target, Task, tasks

if TYPE_CHECKING:
    from torch import Tensor


@tasks.register("regression")
class Regression(Task):
    target = Target("float32")
    outputs = 1
    metrics = (
        Metric("mae", "MAE", "", "The mean absolute error.", higher=False),
        Metric("correlation", "correlation", "", "Pearson's correlation with the truth; 0 if either is constant."),
        Metric("sign_accuracy", "sign accuracy", "%", "The fraction of samples told right: below 0, or from 0."),
    )

    @classmethod
    def named(cls, label: Label) -> tuple[str, ...]:
        return ()

    @classmethod
    def stratum(cls, label: Label) -> str:
        return ""

    @classmethod
    def stored(cls, label: Label, number: Mapping[str, int]) -> float:
        assert isinstance(label, float)
        return label

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return (logits[:, 0].float() - target).abs()

    def score(self, logits: Tensor, target: Tensor) -> float:
        return float(self.loss(logits, target))

    def predicted(self, logits: np.ndarray) -> np.ndarray:
        return logits[:, 0].astype(np.float32)

    def by_sample(self, predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
        return np.abs(predicted.astype(float) - target)

    def evaluate(self, logits: np.ndarray, target: np.ndarray, whole: bool) -> dict[str, float]:
        value, truth = logits[:, 0].astype(float), target.astype(float)
        constant = np.ptp(value) == 0 or np.ptp(truth) == 0
        return {
            "mae": float(np.abs(value - truth).mean()),
            "correlation": 0.0 if constant else float(np.corrcoef(value, truth)[0, 1]),
            "sign_accuracy": float(((value >= 0) == (truth >= 0)).mean()),
        }

    def ensemble(self, logits: list[np.ndarray]) -> np.ndarray:
        return np.mean([z.astype(np.float64) for z in logits], axis=0)

    def probe(
        self, train: np.ndarray, target: np.ndarray, others: list[np.ndarray], c: float, iterations: int
    ) -> list[np.ndarray]:
        """Ridge regression on standardised features, with the penalty 1 / c; solved at once, without iterations."""
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits

        model = make_pipeline(StandardScaler(), Ridge(alpha=1 / c, solver="cholesky"))
        with threadpool_limits(1):
            model.fit(train.astype(np.float64), target.astype(np.float64))
        return [model.predict(x.astype(np.float64))[:, None] for x in others]
