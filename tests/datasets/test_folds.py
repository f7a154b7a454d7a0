"""Folds: to the last sample those of scikit-learn, without its matrix of groups x classes."""

import tracemalloc
import warnings

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from pipeline_src.datasets import folds as module
from pipeline_src.datasets.folds import folds


def drawn(samples: int, classes: int, per_group: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and groups; the classes are unequally frequent, the groups unequally large."""
    rng = np.random.default_rng(seed)
    weight = rng.dirichlet(np.full(classes, 2.0))
    label = np.unique(rng.choice(classes, samples, p=weight), return_inverse=True)[1]
    return label, np.unique(rng.integers(max(2, samples // per_group), size=samples), return_inverse=True)[1]


@pytest.mark.parametrize("count", [2, 5, 9, 20])
@pytest.mark.parametrize(("samples", "classes", "per_group"), [(200, 1, 2), (200, 2, 1), (200, 7, 4), (300, 40, 3)])
def test_they_are_those_of_scikit_learn(samples, classes, per_group, count):
    for seed in range(2):
        label, group = drawn(samples, classes, per_group, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes with fewer samples than folds
            theirs = [
                part
                for _, part in StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(label, label, group)
            ]
        ours = folds(label, group, count, seed)
        for fold, part in enumerate(theirs):
            assert np.flatnonzero(ours == fold).tolist() == part.tolist()


def test_memory_does_not_grow_with_groups_times_classes(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 1 << 16)
    samples, classes = 4_000, 2_000
    label, group = np.arange(samples) % classes, np.arange(samples)
    tracemalloc.start()
    folds(label, group, 2, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < samples * classes * 8 / 10, f"{peak / 1e6:.0f} MB; the whole matrix is {samples * classes * 8e-6:.0f}"
