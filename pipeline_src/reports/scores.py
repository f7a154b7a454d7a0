"""The numbers of the results: one row per dataset, recipe, fusion and method, over seeds, as fractions of 1."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from pipeline_src.evaluation import FUSED
from pipeline_src.reports.declared import COST, VIEWS
from pipeline_src.reports.statistics import Difference, Summary, holm, paired, simultaneous, summary
from pipeline_src.reports.wording import plural
from pipeline_src.study.runs import DIVERGED, FAILED

CELL = ["dataset", "recipe", "fusion", "method"]
COLUMNS = [*CELL, "seed", "split", "modality", "metric", "value"]
BEST = "accuracy_best_test_epoch"  # by the papers' rule
BASELINE = "joint"  # the method that all others are compared with
STATISTICS = ("mean", "sd", "ci_low", "ci_high")
TESTED = ("p", "d_z", "g_z", "p_holm", "all_low", "all_high")  # of a difference, besides STATISTICS
GAIN, GAP, PROBE_GAIN = "accuracy_gain", "probe_gap", "probe_gain"  # the differences; the last two of each modality


Row = Mapping[str, Any] | pd.Series  # of an accuracy table


class Ended(NamedTuple):
    """How a run ended that has no scores: DIVERGED or FAILED, and why."""

    state: str
    reason: str


def accuracy_table(
    metrics: pd.DataFrame,
    cells: Iterable[dict[str, str]],
    seeds: Sequence[int],
    confidence: float,
    ended: Mapping[tuple, Ended] | None = None,
) -> pd.DataFrame:
    """The test metrics of every cell over the seeds, as fractions of 1, in the order of `cells`.

    `metrics` is in long form with COLUMNS; `cells` name the rows, `seeds` the runs that each should have, and
    `ended` has the runs that ended without scores, {(*CELL, seed): how}. Columns:
        CELL, seeds ("2 of 3"), complete (bool), diverged, failed (numbers of runs)
        <what>_mean, _sd, _ci_low, _ci_high    what: every test metric of the fused model; m/<view> for VIEWS
        m/probe_gap_*     m/accuracy_probe less that of the model trained on m alone, paired by seed
        m/probe_gain_*    m/accuracy_probe less that of BASELINE with the same fusion, paired by seed
        accuracy_gain_*   accuracy less that of BASELINE with the same fusion, paired by seed
                          of these three also _p (paired t test), _d_z, _g_z (effect sizes), _p_holm, _all_low and
                          _all_high: p and interval corrected for the family, which is all differences of the kind
                          (accuracy_gain, probe_gap or probe_gain) on the dataset, of all fusions and modalities
        seconds_*         training time of a run
        passes_*          forward and backward passes of samples over those of BASELINE with the same fusion
    Where seeds are missing, the mean is of those that are there, and there is no deviation, interval, gap or gain. In
    the row of a unimodal model its modality stands for the whole.
    """
    values: dict[tuple, dict[int, float]] = defaultdict(dict)  # (cell, modality, metric) -> seed -> value
    done, inputs = defaultdict(set), defaultdict(dict)  # of a cell: its seeds; its modalities, in order
    for *cell, seed, split, modality, metric, value in metrics[COLUMNS].itertuples(index=False):
        cell = tuple(cell)
        done[cell].add(seed)
        if split == "test" or metric in COST:
            values[cell, modality, metric][seed] = value
        if split == "test" and modality != FUSED:
            inputs[cell][modality] = None

    cells = [tuple(cell[name] for name in CELL) for cell in cells]
    modalities = list(dict.fromkeys(m for cell in cells for m in inputs[cell]))
    alone = {}  # (dataset, recipe, modality) -> the cell of the model that has no other
    for cell in cells:
        if len(inputs[cell]) == 1:
            alone.setdefault((*cell[:2], *inputs[cell]), cell)

    def over_seeds(cell: tuple, modality: str, metric: str) -> Summary:
        scores = values[cell, modality, metric]
        scores = [scores[seed] for seed in seeds if seed in scores]
        whole = summary(scores, confidence)
        return whole if len(scores) == len(seeds) else Summary(whole.n, whole.mean)

    def difference(cell: tuple, other: tuple | None, modality: str, metric: str) -> Difference:
        both = [values.get((which, modality, metric), {}) for which in (cell, other)]
        if cell == other or any(len(scores) < len(seeds) for scores in both):
            return Difference(0)
        return paired(*([scores[seed] for seed in seeds] for scores in both), confidence)

    def passes(cell: tuple, other: tuple) -> Summary:
        counts = [
            [
                sum(values[c, FUSED, metric].get(seed, math.nan) for metric in ("forwards", "backwards"))
                for seed in seeds
            ]
            for c in (cell, other)
        ]
        return summary([a / b for a, b in zip(*counts, strict=True) if not math.isnan(a / b)], confidence)

    fused = metrics[(metrics.split == "test") & (metrics.modality == FUSED)].metric
    whole = list(dict.fromkeys(["accuracy", BEST, *fused]))
    rows = []
    for cell in cells:
        count = len(done[cell] & set(seeds))
        ends = [how.state for seed in seeds if (how := (ended or {}).get((*cell, seed)))]
        row = {
            **dict(zip(CELL, cell, strict=True)),
            "seeds": f"{count} of {len(seeds)}",
            "complete": count == len(seeds),
            DIVERGED: ends.count(DIVERGED),
            FAILED: ends.count(FAILED),
            "seeds_count": count,
        }
        reference = (*cell[:3], BASELINE)
        sums = {metric: over_seeds(cell, FUSED, metric) for metric in whole}
        for m in modalities:
            sums |= {f"{m}/{metric}": over_seeds(cell, m, metric) for metric in VIEWS}
            sums[f"{m}/{GAP}"] = difference(cell, alone.get((*cell[:2], m)), m, "accuracy_probe")
            sums[f"{m}/{PROBE_GAIN}"] = difference(cell, reference, m, "accuracy_probe")
        sums[GAIN] = difference(cell, reference, FUSED, "accuracy")
        sums["seconds"] = over_seeds(cell, FUSED, "seconds")
        sums["passes"] = passes(cell, reference)
        for what, numbers in sums.items():
            row |= {f"{what}_{name}": getattr(numbers, name) for name in STATISTICS}
            if isinstance(numbers, Difference):
                row |= {f"{what}_{name}": getattr(numbers, name, math.nan) for name in TESTED}
        rows.append(row)
    _correct(rows, modalities, confidence)
    return pd.DataFrame(rows)


def _correct(rows: list[dict], modalities: list[str], confidence: float) -> None:
    """Fill in what the number of comparisons makes of p and interval, family by family."""
    for kind in ([GAIN], [f"{m}/{GAP}" for m in modalities], [f"{m}/{PROBE_GAIN}" for m in modalities]):
        families = defaultdict(list)
        for row in rows:
            families[row["dataset"], row["recipe"]] += [(row, what) for what in kind]
        for family in families.values():
            tested = sum(not math.isnan(row[f"{what}_p"]) for row, what in family)
            for (row, what), p in zip(family, holm([row[f"{what}_p"] for row, what in family]), strict=True):
                row[f"{what}_p_holm"] = p
                if not math.isnan(p):
                    numbers = Summary(row["seeds_count"], row[f"{what}_mean"], row[f"{what}_sd"])
                    row[f"{what}_all_low"], row[f"{what}_all_high"] = simultaneous(numbers, tested, confidence)
    for row in rows:
        del row["seeds_count"]


def modalities_of(table: pd.DataFrame) -> list[str]:
    """The modalities of an accuracy table, in its order."""
    return [column.removesuffix("/probe_gap_mean") for column in table if column.endswith("/probe_gap_mean")]


def read(row: Row, what: str) -> Summary:
    """The Summary in a row of an accuracy table (`n` is not in it: it is 0)."""
    return Summary(0, *(float(row[f"{what}_{name}"]) for name in STATISTICS))


def supported(row: Row, what: str, confidence: float) -> bool:
    """Whether a difference in a row of an accuracy table remains after the correction for its family."""
    return float(row[f"{what}_p_holm"]) < 1 - confidence  # NaN is not


def shortfall(row: Row) -> str:
    """Why a row of an accuracy table lacks runs, `diverged in 2 of 8 seeds`; empty if it is complete."""
    count, seeds = (int(n) for n in row["seeds"].split(" of "))
    missing = seeds - count - row[DIVERGED] - row[FAILED]
    parts = [(row[DIVERGED], "diverged"), (row[FAILED], "failed"), (missing, "missing")]
    return ", ".join(f"{word} in {n} of {plural(seeds, 'seed')}" for n, word in parts if n)
