"""The numbers of the results: a row per dataset, recipe, fusion and method, over seeds. 100 % is 1."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from pipeline_src.evaluation import FUSED
from pipeline_src.reports.declared import COST, VIEWS, Primary, counting, fractions, named_metric, primary
from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.reports.statistics import FRACTION, FREE, Difference, Summary, corrected, paired, summary
from pipeline_src.reports.wording import plural
from pipeline_src.study.runs import DIVERGED, FAILED

CELL = ["dataset", "recipe", "fusion", "method"]
COLUMNS = [*CELL, "seed", "split", "modality", "metric", "value"]
QUIET = 0.1  # standard deviation of the times of a row's seeds over their mean, at most, on a quiet machine
BASELINE = "joint"  # the method that all others are compared with
STATISTICS = ("mean", "sd", "ci_low", "ci_high")
TESTED = ("n", "p", "d_z", "g_z", "family", "p_corrected", "detectable", "seeds_needed")  # of a Difference, too
GAP, PROBE_GAIN = "probe_gap", "probe_gain"  # differences of each modality
ACCURACY = primary("classification")

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
    samples: Mapping[str, int] | None = None,
    primaries: Mapping[str, Primary] | None = None,
) -> pd.DataFrame:
    """The test metrics of every cell over the seeds, in the order of `cells`; percentages as fractions of 1.

    `metrics` is in long form with COLUMNS; `cells` name the rows, `seeds` the runs that each should have,
    `ended` has the runs that ended without scores, {(*CELL, seed): how}, `samples` the number of test targets by
    dataset, whose accuracies are multiples of 1 / samples, and `primaries` the primary metric by dataset: accuracy
    where it says nothing. Columns, with <score> the primary metric of the row's dataset:
        CELL, seeds ("2 of 3"), complete (bool), diverged, failed (numbers of runs), metric (name of <score>)
        <what>_mean, _sd, _ci_low, _ci_high    what: every test metric of the fused model; m/<score>_<view> for VIEWS
        m/probe_gap_*     m/<score>_probe less that of the model trained on m alone, paired by seed
        m/probe_gain_*    m/<score>_probe less that of BASELINE with the same fusion, paired by seed
        <score>_gain_*    <score> less that of BASELINE with the same fusion, paired by seed
                          of these three also _n (seeds that both have) and the fields of `statistics.Difference` in
                          TESTED; the interval is the corrected one. A family is all differences of a kind
                          (<score>_gain, probe_gap or probe_gain) on a dataset with a fusion
        seconds_*         training time of a run
        passes_*          forward and backward passes of samples over those of BASELINE with the same fusion
    Where seeds are missing, the mean is of those that are there, without deviation and interval; a difference is of the
    seeds that both have. In the row of a unimodal model its modality stands for the whole.
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

    scored = {cell: (primaries or {}).get(cell[0], ACCURACY) for cell in cells}
    bounded, counts = fractions(), counting()
    for one in scored.values():
        of = {one.best, *map(one.view, VIEWS)}
        bounded = bounded | of if one.score in bounded else bounded
        counts = counts | of if one.score in counts else counts

    def step(cell: tuple, metric: str) -> float:
        return 1 / samples[cell[0]] if samples and cell[0] in samples and metric in counts else 0.0

    def over_seeds(cell: tuple, modality: str, metric: str) -> Summary:
        scores = values[cell, modality, metric]
        scores = [scores[seed] for seed in seeds if seed in scores]
        whole = summary(scores, confidence, step(cell, metric), FRACTION if metric in bounded else FREE)
        return whole if len(scores) == len(seeds) else Summary(whole.n, whole.mean)

    def difference(cell: tuple, other: tuple | None, modality: str, metric: str) -> Difference:
        if cell == other:
            return Difference(0)
        both = [values.get((which, modality, metric), {}) for which in (cell, other)]
        shared = [seed for seed in seeds if all(seed in scores for scores in both)]
        return paired(*([scores[seed] for seed in shared] for scores in both), step(cell, metric))

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
    whole = list(dict.fromkeys([name for one in scored.values() for name in (one.score, one.best)] + list(fused)))
    rows, sums_of = [], []
    for cell in cells:
        count = len(done[cell] & set(seeds))
        ends = [how.state for seed in seeds if (how := (ended or {}).get((*cell, seed)))]
        row = {
            **dict(zip(CELL, cell, strict=True)),
            "seeds": f"{count} of {len(seeds)}",
            "complete": count == len(seeds),
            DIVERGED: ends.count(DIVERGED),
            FAILED: ends.count(FAILED),
            "metric": scored[cell].score,
        }
        one, reference = scored[cell], (*cell[:3], BASELINE)
        sums = {metric: over_seeds(cell, FUSED, metric) for metric in whole}
        for m in modalities:
            sums |= {f"{m}/{one.view(name)}": over_seeds(cell, m, one.view(name)) for name in VIEWS}
            sums[f"{m}/{GAP}"] = difference(cell, alone.get((*cell[:2], m)), m, one.view("probe"))
            sums[f"{m}/{PROBE_GAIN}"] = difference(cell, reference, m, one.view("probe"))
        sums[one.gain] = difference(cell, reference, FUSED, one.score)
        sums["seconds"] = over_seeds(cell, FUSED, "seconds")
        sums["passes"] = passes(cell, reference)
        rows.append(row)
        sums_of.append(sums)
    _correct(cells, scored, sums_of, modalities, confidence)
    for row, sums in zip(rows, sums_of, strict=True):
        for what, numbers in sums.items():
            names = STATISTICS + (TESTED if isinstance(numbers, Difference) else ())
            row |= {f"{what}_{name}": getattr(numbers, name) for name in names}
    return pd.DataFrame(rows)


def _correct(
    cells: list[tuple],
    scored: Mapping[tuple, Primary],
    sums: list[dict[str, Summary]],
    modalities: list[str],
    confidence: float,
) -> None:
    """Correct the differences in `sums` {what: Summary} of the cells, family by family."""
    for kind in (None, [f"{m}/{GAP}" for m in modalities], [f"{m}/{PROBE_GAIN}" for m in modalities]):
        families = defaultdict(list)
        for cell, row in zip(cells, sums, strict=True):
            families[cell[:3], scored[cell]] += [
                (row, what) for what in ([scored[cell].gain] if kind is None else kind)
            ]
        for (_, one), family in families.items():
            largest = 1.0 if one.metric.unit == "%" else math.inf
            after = corrected([row[what] for row, what in family], confidence, largest)
            for (row, what), difference in zip(family, after, strict=True):
                row[what] = difference


def primary_of(rows: Row | pd.DataFrame) -> Primary:
    """The primary metric of a row of an accuracy table, or of the rows of one dataset."""
    name = rows["metric"]
    return Primary(named_metric(str(name.iloc[0] if isinstance(name, pd.Series) else name)))


def modalities_of(table: pd.DataFrame) -> list[str]:
    """The modalities of an accuracy table, in its order."""
    return [column.removesuffix("/probe_gap_mean") for column in table if column.endswith("/probe_gap_mean")]


def read(row: Row, what: str) -> Summary:
    """The Summary in a row of an accuracy table; `n` is 0 of all but differences."""
    return Summary(int(row.get(f"{what}_n", 0)), *(float(row[f"{what}_{name}"]) for name in STATISTICS))


def significant(row: Row, what: str, confidence: float) -> bool:
    """Whether a difference in a row of an accuracy table is significant after the correction for its family. Nothing
    else decides this. Its interval then excludes 0.
    """
    return float(row[f"{what}_p_corrected"]) < 1 - confidence  # NaN is not


def timing(table: pd.DataFrame) -> tuple[bool, str]:
    """Whether measured times of an accuracy table's rows can be compared, and a sentence that says so.

    The seeds of a row do the same work, so their times differ by what else the machine did.
    """
    spread = (table.seconds_sd / table.seconds_mean)[table.method != ENSEMBLE]
    if spread.isna().all():
        return False, "Whether the machine was quiet is not known: it takes two seeds to see that."
    worst = table.loc[spread.idxmax()]
    size = f"{100 * spread.max():.0f} % ({worst.method})"
    if spread.max() <= QUIET:
        return (
            True,
            f"The machine was quiet: times of a row's seeds, which do the same work, spread by {size} at most.",
        )
    return False, (
        f"The machine was not quiet: times of a row's seeds, which do the same work, spread by up to {size}."
        " Compare the passes."
    )


def shortfall(row: Row) -> str:
    """Why a row of an accuracy table lacks runs, `diverged in 2 of 8 seeds`; empty if it is complete."""
    count, seeds = (int(n) for n in row["seeds"].split(" of "))
    missing = seeds - count - row[DIVERGED] - row[FAILED]
    parts = [(row[DIVERGED], "diverged"), (row[FAILED], "failed"), (missing, "missing")]
    return ", ".join(f"{word} in {n} of {plural(seeds, 'seed')}" for n, word in parts if n)
