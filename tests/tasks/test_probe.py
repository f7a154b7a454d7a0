"""The linear probe is an ordinary logistic regression on standardised features."""

import statistics

import numpy as np
import pytest

from pipeline_src.core.errors import UserError
from pipeline_src.tasks.probe import linear_probe

RNG = np.random.default_rng(0)


def blobs(count: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    label = RNG.integers(0, 3, count)
    return np.eye(3)[label] * 4 + RNG.normal(scale=spread, size=(count, 3)), label


def test_separable_features_are_separated_and_noise_is_not():
    (x, y), (test_x, test_y) = blobs(300, 0.3), blobs(200, 0.3)
    (scores,) = linear_probe(x, y, [test_x], 3, 1.0, 500)
    assert (scores.argmax(1) == test_y).mean() > 0.98
    noise = RNG.normal(size=(300, 3)), RNG.normal(size=(2000, 3))
    (scores,) = linear_probe(noise[0], y, [noise[1]], 3, 1.0, 500)
    accuracy = (scores.argmax(1) == RNG.integers(0, 3, 2000)).mean()
    assert abs(accuracy - 1 / 3) < 0.06


def test_the_scale_of_a_feature_does_not_matter():
    (x, y), (test_x, _) = blobs(200, 1.5), blobs(100, 1.5)
    scale, shift = np.array([1e3, 1.0, 1e-3]), np.array([5.0, -1e2, 0.0])
    plain, scaled = (
        linear_probe(a, y, [b], 3, 1.0, 2000)[0] for a, b in ((x, test_x), (x * scale + shift, test_x * scale + shift))
    )
    assert np.allclose(plain, scaled, atol=1e-2)


def test_a_class_without_a_training_clip_is_never_predicted():
    (x, y), (test_x, _) = blobs(200, 0.5), blobs(50, 0.5)
    (scores,) = linear_probe(x[y != 1], y[y != 1], [test_x], 3, 1.0, 500)
    assert np.isneginf(scores[:, 1]).all()
    assert set(scores.argmax(1)) == {0, 2}


def test_one_class_alone_and_a_constant_modality_give_a_defined_result():
    (scores,) = linear_probe(np.ones((5, 2)), np.full(5, 2), [np.ones((3, 2))], 4, 1.0, 10)
    assert scores.argmax(1).tolist() == [2, 2, 2]
    label = np.array([0] * 7 + [1] * 3)
    (scores,) = linear_probe(np.ones((10, 2)), label, [np.ones((4, 2))], 2, 1.0, 100)
    assert statistics.mean(np.exp(scores[:, 1])) < 0.5


def test_a_fit_that_does_not_converge_names_the_parameter():
    x, y = blobs(200, 3.0)
    with pytest.raises(UserError, match=r"^evaluation\.probe_iterations: expected .* converge within 2 steps, but got"):
        linear_probe(x, y, [x], 3, 1000.0, 2)
