"""Statistics over seeds: mean, deviation and Student t intervals, of values and of differences paired by seed.

The intervals speak of the randomness of training (initial weights, order of batches, augmentation) on one test set;
they say nothing of the choice of test clips, and they are not corrected for the number of comparisons made.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Summary:
    """What n values say, in their own unit. NaN where n is too small: `mean` needs one value, all else needs two."""

    n: int
    mean: float = math.nan
    sd: float = math.nan  # of the sample: divided by n - 1
    ci_low: float = math.nan
    ci_high: float = math.nan

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval exists and 0 is not in it."""
        return self.ci_low > 0 or self.ci_high < 0


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


def paired(values: Sequence[float], baseline: Sequence[float], confidence: float) -> Summary:
    """Summary of `values` - `baseline`, both (n,) and in the same order of seeds.

    The same seed means the same initial weights and batches, so what they share cancels out. The interval is that of
    the paired t test. Raises ValueError if the lengths differ.
    """
    if len(values) != len(baseline):
        raise ValueError(f"expected one baseline value per value, found {len(baseline)} for {len(values)}")
    return summary(np.asarray(values, dtype=np.float64) - np.asarray(baseline, dtype=np.float64), confidence)
