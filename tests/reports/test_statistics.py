import math

import numpy as np
import pytest
from scipy import stats

from pipeline_src.reports.statistics import Summary, paired, summary


def test_hand_worked():
    # mean 3, squares 4 + 1 + 0 + 1 + 4 = 10, sd = sqrt(10 / 4); t(0.975, 4) = 2.776
    found = summary([1, 2, 3, 4, 5], 0.95)
    assert (found.n, found.mean) == (5, 3)
    assert found.sd == pytest.approx(1.5811388)
    half = 2.7764451 * 1.5811388 / math.sqrt(5)
    assert (found.ci_low, found.ci_high) == pytest.approx((3 - half, 3 + half), rel=1e-6)


@pytest.mark.parametrize("n", [2, 3, 10])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_as_scipy(n, confidence):
    rng = np.random.default_rng(n)
    values, baseline = rng.normal(0.8, 0.02, n), rng.normal(0.7, 0.02, n)
    found = summary(values, confidence)
    expected = stats.t.interval(confidence, n - 1, values.mean(), stats.sem(values))
    assert (found.ci_low, found.ci_high) == pytest.approx(expected)
    found = paired(values, baseline, confidence)
    expected = stats.ttest_rel(values, baseline).confidence_interval(confidence)
    assert (found.ci_low, found.ci_high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(values.mean() - baseline.mean())


def test_pairing_cancels_what_seeds_share():
    baseline = np.array([0.5, 0.7, 0.9])
    found = paired(baseline + np.array([0.02, 0.03, 0.04]), baseline, 0.95)
    assert found.mean == pytest.approx(0.03)
    assert found.sd == pytest.approx(0.01)
    assert found.excludes_zero


@pytest.mark.parametrize("values", [[], [0.9]])
def test_too_few_for_an_interval(values):
    found = summary(values, 0.95)
    assert found.n == len(values)
    assert math.isnan(found.mean) == (not values)
    assert all(math.isnan(x) for x in (found.sd, found.ci_low, found.ci_high))
    assert not found.excludes_zero


def test_equal_values_have_an_interval_of_no_width():
    found = summary([0.5, 0.5, 0.5], 0.95)
    assert (found.sd, found.ci_low, found.ci_high) == (0, 0.5, 0.5)
    assert not paired([0.5, 0.5], [0.5, 0.5], 0.95).excludes_zero


def test_nan_spreads():
    assert all(math.isnan(x) for x in vars(summary([0.5, math.nan, 0.7], 0.95)).values() if x != 3)


def test_lengths_differ():
    with pytest.raises(ValueError, match="found 2 for 3"):
        paired([1, 2, 3], [1, 2], 0.95)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0.0, 0.1, False)]
)
def test_excludes_zero(low, high, expected):
    assert Summary(3, ci_low=low, ci_high=high).excludes_zero is expected
