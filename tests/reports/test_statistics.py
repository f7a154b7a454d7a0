import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from pipeline_src.reports.statistics import holm, over_clips, paired, simultaneous, summary


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
    assert found.ci_low > 0


@pytest.mark.parametrize("values", [[], [0.9]])
def test_too_few_for_an_interval(values):
    found = summary(values, 0.95)
    assert found.n == len(values)
    assert math.isnan(found.mean) == (not values)
    assert all(math.isnan(x) for x in (found.sd, found.ci_low, found.ci_high))


def test_equal_values_have_an_interval_of_no_width():
    found = summary([0.5, 0.5, 0.5], 0.95)
    assert (found.sd, found.ci_low, found.ci_high) == (0, 0.5, 0.5)


def test_nan_spreads():
    assert all(math.isnan(x) for x in vars(summary([0.5, math.nan, 0.7], 0.95)).values() if x != 3)


def test_lengths_differ():
    with pytest.raises(ValueError, match="but got 2 for 3"):
        paired([1, 2, 3], [1, 2], 0.95)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_p_and_effect_size_as_scipy_and_by_definition(n):
    rng = np.random.default_rng(n)
    values, baseline = rng.normal(0.8, 0.02, n), rng.normal(0.79, 0.02, n)
    found = paired(values, baseline, 0.95)
    assert found.p == pytest.approx(stats.ttest_rel(values, baseline).pvalue)
    gaps = values - baseline
    assert found.d_z == pytest.approx(gaps.mean() / gaps.std(ddof=1))
    if n > 2:
        assert 0 < found.g_z / found.d_z < 1
        assert found.g_z / found.d_z == pytest.approx(1 - 3 / (4 * (n - 1) - 1), abs=0.01)  # Hedges' approximation
    else:
        assert math.isnan(found.g_z)


def test_p_agrees_with_the_interval():
    for shift in (0.0, 0.005, 0.01, 0.02, 0.04):
        found = paired(np.array([0.80, 0.81, 0.79]) + shift, np.array([0.80, 0.80, 0.80]), 0.95)
        assert (found.p < 0.05) == (found.ci_low > 0)


def test_equal_differences():
    assert math.isnan(paired([0.75, 1.0], [0.5, 0.75], 0.95).p)
    same = paired([0.5, 0.5], [0.5, 0.5], 0.95)
    assert same.p == 1
    assert math.isnan(same.d_z)


def test_one_pair_has_no_p():
    found = paired([0.9], [0.8], 0.95)
    assert found.mean == pytest.approx(0.1)
    assert all(math.isnan(x) for x in (found.p, found.d_z, found.g_z))


@pytest.mark.parametrize("seed", range(5))
def test_holm_as_statsmodels(seed):
    p = np.random.default_rng(seed).beta(0.3, 3, 12)
    p[3] = p[7]
    rejected, adjusted, *_ = multipletests(p, alpha=0.05, method="holm")
    assert holm(p) == pytest.approx(adjusted)
    assert [value < 0.05 for value in holm(p)] == rejected.tolist()


def test_holm_by_hand_and_without_what_was_not_tested():
    assert holm([0.01, math.nan, 0.04, 0.03]) == pytest.approx([0.03, math.nan, 0.06, 0.06], nan_ok=True)
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


def test_simultaneous_intervals():
    one = paired([0.80, 0.82, 0.85], [0.79, 0.80, 0.80], 0.95)
    assert simultaneous(one, 1, 0.95) == pytest.approx((one.ci_low, one.ci_high))
    low, high = simultaneous(one, 12, 0.95)
    assert (low + high) / 2 == pytest.approx(one.mean)
    expected = stats.t.interval(1 - 0.05 / 12, 2, one.mean, one.sd / math.sqrt(3))
    assert (low, high) == pytest.approx(expected)
    assert all(math.isnan(x) for x in simultaneous(paired([1], [0], 0.95), 3, 0.95))


def test_over_clips_as_scipy():
    rng = np.random.default_rng(0)
    right, baseline = rng.integers(0, 4, 500) / 3, rng.integers(0, 4, 500) / 3
    gaps = right - baseline
    assert over_clips(right, baseline, 0.9) == pytest.approx(stats.norm.interval(0.9, gaps.mean(), stats.sem(gaps)))
    assert all(math.isnan(x) for x in over_clips(np.ones(1), np.ones(1), 0.9))
