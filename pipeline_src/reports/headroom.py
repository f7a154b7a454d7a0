"""Does a method gain more where more can be gained? A test over the datasets of a grid.

    gain of a method    its test accuracy less that of BASELINE
    head-room           the test accuracy of the ensemble of the models trained alone less that of BASELINE

Both hold BASELINE's accuracy. Measured on the same seeds, a seed in which BASELINE happens to be bad makes both large,
and noise alone correlates them. So the seeds are cut into two halves: the gain of one half is compared with the
head-room of the other, and the other way round.

    rho     the mean of the two Spearman correlations over the datasets
    p       one-sided permutation test of rho: the fraction of all orders of the datasets, applied to the gains of both
            halves alike, that give this rho or more. It is exact for up to EXACT datasets and assumes nothing of how
            gains are distributed. With few datasets it cannot be small; the table says how small.

The halves share the test samples, and datasets that are neighbours on an axis resemble each other: the test speaks of
these datasets, and an association is no cause.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import stats

from pipeline_src.core.errors import listed
from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.reports.grids import GridResults
from pipeline_src.reports.scores import BASELINE
from pipeline_src.reports.statistics import holm
from pipeline_src.reports.tables import Entry, Table
from pipeline_src.reports.wording import MINUS, NONE, p_value, plural, words

EXACT = 9  # datasets, of which all 362,880 orders are tried
DRAWN = 99_999  # orders that are drawn for more
ROUNDING = 1e-9  # correlations that differ by less are equal


@dataclass(frozen=True)
class Association:
    """How the gain of a method goes with the head-room, over the datasets that have both. NaN where it is undefined."""

    fusion: str
    method: str
    datasets: int
    first: float = math.nan  # Spearman's correlation: gain on the first half of the seeds, head-room on the second
    second: float = math.nan  # the other way round
    p: float = math.nan
    p_holm: float = math.nan  # over all methods and fusions of the grid that have a p
    critical: float = math.nan  # the smallest rho that is significant after the correction where no other is; NaN: none

    @property
    def rho(self) -> float:
        return (self.first + self.second) / 2


def halves(seeds: list[int]) -> tuple[list[int], list[int]]:
    """The first and the second half of the seeds, in the study's order; the second has one more if they are odd."""
    return seeds[: len(seeds) // 2], seeds[len(seeds) // 2 :]


def associations(grid: GridResults) -> list[Association]:
    """One of each fusion and method, in the grid's order; empty for fewer than two seeds or without ensembles."""
    if len(grid.seeds) < 2 or not {"gains", "headroom"} <= grid.offers:
        return []
    found, means = [], []
    for fusion in grid.fusions:
        baseline, ensemble = grid.scores(BASELINE, fusion), grid.scores(ENSEMBLE, fusion)
        for method in grid.methods:
            gain, room = (grid.scores(method, fusion) - baseline), (ensemble - baseline)
            whole = (gain.notna() & room.notna()).all(axis=1)  # all seeds of a dataset, or none of them
            of = [
                [values[whole][half].mean(axis=1).to_numpy() for half in halves(grid.seeds)] for values in (gain, room)
            ]
            found.append(Association(fusion, method, int(whole.sum()), *association(*of)))
            means.append(of)
    corrected, tested = holm([one.p for one in found]), _tested(found)
    return [
        replace(
            one, p_holm=p, critical=math.nan if math.isnan(p) else critical(gain, room, (1 - grid.confidence) / tested)
        )
        for one, p, (gain, room) in zip(found, corrected, means, strict=True)
    ]


def _tested(found: list[Association]) -> int:
    """How many have a p, for which all are corrected."""
    return sum(not math.isnan(one.p) for one in found)


def association(gains: list[np.ndarray], rooms: list[np.ndarray]) -> tuple[float, float, float]:
    """(first, second, p) of an Association. `gains` and `rooms`: of the first and the second half of the seeds, (N,)
    over the datasets each.
    """
    if len(gains[0]) < 2:
        return math.nan, math.nan, math.nan
    gain, room = ([_ranks(values) for values in both] for both in (gains, rooms))
    first, second = float(gain[0] @ room[1]), float(gain[1] @ room[0])
    if math.isnan(first + second):
        return first, second, math.nan
    return first, second, float((_sums(gain, room) >= first + second - ROUNDING).mean())


def critical(gains: list[np.ndarray], rooms: list[np.ndarray], alpha: float) -> float:
    """The smallest rho whose p is below `alpha` for values in these two orders or ties; NaN if none is. Arguments as of
    `association`.
    """
    sums = np.sort(_sums(*([_ranks(values) for values in both] for both in (gains, rooms))))
    reached = len(sums) - np.searchsorted(sums, sums - ROUNDING)  # orders that give as much or more
    found = sums[reached / len(sums) < alpha]
    return float(found[0]) / 2 if len(found) else math.nan


def _sums(gain: list[np.ndarray], room: list[np.ndarray]) -> np.ndarray:
    """(P,) the sums of both correlations over the orders of the datasets; `gain` and `room` are ranks."""
    orders = _orders(len(gain[0]))
    return gain[0][orders] @ room[1] + gain[1][orders] @ room[0]


def least(datasets: int) -> float:
    """The smallest p that so many datasets can give."""
    return 1 / len(_orders(datasets)) if datasets else math.nan


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks (N,) with mean 0 and length 1, so that the product of two is Spearman's correlation; equal values share
    their mean rank. NaN where all values are equal.
    """
    ranks = stats.rankdata(np.round(values, 12))
    ranks = ranks - ranks.mean()
    length = float(np.linalg.norm(ranks))
    return ranks / length if length else np.full(len(ranks), math.nan)


@lru_cache(maxsize=4)
def _orders(n: int) -> np.ndarray:
    """(P, n) orders of n things: all, or for more than EXACT the given one and DRAWN random ones, always the same."""
    if n <= EXACT:
        return np.array(list(itertools.permutations(range(n))), dtype=np.int8)
    rng = np.random.default_rng(0)
    return np.vstack([np.arange(n), rng.permuted(np.tile(np.arange(n), (DRAWN, 1)), axis=1)])


def headline(found: list[Association], confidence: float) -> str:
    """The answer in a sentence."""
    if not found:
        return (
            "Whether gains grow with the head-room is not tested: that takes two seeds and each modality trained alone."
        )
    shown = [one for one in found if one.p_holm < 1 - confidence]
    if not shown:
        return f"No method's gain is shown to grow with the head-room. {_sensitivity(found)}".rstrip()
    several = len({one.fusion for one in found}) > 1
    each = [f"{one.method}{f' with {one.fusion}' if several else ''} ({_rho(one.rho)})" for one in shown]
    return f"The gain grows with the head-room for {listed(each, 6)}, by mean rank correlation."


def _sensitivity(found: list[Association]) -> str:
    """Which correlations would be significant, in a sentence; empty where nothing is tested."""
    sizes = [one.critical for one in found if not math.isnan(one.p)]
    if not sizes:
        return ""
    if all(map(math.isnan, sizes)):
        return "So few datasets cannot show it: no correlation would be significant."
    low, high = _rho(np.nanmin(sizes)), _rho(np.nanmax(sizes))
    span = low if low == high else f"{low} to {high}, by method,"
    return f"A mean rank correlation of {span} would be significant where no other is."


def table(grid: GridResults, found: list[Association]) -> Table:
    """Every association of a grid."""
    rows = [
        [
            *map(Entry, (one.fusion, one.method)),
            Entry(str(one.datasets)),
            Entry(_rho(one.first)),
            Entry(_rho(one.second)),
            Entry(_rho(one.rho), "", one.p_holm < 1 - grid.confidence),
            Entry(p_value(one.p)),
            Entry(p_value(one.p_holm)),
        ]
        for one in found
    ]
    first, second = halves(grid.seeds)
    smallest = max((least(one.datasets) for one in found), default=math.nan)
    caption = (
        f"Head-room: {grid.first.primary.metric.label} of the ensemble of the models trained alone {MINUS} {BASELINE}."
        " Correlations: Spearman's,"
        f" over the datasets. First half: gain over {BASELINE} on seeds {words(first)} with head-room on seeds"
        f" {words(second)}; second half: the reverse. On the same seeds, the noise of {BASELINE} alone would correlate"
        " gain and head-room. p: one-sided permutation test of the mean over the orders of the datasets; corrected: by"
        f" Holm's method over the {plural(_tested(found), 'comparison')} with a p. Bold: corrected p below"
        f" {1 - grid.confidence:.2g}. The smallest uncorrected p possible is {smallest:.2g}. {_sensitivity(found)}"
        " Both halves share the test samples, and neighbouring datasets resemble each other: the test speaks of these"
        " datasets only, and an association is no cause."
    )
    columns = ["fusion", "method", "datasets", "first half", "second half", "mean", "p, uncorrected", "p, corrected"]
    return Table(f"Does the gain grow with the head-room? {grid.name}", caption, columns, rows, 2)


def _rho(value: float) -> str:
    return NONE if math.isnan(value) else f"{value:+.2f}".replace("-", MINUS)
