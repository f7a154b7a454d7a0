"""How often a study finds differences that do not exist, and those that do: four procedures on simulated studies.

A simulated study has joint training and COMPARISONS others (seven methods and the ensemble) over some seeds. An
accuracy is 85 %, plus what the seed does to all of them alike, plus the effect of the method, plus noise of its own,
rounded to the nearest multiple of 1 / SAMPLES. `SPREADS` has the standard deviations of the noise, `EFFECTS` the
effects, both in points.

error    studies that call at least one difference of 0 significant (the family-wise error)
power    differences that exist and are called significant, with the right sign

docs/results/statistics.csv holds the results of all repetitions, docs/statistics.md its tables.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from pipeline_src.reports.statistics import t_test

RESULT = Path("docs/results/statistics.csv")
COMPARISONS, SAMPLES, LEVEL = 8, 510, 0.05
SEEDS = (3, 4, 5, 6, 8, 10, 12)
PART = 10_000  # studies at a time
SHARED = 1.0  # points: the standard deviation of what a seed does to all methods
ONE = 3  # the comparison that has an effect where only one has
PROMISED = 0.055  # the error where 5 % is promised, and what the simulation itself may be wrong by


def _spreads(joint: float, others: list[float] | np.ndarray) -> np.ndarray:
    return np.array([joint, *others])


SPREADS = {
    "equal": _spreads(0.8, [0.8] * COMPARISONS),
    "unequal, 0.3 to 3": _spreads(0.8, np.geomspace(0.3, 3, COMPARISONS)),
    "one unstable method": _spreads(0.4, [0.4] * (COMPARISONS - 1) + [3]),
    "unstable joint training": _spreads(3, [0.4] * COMPARISONS),
    "calm joint training": _spreads(0.2, [0.8] * COMPARISONS),
    "heavy tails": _spreads(0.8, [0.8] * COMPARISONS),
    "rare failures": _spreads(0.8, [0.8] * COMPARISONS),
    "one sample": _spreads(0.2, [0.2] * COMPARISONS),
}
TAILS = 3  # degrees of freedom of Student's t, in "heavy tails"
FAILURES = 0.1, 5.0  # the fraction of a method's runs that lose so many points, in "rare failures"
UNPROMISED = ("rare failures",)  # no t test is made for noise as skewed as that
EFFECTS = {
    "none": np.zeros(COMPARISONS),
    **{f"one of {size} points": np.where(np.arange(COMPARISONS) == ONE, size, 0.0) for size in (1, 2, 5)},
    "four of 2 points": np.where(np.arange(COMPARISONS) < 4, 2.0, 0.0),
}


def studies(rng: np.random.Generator, count: int, seeds: int, spread: str, effect: str) -> np.ndarray:
    """Accuracies (count, 1 + COMPARISONS, seeds), joint training's first, as fractions of 1."""
    shape = count, 1 + COMPARISONS, seeds
    if spread == "heavy tails":
        noise = rng.standard_t(TAILS, shape) / np.sqrt(TAILS / (TAILS - 2))
    else:
        noise = rng.standard_normal(shape)
    points = noise * SPREADS[spread][:, None] + SHARED * rng.standard_normal((count, 1, seeds))
    if spread == "rare failures":
        fraction, loss = FAILURES
        points[:, 1:] -= loss * ((rng.random((count, COMPARISONS, seeds)) < fraction) - fraction)
    points[:, 1:] += EFFECTS[effect][:, None]
    return np.round((0.85 + points / 100).clip(0, 1) * SAMPLES) / SAMPLES


def bonferroni(accuracies: np.ndarray) -> np.ndarray:
    """That of reports/statistics.py. As all procedures: which comparisons (count, COMPARISONS) are significant."""
    return COMPARISONS * _p(accuracies) < LEVEL


def holm(accuracies: np.ndarray) -> np.ndarray:
    """The same t tests, corrected by Holm's step-down method (1979)."""
    p = _p(accuracies)
    order = np.argsort(p, axis=1)
    steps = np.take_along_axis(p, order, 1) * np.arange(COMPARISONS, 0, -1)
    significant = np.empty_like(p, dtype=bool)
    np.put_along_axis(significant, order, np.maximum.accumulate(steps, 1) < LEVEL, 1)
    return significant


def dunnett(accuracies: np.ndarray) -> np.ndarray:
    """Dunnett's test (1955) on the residuals of an additive model of seeds and methods."""
    _, groups, seeds = accuracies.shape
    rest = accuracies - accuracies.mean(1, keepdims=True) - accuracies.mean(2, keepdims=True)
    rest += accuracies.mean((1, 2), keepdims=True)
    df = (groups - 1) * (seeds - 1)
    spread = np.sqrt(np.maximum((rest**2).sum((1, 2)) / df, 1 / SAMPLES**2 / 12))
    t = (accuracies[:, 1:] - accuracies[:, :1]).mean(2) / (spread * np.sqrt(2 / seeds))[:, None]
    return np.abs(t) > dunnett_critical(groups - 1, df)


def sign_flips(accuracies: np.ndarray, most: int = 512) -> np.ndarray:
    """Single-step max-T (Westfall and Young, 1993): the largest |t| of all comparisons against those after changing
    the signs of seeds, all 2^(seeds - 1) ways or `most` random ones.
    """
    differences = _differences(accuracies)
    seeds = differences.shape[-1]
    ways = 1 - 2 * (np.arange(2 ** (seeds - 1))[:, None] >> np.arange(seeds) & 1)
    if len(ways) > most:  # the first is as observed
        ways = ways[[0, *np.random.default_rng(0).choice(len(ways) - 1, most - 1, replace=False) + 1]]
    squares = (differences**2).sum(-1) + 1e-12
    observed = (differences.sum(-1) ** 2) / squares  # grows with |t|, as the sum of squares keeps its value
    as_large = np.zeros(observed.shape)
    for signs in ways:
        largest = ((differences @ signs) ** 2 / squares).max(1, keepdims=True)
        as_large += largest > observed - 1e-9
    return as_large / len(ways) <= LEVEL


PROCEDURES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {  # with their repetitions
    "bonferroni": (bonferroni, 60_000),
    "holm": (holm, 60_000),
    "dunnett": (dunnett, 20_000),
    "sign flips": (sign_flips, 4_000),
}


def _differences(accuracies: np.ndarray) -> np.ndarray:
    return accuracies[:, 1:] - accuracies[:, :1]


def _p(accuracies: np.ndarray) -> np.ndarray:
    return t_test(_differences(accuracies), 1 / SAMPLES)[1]


@lru_cache
def dunnett_critical(comparisons: int, df: int, level: float = LEVEL) -> float:
    """The two-sided critical value of Dunnett's test with groups of one size, so that each two comparisons have the
    correlation 1/2: P(max |Z_i - Z_0| / sqrt(2) > c S) = level, a mean over Z_0 and S of products of normals.
    """
    z, weights = np.polynomial.hermite_e.hermegauss(80)
    s = np.sqrt(stats.chi2.ppf((np.arange(1000) + 0.5) / 1000, df) / df)[:, None]

    def excess(c: float) -> float:
        inside = special.ndtr(np.sqrt(2) * c * s + z) - special.ndtr(-np.sqrt(2) * c * s + z)
        return 1 - float((inside**comparisons @ weights).mean()) / np.sqrt(2 * np.pi) - level

    return float(optimize.brentq(excess, 1, 50))


def cell(spread: str, seeds: int, effect: str) -> list[dict[str, str | int | float]]:
    """The rows of all procedures on the same studies: error and power as fractions of 1, equal for equal arguments."""
    names, real = [list(SPREADS).index(spread), seeds, list(EFFECTS).index(effect)], EFFECTS[effect] != 0
    wrong, right = dict.fromkeys(PROCEDURES, 0), dict.fromkeys(PROCEDURES, 0)
    for part in range(max(count for _, count in PROCEDURES.values()) // PART):
        every = studies(np.random.default_rng([*names, part]), PART, seeds, spread, effect)
        for name, (decide, repetitions) in PROCEDURES.items():
            accuracies = every[: max(0, repetitions - part * PART)]
            if len(accuracies):
                significant = decide(accuracies)
                wrong[name] += int(significant[:, ~real].any(1).sum())
                right[name] += int((significant & (_differences(accuracies).mean(2) > 0))[:, real].sum())
    return [
        {"spread": spread, "seeds": seeds, "effect": effect, "procedure": name, "repetitions": count}
        | {"error": round(wrong[name] / count, 5)}
        | {"power": round(right[name] / count / real.sum(), 5) if real.any() else float("nan")}
        for name, (_, count) in PROCEDURES.items()
    ]


def simulate() -> pd.DataFrame:
    """All rows, a few minutes on one core."""
    return pd.DataFrame([row for names in product(SPREADS, SEEDS, EFFECTS) for row in cell(*names)])


def measure(result: Path = RESULT) -> None:
    """Simulate all, write the result, and print the tables of docs/statistics.md."""
    rows = simulate()
    result.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(result, index=False, lineterminator="\n")
    print(markdown(rows), end="")


def markdown(rows: pd.DataFrame) -> str:
    """The tables of docs/statistics.md from the rows of the result."""
    return f"{_errors(rows)}\n{_powers(rows)}"


def _errors(rows: pd.DataFrame) -> str:
    """Family-wise errors: the highest over all numbers of seeds and effects, for each spread and procedure."""
    lines = ["| standard deviations | Bonferroni | Holm | Dunnett | sign flips |", "|---|---:|---:|---:|---:|"]
    for spread in SPREADS:
        highest = rows[rows.spread == spread].groupby("procedure").error.max()
        lines.append(f"| {spread} | {' | '.join(f'{100 * highest[name]:.1f}' for name in PROCEDURES)} |")
    return "\n".join(lines) + "\n"


def _powers(rows: pd.DataFrame) -> str:
    """Power by number of seeds, for equal and for unequal standard deviations."""
    lines = [
        "| standard deviations | seeds | error | one of 1 point | one of 2 | one of 5 | four of 2 | Holm: four of 2 |"
        " sign flips: four of 2 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for spread in list(SPREADS)[:2]:
        for seeds in SEEDS:
            of = rows[(rows.spread == spread) & (rows.seeds == seeds)].set_index(["procedure", "effect"])
            chosen, four = of.loc["bonferroni"], "four of 2 points"
            powers = [*chosen.power.drop("none"), of.power["holm", four], of.power["sign flips", four]]
            values = [f"{100 * chosen.error['none']:.1f}", *(f"{100 * power:.0f}" for power in powers)]
            lines.append(f"| {spread} | {seeds} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"
