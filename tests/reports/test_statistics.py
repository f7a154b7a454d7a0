import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from pipeline_src.reports.statistics import (
    FRACTION,
    corrected,
    detectable,
    holm,
    over_clips,
    paired,
    seeds_needed,
    summary,
    t_test,
)

STEP = 1 / 510  # of accuracies on 510 test samples


def test_hand_worked():
    # mean 3, squares 4 + 1 + 0 + 1 + 4 = 10, sd = sqrt(10 / 4); t(0.975, 4) = 2.776
    found = summary([1, 2, 3, 4, 5], 0.95)
    assert (found.n, found.mean) == (5, 3)
    assert found.sd == pytest.approx(1.5811388)
    half = 2.7764451 * 1.5811388 / math.sqrt(5)
    assert (found.ci_low, found.ci_high) == pytest.approx((3 - half, 3 + half), rel=1e-6)


@pytest.mark.parametrize("n", [3, 4, 10])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_as_scipy(n, confidence):
    rng = np.random.default_rng(n)
    values, baseline = rng.normal(0.8, 0.02, n), rng.normal(0.7, 0.02, n)
    found = summary(values, confidence)
    expected = stats.t.interval(confidence, n - 1, values.mean(), stats.sem(values))
    assert (found.ci_low, found.ci_high) == pytest.approx(expected)
    (found,) = corrected([paired(values, baseline)], confidence)
    expected = stats.ttest_rel(values, baseline)
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(expected.confidence_interval(confidence)))
    assert found.p == found.p_corrected == pytest.approx(expected.pvalue)
    assert found.mean == pytest.approx(values.mean() - baseline.mean())


def test_pairing_cancels_what_seeds_share():
    baseline = np.array([0.5, 0.7, 0.9])
    (found,) = corrected([paired(baseline + np.array([0.02, 0.03, 0.04]), baseline)], 0.95)
    assert found.mean == pytest.approx(0.03)
    assert found.sd == pytest.approx(0.01)
    assert found.ci_low > 0


@pytest.mark.parametrize("values", [[], [0.9], [0.9, 0.8]])
def test_too_few_for_an_interval(values):
    for found in (summary(values, 0.95, STEP), corrected([paired(values, [0.7] * len(values), STEP)], 0.95)[0]):
        assert found.n == len(values)
        assert math.isnan(found.mean) == (not values)
        assert math.isnan(found.sd) == (len(values) < 2)
        assert all(math.isnan(x) for x in (found.ci_low, found.ci_high))
    assert all(math.isnan(x) for x in (found.p, found.d_z, found.p_corrected, found.detectable))
    assert found.family == 0


def test_equal_values_have_the_interval_of_their_rounding():
    found = summary([0.5, 0.5, 0.5], 0.95)
    assert (found.sd, found.ci_low, found.ci_high) == (0, 0.5, 0.5)
    # the largest sd of an error between -0.05 and 0.05 is 0.05; t(0.975, 2) = 4.3027, times 0.05 / sqrt(3): 0.12421
    found = summary([0.5, 0.5, 0.5], 0.95, step=0.1)
    assert found.sd == 0
    assert (found.ci_low, found.ci_high) == pytest.approx((0.5 - 0.12421, 0.5 + 0.12421), abs=1e-5)


def test_an_interval_is_cut_at_its_limits():
    found = summary([0.99, 0.95, 1.0], 0.95, limits=FRACTION)
    free = summary([0.99, 0.95, 1.0], 0.95)
    assert (found.ci_low, found.ci_high) == (free.ci_low, 1.0)
    assert free.ci_high > 1
    (gap,) = corrected([paired([1.0, 0.9, 1.0], [0.0, 0.2, 0.0])], 0.95)
    assert gap.ci_high == 1.0 and gap.ci_low > 0


def test_nan_spreads():
    assert all(math.isnan(x) for x in vars(summary([0.5, math.nan, 0.7], 0.95)).values() if x != 3)
    (found,) = corrected([paired([0.5, math.nan, 0.7], [0.5, 0.5, 0.5], STEP)], 0.95)
    assert math.isnan(found.p) and found.family == 0


def test_lengths_differ():
    with pytest.raises(ValueError, match="but got 2 for 3"):
        paired([1, 2, 3], [1, 2])


@pytest.mark.parametrize("n", [3, 5, 10])
def test_p_and_effect_size_as_scipy_and_by_definition(n):
    rng = np.random.default_rng(n)
    values, baseline = rng.normal(0.8, 0.02, n), rng.normal(0.79, 0.02, n)
    found = paired(values, baseline)
    assert found.p == pytest.approx(stats.ttest_rel(values, baseline).pvalue)
    gaps = values - baseline
    assert found.d_z == pytest.approx(gaps.mean() / gaps.std(ddof=1))
    assert 0 < found.g_z / found.d_z < 1
    assert found.g_z / found.d_z == pytest.approx(1 - 3 / (4 * (n - 1) - 1), abs=0.01)  # Hedges' approximation


def test_a_difference_that_is_equal_in_every_seed_is_a_finding():
    """opm_ogm lost 10 of 510 clips in each of three seeds: 10 steps, and rounding has the sd step / sqrt(2)."""
    found = paired([0.80, 0.81, 0.79], np.array([0.80, 0.81, 0.79]) + 10 * STEP, STEP)
    assert found.mean == pytest.approx(-10 * STEP)
    t = 10 * math.sqrt(2) * math.sqrt(3)  # 24.5
    assert found.p == pytest.approx(2 * stats.t.sf(t, 2)) == pytest.approx(0.0016625, rel=1e-4)
    (one,) = corrected([found], 0.95)
    half = 4.3026527 * STEP / math.sqrt(2) / math.sqrt(3)
    assert (one.ci_low, one.ci_high) == pytest.approx((-10 * STEP - half, -10 * STEP + half))
    assert one.ci_high < 0
    eighth = corrected([found] * 8, 0.95)[0]
    assert eighth.p_corrected == pytest.approx(8 * found.p) and eighth.ci_high < 0
    (single,) = corrected([paired([0.80, 0.81, 0.79], np.array([0.80, 0.81, 0.79]) + STEP, STEP)], 0.95)
    assert single.p_corrected > 0.05, "one sample in each seed may be rounding"


def test_differences_of_0():
    same = paired([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], STEP)
    assert (same.mean, same.p, same.d_z) == (0, 1, 0)
    assert paired([0.5] * 3, [0.5] * 3).p == 1, "with values that are not rounded, too"
    assert math.isnan(paired([0.75] * 3, [0.5] * 3).p), "without rounding, nothing is known of their spread"


def test_rounding_is_only_a_floor():
    values, baseline = [0.80, 0.85, 0.79, 0.82], [0.80, 0.80, 0.80, 0.80]
    assert paired(values, baseline, STEP) == paired(values, baseline)


def test_many_at_once_are_each_for_itself():
    rng = np.random.default_rng(0)
    gaps = np.round(rng.normal(0.01, 0.01, (7, 5, 4)) / STEP) * STEP
    gaps[0, 0] = 3 * STEP
    spread, p = t_test(gaps, STEP)
    for i in np.ndindex(7, 5):
        one = paired(gaps[i], np.zeros(4), STEP)
        assert (one.spread, one.p) == pytest.approx((spread[i], p[i]))


@pytest.mark.parametrize("seed", range(5))
def test_correction_as_statsmodels_and_interval_as_test(seed):
    rng = np.random.default_rng(seed)
    each = [paired(rng.normal(0.02 * (i % 3), 0.01, 6), np.zeros(6)) for i in range(8)]
    found = corrected(each, 0.95)
    rejected, adjusted, *_ = multipletests([one.p for one in each], alpha=0.05, method="bonferroni")
    assert [one.p_corrected for one in found] == pytest.approx(adjusted)
    assert [one.ci_low > 0 or one.ci_high < 0 for one in found] == rejected.tolist()
    assert 0 < rejected.sum() < 8
    for one in found:
        assert (one.ci_low + one.ci_high) / 2 == pytest.approx(one.mean)
        expected = stats.t.interval(1 - 0.05 / 8, 5, one.mean, one.sd / math.sqrt(6))
        assert (one.ci_low, one.ci_high) == pytest.approx(expected)


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


def test_what_is_not_tested_is_not_corrected_for():
    tested = paired([0.80, 0.82, 0.85], [0.79, 0.80, 0.80])
    few = paired([0.80, 0.82], [0.79, 0.80])
    found = corrected([tested, few, tested], 0.95)
    assert [one.family for one in found] == [2, 0, 2]
    assert found[0].p_corrected == pytest.approx(2 * tested.p)
    assert found[1] is few
    assert corrected([], 0.95) == []


@pytest.mark.parametrize(("n", "alpha"), [(3, 0.05), (8, 0.05 / 8), (10, 0.01), (200, 0.05)])
def test_detectable_as_statsmodels(n, alpha):
    expected = TTestPower().solve_power(None, n, alpha, 0.8)
    assert detectable(0.012, n, alpha) == pytest.approx(0.012 * expected, rel=1e-5)


def test_detectable_where_scipy_has_no_noncentral_t():
    # P(Z + x > c S), S^2 exponential with mean 1 for 2 degrees of freedom, by simulation
    alpha, rng = 0.05 / 48, np.random.default_rng(0)
    bound = stats.t.isf(alpha / 2, 2) * np.sqrt(rng.exponential(1, 400_000))
    found = np.mean(rng.normal(detectable(1, 3, alpha) * math.sqrt(3), 1, 400_000) > bound)
    assert found == pytest.approx(0.8, abs=0.003)


@pytest.mark.parametrize("spread", [0.003, 0.0113, 0.05, 0.3])
def test_the_number_of_seeds_is_the_smallest_that_suffices(spread):
    n = seeds_needed(spread, 0.05 / 8)
    assert detectable(spread, n, 0.05 / 8) <= 0.01
    assert n == 3 or detectable(spread, n - 1, 0.05 / 8) > 0.01
    assert seeds_needed(0.0, 0.05) == 3


def test_over_clips_as_scipy():
    rng = np.random.default_rng(0)
    right, baseline = rng.integers(0, 4, 500) / 3, rng.integers(0, 4, 500) / 3
    gaps = right - baseline
    assert over_clips(right, baseline, 0.9) == pytest.approx(stats.norm.interval(0.9, gaps.mean(), stats.sem(gaps)))
    assert all(math.isnan(x) for x in over_clips(np.ones(1), np.ones(1), 0.9))
