"""Statistics over seeds: Student t intervals of values, and of differences paired by seed the paired t test, corrected
for the number of comparisons by Holm's method, with effect sizes.

They speak of the randomness of training (initial weights, order of batches, augmentation) on one test set; of the
choice of test clips speaks `over_clips` alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

EQUAL = 1e-9  # differences of accuracies that differ by less are equal, but for floating point


@dataclass(frozen=True)
class Summary:
    """What n values say, in their own unit. NaN where n is too small: `mean` needs one value, all else needs two."""

    n: int
    mean: float = math.nan
    sd: float = math.nan  # of the sample: divided by n - 1
    ci_low: float = math.nan
    ci_high: float = math.nan


@dataclass(frozen=True)
class Difference(Summary):
    """A Summary of differences paired by seed, and what they say against there being none. NaN for fewer than two."""

    p: float = math.nan  # two-sided, of the paired t test, of this comparison alone
    d_z: float = math.nan  # Cohen's: mean over standard deviation of the differences
    g_z: float = math.nan  # the same, less its bias in small samples (Hedges)


def summary(values: Sequence[float], confidence: float) -> Summary:
    """Mean, standard deviation and t interval for the mean of `values` (n,), one value per seed.

    `confidence` is the level of the interval, between 0 and 1. A value that is NaN makes everything NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if n == 0:
        return Summary(0)
    mean = float(values.mean())
    if n == 1:
        return Summary(1, mean)
    sd = float(values.std(ddof=1))
    # Not scipy.stats.t.interval: it gives NaN where all values are equal, and the interval there is the value.
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def paired(values: Sequence[float], baseline: Sequence[float], confidence: float) -> Difference:
    """Difference of `values` - `baseline`, both (n,) and in the same order of seeds.

    The same seed means the same initial weights and batches, so what they share cancels out. Interval and p are those
    of the paired t test. Where all differences are equal there is no effect size, and p is 1 if they are 0, else NaN:
    accuracies are shares of few clips, so that a spread of 0 says more of the rounding than of the method.
    Raises ValueError if the lengths differ.
    """
    if len(values) != len(baseline):
        raise ValueError(f"expected one baseline value per value, but got {len(baseline)} for {len(values)}")
    one = summary(np.asarray(values, dtype=np.float64) - np.asarray(baseline, dtype=np.float64), confidence)
    if one.n < 2 or math.isnan(one.sd):
        return Difference(**vars(one))
    if one.sd < EQUAL:
        return Difference(**vars(one), p=1.0 if abs(one.mean) < EQUAL else math.nan)
    d_z = one.mean / one.sd
    p = 2 * float(stats.t.sf(abs(d_z) * math.sqrt(one.n), one.n - 1))
    return Difference(**vars(one), p=p, d_z=d_z, g_z=hedges(one.n - 1) * d_z)


def hedges(df: int) -> float:
    """Hedges' exact factor J(df), which takes the bias of a standardised mean away (1981, Eq. 6e)."""
    return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2) if df > 1 else math.nan


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order of `p`; NaN stays NaN and is no member of the family.

    Rejecting where the adjusted value is below alpha keeps the chance of one false rejection or more in the whole
    family below alpha, whatever the dependence between the tests (Holm, 1979).
    """
    known = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    adjusted, highest = [math.nan] * len(p), 0.0
    for rank, (value, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        adjusted[i] = highest
    return adjusted


def simultaneous(one: Summary, comparisons: int, confidence: float) -> tuple[float, float]:
    """Bonferroni's interval: with `comparisons` such intervals, all hold at once at the given level. NaN as `one`."""
    if one.n < 2 or math.isnan(one.sd):
        return math.nan, math.nan
    level = 1 - (1 - confidence) / max(comparisons, 1)
    half = float(stats.t.ppf((1 + level) / 2, one.n - 1)) * one.sd / math.sqrt(one.n)
    return one.mean - half, one.mean + half


def over_clips(right: np.ndarray, baseline: np.ndarray, confidence: float) -> tuple[float, float]:
    """Interval of the difference in accuracy over the choice of test clips: normal, paired by clip.

    Both are (clips,): the share of the seeds that had the clip right. Clips count as independent, so where they come in
    groups (a speaker, a writer) the interval is too narrow. NaN for fewer than two clips.
    """
    difference = np.asarray(right, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    if len(difference) < 2:
        return math.nan, math.nan
    half = float(stats.norm.ppf((1 + confidence) / 2)) * difference.std(ddof=1) / math.sqrt(len(difference))
    return float(difference.mean() - half), float(difference.mean() + half)
