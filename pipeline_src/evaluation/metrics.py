"""Metrics of one set of predictions: logits (N, C) against labels (N,), as NumPy arrays."""

import itertools
import math
from collections.abc import Callable

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.metrics import accuracy_score, average_precision_score, f1_score


def classification(logits: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """accuracy; macro_f1, the mean over the classes that occur; map, the mean of their average precisions."""
    present = np.unique(label)
    predicted = logits.argmax(1)
    scores = softmax(logits, axis=1)
    precision = [average_precision_score(label == c, scores[:, c]) for c in present]
    return {
        "accuracy": float(accuracy_score(label, predicted)),
        "macro_f1": float(f1_score(label, predicted, labels=present, average="macro", zero_division=0)),
        "map": float(np.mean(precision)),
    }


def calibration(logits: np.ndarray, label: np.ndarray, bins: int = 15) -> dict[str, float]:
    """nll, the mean negative log likelihood; ece, the expected calibration error (Guo et al., ICML 2017, Eq. 3)."""
    scores = softmax(logits, axis=1)
    confidence, right = scores.max(1), scores.argmax(1) == label
    where = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(where, confidence, bins) - np.bincount(where, right, bins)
    nll = -log_softmax(logits, axis=1)[np.arange(len(label)), label].mean()
    return {"nll": float(nll), "ece": float(np.abs(gaps).sum() / len(label))}


def contributions(modalities: list[str], value: Callable[[tuple[str, ...]], float]) -> dict[str, float]:
    """Shapley value of each modality: how much it adds to `value` (of a subset), averaged over all orders of joining.

    The values add up to value(all) - value(none).
    """
    m = len(modalities)
    worth = {s: value(s) for n in range(m + 1) for s in itertools.combinations(modalities, n)}
    shares = {}
    for one in modalities:
        others = [other for other in modalities if other != one]
        total = 0.0
        for n in range(m):
            weight = math.factorial(n) * math.factorial(m - n - 1) / math.factorial(m)
            for subset in itertools.combinations(others, n):
                joined = tuple(x for x in modalities if x in subset or x == one)
                total += weight * (worth[joined] - worth[subset])
        shares[one] = total
    return shares
