"""t-SNE repeats, keeps neighbours together, and has a place for whatever features there are."""

import numpy as np
import pytest

from pipeline_src.evaluation.neighbours import neighbours


def clusters(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    label = np.arange(count) % 3
    return rng.normal(size=(count, 8)) + 20 * np.eye(3, 8)[label], label


def test_samples_of_a_cluster_stay_together_and_it_repeats():
    features, label = clusters()
    places = neighbours(features, 10.0)
    assert places.shape == (60, 2) and np.isfinite(places).all()
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1) + 1e9 * np.eye(60)
    assert (label[distances.argmin(1)] == label).all()
    assert np.array_equal(places, neighbours(features, 10.0))


def test_too_many_samples_are_thinned_out_evenly():
    features, _ = clusters()
    there = np.isfinite(neighbours(features, 5.0, most=20)).all(1)
    assert there.sum() == 20 and there[0] and there[-1]
    assert np.isnan(neighbours(features, 5.0, most=0)).all()


def test_segments_have_a_place_each():
    assert neighbours(clusters()[0].reshape(12, 5, 8), 10.0).shape == (12, 5, 2)


@pytest.mark.parametrize("features", [np.ones((9, 4)), np.arange(9.0)[:, None], np.zeros((1, 4)), np.eye(4)])
def test_few_constant_or_narrow_features(features):
    assert np.isfinite(neighbours(features, 30.0)).all()
