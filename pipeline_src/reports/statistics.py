"""Statistics over seeds: intervals of scores, and many comparisons with one baseline that are paired by seed.

A comparison is a paired t test: the differences of the seeds that both have, and their own standard deviation. The
comparisons of a family are corrected by Bonferroni's method: p times their number, and intervals of the confidence
1 - alpha / number. So an interval excludes 0 exactly where the corrected p is below alpha, all intervals of a family
hold at once with the confidence 1 - alpha, and the smallest detectable difference is that of this very test.

docs/statistics.md has the simulation that the choice rests on. Dunnett's test on a model of seeds and methods
(Dunnett, 1955) pools the variances of the methods; where these differ, it finds differences that do not exist in 10 to
30 of 100 studies instead of 5. Holm's step-down method keeps the error rate and finds the same as Bonferroni's if one
method differs, and 5 points more with 8 seeds if several do, but it has no intervals that agree with its verdicts. Sign
flips cannot reach p < 0.05 with fewer than 6 seeds.

All of this speaks of what varies with the seed. For the choice of test samples, see `over_clips`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import optimize, special, stats

FEWEST = 3  # seeds that a test or an interval needs: with two, Student's t has one degree of freedom
POWER = 0.8  # the probability with which a detectable difference is found
POINT = 0.01  # the difference, of fractions of 1 one point, whose number of seeds is told
EQUAL = 1e-9  # differences of accuracies that differ by less are equal, but for floating point
FRACTION = (0.0, 1.0)  # limits of an accuracy
FREE = (-math.inf, math.inf)


@dataclass(frozen=True)
class Summary:
    """n values in their own unit. NaN where n is too small: `mean` needs one value, `sd` two, the interval FEWEST."""

    n: int
    mean: float = math.nan
    sd: float = math.nan  # of the sample: divided by n - 1
    ci_low: float = math.nan
    ci_high: float = math.nan


@dataclass(frozen=True)
class Difference(Summary):
    """A Summary of differences paired by seed, and the test whether their mean is 0. NaN for fewer than FEWEST.

    `paired` fills in the fields up to `g_z`, `corrected` the interval and the others.
    """

    spread: float = math.nan  # `sd`, or that of rounding where it is larger: p and interval rest on it
    p: float = math.nan  # two-sided, of the paired t test, of this comparison alone
    d_z: float = math.nan  # Cohen's: mean over spread
    g_z: float = math.nan  # the same, less its bias in small samples (Hedges)
    family: int = 0  # the number of comparisons that are corrected for
    p_corrected: float = math.nan
    detectable: float = math.nan  # the smallest true difference that is found with POWER, for this spread and n
    seeds_needed: float = math.nan  # the number of seeds with which POINT is detectable, for this spread


def summary(
    values: Sequence[float], confidence: float, step: float = 0.0, limits: tuple[float, float] = FREE
) -> Summary:
    """Mean, standard deviation and t interval for the mean of `values` (n,), one value per seed.

    `confidence` is the level of the interval, between 0 and 1. The values are multiples of `step` (an accuracy on N
    samples: 1 / N; 0 if they are not rounded), so the interval takes their standard deviation for no smaller than
    step / 2, the largest that an error within half a step can have. It is cut at `limits`, between which the mean lies
    for sure: this takes nothing from its confidence. A value that is NaN makes everything NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if n == 0:
        return Summary(0)
    mean = float(values.mean())
    if n == 1:
        return Summary(1, mean)
    sd = float(values.std(ddof=1))
    if n < FEWEST or math.isnan(sd):
        return Summary(n, mean, sd)
    low, high = _interval(mean, max(sd, step / 2), n, 1 - confidence)
    return Summary(n, mean, sd, max(low, limits[0]), min(high, limits[1]))


def paired(values: Sequence[float], baseline: Sequence[float], step: float = 0.0) -> Difference:
    """Difference of `values` - `baseline`, both (n,) and in the same order of seeds, before its correction.

    The same seed means the same initial weights and batches, so what they share cancels out. `step` as in `summary`.
    Where all differences are 0, p is 1. Where they are equal but not 0, the test takes the standard deviation of
    rounding; p is NaN if `step` is 0. Raises ValueError if the lengths differ.
    """
    if len(values) != len(baseline):
        raise ValueError(f"expected one baseline value per value, but got {len(baseline)} for {len(values)}")
    differences = np.asarray(values, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    n = len(differences)
    mean = float(differences.mean()) if n else math.nan
    if n < 2:
        return Difference(n, mean)
    sd = float(differences.std(ddof=1))
    if n < FEWEST or math.isnan(sd):
        return Difference(n, mean, sd)
    spread, p = (float(each) for each in t_test(differences, step))
    d_z = mean / spread if spread > EQUAL else math.nan
    return Difference(n, mean, sd, spread=spread, p=p, d_z=d_z, g_z=hedges(n - 1) * d_z)


def t_test(differences: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Of differences (..., n) of values that are multiples of `step`: their spread (...,), and the two-sided p (...,)
    of the t test that their mean is 0.

    Each of the two values of a difference is rounded, with an error whose standard deviation is step / 2 at most, so
    the spread is taken for no smaller than step / sqrt(2). This can only make the test more careful. (With the
    step / sqrt(6) of errors that are uniform, the simulation's error rate was 5.7 % where the true spread is a sample.)
    """
    n, mean = differences.shape[-1], differences.mean(-1)
    spread = np.maximum(differences.std(-1, ddof=1), step / math.sqrt(2))
    some = spread > EQUAL
    t = np.abs(mean) * math.sqrt(n) / np.where(some, spread, 1.0)
    return spread, np.where(some, 2 * stats.t.sf(t, n - 1), np.where(np.abs(mean) < EQUAL, 1.0, math.nan))


def hedges(df: int) -> float:
    """Hedges' exact factor J(df), which takes the bias of a standardised mean away (1981, Eq. 6e)."""
    return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2) if df > 1 else math.nan


def corrected(
    family: Sequence[Difference], confidence: float, largest: float = 1.0, comparisons: int | None = None
) -> list[Difference]:
    """The differences of one family with what the number of comparisons makes of them, in the same order. No difference
    is larger than `largest`, 1 for fractions; intervals are cut there. `comparisons`: of the whole family, where these
    are some of it.

    Those without a p are no members: they do not count and stay as they are. Bonferroni's inequality holds whatever
    the dependence between the tests and whatever their variances.
    """
    count = comparisons or sum(not math.isnan(one.p) for one in family)
    return [one if math.isnan(one.p) else _corrected(one, count, 1 - confidence, largest) for one in family]


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order of `p`; NaN stays NaN and is no member of the family.

    For tests that have no intervals. Rejecting where the adjusted value is below alpha keeps the chance of one false
    rejection or more in the whole family below alpha, whatever the dependence between the tests (Holm, 1979).
    """
    known = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    adjusted, highest = [math.nan] * len(p), 0.0
    for rank, (value, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        adjusted[i] = highest
    return adjusted


def _corrected(one: Difference, count: int, alpha: float, largest: float) -> Difference:
    low, high = _interval(one.mean, one.spread, one.n, alpha / count)
    return replace(
        one,
        ci_low=max(low, -largest),
        ci_high=min(high, largest),
        family=count,
        p_corrected=min(1.0, count * one.p),
        detectable=detectable(one.spread, one.n, alpha / count),
        seeds_needed=seeds_needed(one.spread, alpha / count),
    )


def _interval(mean: float, spread: float, n: int, alpha: float) -> tuple[float, float]:
    # Not scipy.stats.t.interval: it gives NaN where the spread is 0, and the interval there is the value.
    half = float(stats.t.isf(alpha / 2, n - 1)) * spread / math.sqrt(n)
    return mean - half, mean + half


def detectable(spread: float, n: int, alpha: float, power: float = POWER) -> float:
    """The smallest true difference that the two-sided paired t test at level `alpha` finds with probability `power`,
    for n seeds whose differences have the standard deviation `spread`, in its unit (Cohen, 1988, chapter 2).
    """
    return _effect(n, alpha, power) * spread


def seeds_needed(spread: float, alpha: float, difference: float = POINT, power: float = POWER) -> int:
    """The smallest number of seeds with which `difference` is detectable."""
    if spread < EQUAL:
        return FEWEST
    normal = (stats.norm.isf(alpha / 2) + stats.norm.ppf(power)) * spread / difference  # Student's t needs more
    n = max(FEWEST, math.floor(normal**2))
    while _effect(n, alpha, power) * spread > difference:
        n += 1
    return n


@lru_cache(maxsize=4096)
def _effect(n: int, alpha: float, power: float) -> float:
    """The detectable difference in standard deviations.

    With Z normal and S^2 the sample variance over the true one, power(x) = P(|Z + x| > critical S), x in standard
    errors: a noncentral t. The mean over S is taken at 4,000 quantiles, because scipy's noncentral t can give NaN here.
    """
    critical = float(stats.t.isf(alpha / 2, n - 1))
    bound = critical * np.sqrt(stats.chi2.ppf((np.arange(4000) + 0.5) / 4000, n - 1) / (n - 1))

    def lack(x: float) -> float:
        return float((special.ndtr(x - bound) + special.ndtr(-x - bound)).mean()) - power

    return float(optimize.brentq(lack, 0.0, 10 + 4 * critical)) / math.sqrt(n)


def over_clips(scores: np.ndarray, baseline: np.ndarray, confidence: float) -> tuple[float, float]:
    """Interval of the difference in a metric over the choice of test samples: normal, paired by sample.

    Both are (samples,): what each sample scores, such as the fraction of the seeds that had it right. Samples count as
    independent, so where they come in groups (a speaker, a writer) the interval is too narrow. NaN for fewer than two
    samples.
    """
    difference = np.asarray(scores, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    if len(difference) < 2:
        return math.nan, math.nan
    half = float(stats.norm.ppf((1 + confidence) / 2)) * difference.std(ddof=1) / math.sqrt(len(difference))
    return float(difference.mean() - half), float(difference.mean() + half)
