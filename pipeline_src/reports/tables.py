"""The results tables as people read them, in percent. The HTML report, Markdown and LaTeX write the same `Table`s.

Modalities and methods are whatever the metrics name.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import pandas as pd
from scipy import stats

from pipeline_src.reports.declared import VIEWS, Primary
from pipeline_src.reports.ensemble import CAPTION, ENSEMBLE
from pipeline_src.reports.scores import (
    BASELINE,
    CELL,
    GAP,
    PROBE_GAIN,
    Ended,
    modalities_of,
    primary_of,
    read,
    shortfall,
    significant,
    timing,
)
from pipeline_src.reports.statistics import FEWEST, POINT, POWER, Summary
from pipeline_src.reports.wording import (
    MARK,
    MINUS,
    NONE,
    capital,
    interval,
    level,
    p_value,
    plural,
    points,
    words,
)
from pipeline_src.reports.wording import value as written
from pipeline_src.tasks.base import Metric


@dataclass(frozen=True)
class Entry:
    """An entry of a table as people read it: the value and, apart, its interval or what is wrong with it.

    In the report, `folder` is what the value links to, relative to the working directory, and `order` sorts it where
    the number that it begins with does not.
    """

    value: str
    interval: str = ""
    strong: bool = False  # a difference that the corrected test supports, or the best value where it does
    folder: str = ""
    order: float | None = None

    def __str__(self) -> str:
        return f"{self.value} {self.interval}".rstrip()


@dataclass(frozen=True)
class Table:
    """A table as people read it. The first `names` columns are words, the rest numbers."""

    title: str
    caption: str
    columns: list[str]
    rows: list[list[Entry]]
    names: int

    def groups(self) -> list[list[list[Entry]]]:
        """The rows fusion by fusion, where that is the first column; else all of them."""
        if self.columns[0] != "fusion":
            return [self.rows] if self.rows else []
        return [list(rows) for _, rows in groupby(self.rows, lambda row: row[0].value)]


def tables(
    table: pd.DataFrame,
    seeds: int,
    confidence: float,
    extensions: dict[tuple[str, str], str] | None = None,
    metrics: Sequence[Metric] = (),
    covered: str = "",
) -> list[Table]:
    """Tables per dataset of an accuracy table: the fused models, each of their modalities, and the fused models by all
    but the first of the `metrics` that their task declares.

    `extensions` {(dataset, method): text} says of a method what no paper gives; it is marked and the text shown.
    `covered` says which randomness the intervals cover.
    """
    made = []
    for (dataset, recipe), rows in table.groupby(CELL[:2], sort=False):
        common = _captions(rows, seeds, confidence, covered)
        where = f"{dataset} (recipe {recipe})"
        notes = {method: text for (name, method), text in (extensions or {}).items() if name == dataset}
        made += [
            _marked(each, notes)
            for each in (
                _whole(rows, where, common, seeds, confidence),
                _each(rows, where, common, seeds, confidence),
                *_others(rows, where, common, seeds, metrics[1:]),
            )
        ]
    return made


def ended_table(name: str, recipe: str, ended: Mapping[tuple, Ended]) -> Table | None:
    """The runs of a dataset that diverged or failed, each with its reason; None where there is none."""
    rows = [
        [*map(Entry, (fusion, method, str(seed), *how))]
        for (dataset, of, fusion, method, seed), how in ended.items()
        if (dataset, of) == (name, recipe)
    ]
    if not rows:
        return None
    caption = (
        "A diverged run is a finding about its method: its loss was no longer finite. A failed run is an error; run"
        " snakemake again once its cause is fixed. Neither has scores, and no mean includes them."
    )
    columns = ["fusion", "method", "seed", "state", "reason"]
    return Table(f"Runs without scores: {name} (recipe {recipe})", caption, columns, rows, 5)


def entry(summary: Summary, seeds: int, sign: bool = False, strong: bool = False, unit: str = "%") -> Entry:
    """`91.7 ± 0.9` and `[89.4, 94.0]`; of two values the mean and both; marked where some `seeds` are missing. `unit`
    is the metric's.
    """
    if math.isnan(summary.mean):
        return Entry(NONE)
    mean, few = written(summary.mean, unit, sign), 0 < summary.n < seeds  # `n` is 0 of a score
    if math.isnan(summary.sd) and seeds > 1 and not few:
        return Entry(mean, "(incomplete)")
    between = interval(summary, sign, unit) + (f" ({summary.n} of {seeds} seeds)" if few else "")
    return Entry(mean if math.isnan(summary.ci_low) else f"{mean} ± {written(summary.sd, unit)}", between, strong)


def corrections(table: pd.DataFrame, kinds: Sequence[str]) -> str:
    """`8 comparisons`, for which the differences of these kinds are corrected; fusion by fusion where their numbers
    differ; empty where nothing is tested.
    """
    numbers = {}
    for fusion, rows in table.groupby("fusion", sort=False):
        if count := max((int(rows[f"{kind}_family"].max()) for kind in kinds), default=0):
            numbers[fusion] = plural(count, "comparison")
    if len(set(numbers.values())) > 1:
        return words([f"{number} with {fusion}" for fusion, number in numbers.items()])
    each = " with each fusion" if len(numbers) > 1 else ""
    return next((number + each for number in numbers.values()), "")


def sensitivity(table: pd.DataFrame, what: str, confidence: float) -> str:
    """The smallest difference of the kind `what` that rows of an accuracy table could have shown, and the seeds that
    one point (0.01 of a metric that is no percentage) needs, in sentences; empty where nothing is tested.
    """
    unit = primary_of(table).metric.unit
    tested = table[table[f"{what}_detectable"].notna()].sort_values(f"{what}_detectable")
    if tested.empty:
        return ""
    sizes, needed = tested[f"{what}_detectable"], tested[f"{what}_seeds_needed"]
    fewest, most = (int(count) for count in (tested[f"{what}_n"].min(), tested[f"{what}_n"].max()))
    seeds, alone = f"{fewest} to {most}" if fewest < most else f"{most}", len(tested) == 1
    spans = "", ""
    if not alone:
        first, last = (
            f"{written(row[f'{what}_detectable'], unit)} for {row.method}" for _, row in tested.iloc[[0, -1]].iterrows()
        )
        spans = (
            f" (median of {len(tested)} comparisons; from {first} to {last})",
            f" (median; from {needed.min():.0f} to {needed.max():.0f})",
        )
    few = f" {fewest} seeds estimate the standard deviation, and with it these numbers, poorly." if fewest < 5 else ""
    return (
        f"Smallest detectable difference: with {seeds} seeds, a true difference of"
        f" {written(sizes.median(), unit)}{points(unit)}{spans[0]} is significant with {100 * POWER:.0f} %"
        f" probability. To detect {'one point' if unit == '%' else POINT},"
        f" {math.ceil(needed.median())} seeds are needed{spans[1]}.{few}"
    )


def how_tested(numbers: str, confidence: float) -> str:
    """How differences are tested, and for which numbers of comparisons they are corrected."""
    return (
        f" The differences have a paired t test; p and interval are corrected by Bonferroni's method for {numbers}."
        f" Significant means that p is below {1 - confidence:.2g} and that the interval excludes 0."
    )


def _captions(table: pd.DataFrame, seeds: int, confidence: float, covered: str) -> str:
    """What the numbers of one dataset's rows of an accuracy table are, and what they do not support."""
    fraction = primary_of(table).metric.unit == "%"
    what = "Test scores in percent" if fraction else "Test scores"
    if seeds >= FEWEST:
        text = (
            f"{what}: mean ± standard deviation over {seeds} seeds [{level(confidence)} Student t"
            f" interval{', cut at 0 and 100' if fraction else ''}]. {covered}"
        ).rstrip()
    elif seeds == 2:
        text = (
            f"{what}: mean (both values). Two seeds support no conclusion and have no interval: with one"
            f" degree of freedom, Student's t at {level(confidence)} is {stats.t.isf((1 - confidence) / 2, 1):.0f}"
            " standard errors."
        )
    else:
        text = f"{what}. One seed supports no conclusion: no deviation and no interval ({NONE})."
    if not table.complete.all():
        text += (
            " Values marked incomplete are means over the runs that have scores; they are not results. Differences are"
            " of the seeds that both have. If a method's worst runs are those that diverge, its differences flatter it."
        )
    if table.diverged.any():
        text += " A run has diverged if its loss was no longer finite; it has no scores."
    return text


def _marked(table: Table, notes: dict[str, str]) -> Table:
    """The table with a mark at the methods that have a note, and the notes in its caption."""
    if not notes:
        return table
    rows = [[r[0], Entry(f"{r[1]} {MARK}") if r[1].value in notes else r[1], *r[2:]] for r in table.rows]
    text = " ".join(f"{method}: {note}." for method, note in notes.items())
    return replace(table, rows=rows, caption=f"{table.caption} {MARK} Extension that no paper gives. {text}")


def _whole(table: pd.DataFrame, where: str, common: str, seeds: int, confidence: float) -> Table:
    one = primary_of(table)
    label, unit = one.metric.label, one.metric.unit
    best_test = table[f"{one.best}_mean"].notna().any()
    tested, whole = table[f"{one.gain}_mean"].notna().any(), table.complete.all()
    best = _best(table, one)
    rows = []
    for i, row in table.iterrows():
        remains = significant(row, one.gain, confidence)
        top = remains and one.better(row[f"{one.gain}_mean"]) and i in best
        score, gain = entry(read(row, one.score), seeds, strong=top, unit=unit), []
        if tested:
            gain = [entry(read(row, one.gain), seeds, True, remains, unit)]
            gain.append(Entry(p_value(row[f"{one.gain}_p_corrected"])))
        probes = [entry(read(row, f"{m}/{one.view('probe')}"), seeds, unit=unit) for m in modalities_of(table)]
        cost = [_plain(row["seconds_mean"], 0), _plain(row["passes_mean"], 2)]
        names = map(Entry, [row["fusion"], row["method"], *([] if whole else [shortfall(row) or row["seeds"]])])
        papers = [entry(read(row, one.best), seeds, unit=unit)] if best_test else []
        rows.append([*names, score, *gain, *probes, *papers, *cost])
    columns = ["fusion", "method", *([] if whole else ["seeds"]), heading(one.metric)]
    caption = common if label == "accuracy" else f"{common} {capital(label)}: {one.metric.caption}"
    if tested:
        columns += [f"{label} {MINUS} {BASELINE}", "p, corrected"]
        caption += (
            f" {capital(label)} {MINUS} {BASELINE}: {label} minus that of {BASELINE} with the same"
            f" fusion{points(unit, ', in ')}, by seed."
        )
        if table[f"{one.gain}_p"].notna().any():
            caption += (
                f"{how_tested(corrections(table, [one.gain]), confidence)} Bold: a significant difference, and the best"
                f" {label} of a fusion if its difference is one. {sensitivity(table, one.gain, confidence)}"
            )
    columns += [f"{m} probe" for m in modalities_of(table)]
    at_best = f"{label} at the best test epoch"
    columns += [*([at_best] if best_test else []), "training time, s", f"passes / {BASELINE}'s"]
    if (table.method == ENSEMBLE).any():
        caption += f" {CAPTION}"
    caption += f" Probe: {label} of a linear model on the features of the modality's frozen encoder."
    if best_test:
        caption += f" {capital(at_best)}: by the papers' rule, which selects the epoch on test data."
    caption += (
        f" Training time: mean of the runs. {timing(table)[1]} Passes: samples in forward and backward passes, divided"
        f" by those of {BASELINE}. {NONE}: no value."
    )
    return Table(f"{capital(label)}: {where}", caption, columns, rows, 2 if whole else 3)


def _best(table: pd.DataFrame, one: Primary) -> set[int]:
    """The rows with the best score of each fusion; none while scores are missing."""
    scores = table[f"{one.score}_mean"]
    by_fusion = (scores if one.metric.higher else -scores).groupby(table.fusion)
    return set(by_fusion.idxmax()) if scores.notna().all() else set()


def heading(metric: Metric) -> str:
    """`accuracy`, `MAE (lower is better)`."""
    return f"{metric.label}{'' if metric.higher else ' (lower is better)'}"


def _each(table: pd.DataFrame, where: str, common: str, seeds: int, confidence: float) -> Table:
    one = primary_of(table)
    unit = one.metric.unit
    tested = any(table[f"{m}/{PROBE_GAIN}_mean"].notna().any() for m in modalities_of(table))
    kinds = [GAP, PROBE_GAIN] if tested else [GAP]
    rows = []
    for row in table.to_dict("records"):
        for m in modalities_of(table):
            views = [read(row, f"{m}/{one.view(name)}") for name in VIEWS]
            if all(math.isnan(view.mean) for view in views):
                continue  # a modality that this model does not have
            scores = [entry(view, seeds, unit=unit) for view in views]
            for what in (f"{m}/{kind}" for kind in kinds):
                scores.append(entry(read(row, what), seeds, True, significant(row, what, confidence), unit))
            rows.append([*map(Entry, (row["fusion"], row["method"], m)), *scores])
    caption = (
        f"{common} {' '.join(f'{view.label.capitalize()}: {view.caption}' for view in VIEWS.values())}"
        f" Probe {MINUS} alone: probe {one.metric.label} minus that of the model trained on this modality alone"
        f"{points(unit, ', in ')}, paired by seed ({NONE}: nothing to compare with)."
    )
    columns = ["fusion", "method", "modality", *(view.label for view in VIEWS.values()), f"probe {MINUS} alone"]
    if tested:
        columns.append(f"probe {MINUS} {BASELINE}")
        caption += f" Probe {MINUS} {BASELINE}: probe {one.metric.label} minus that of {BASELINE} with the same fusion."
    counts = {kind: corrections(table, [f"{m}/{kind}" for m in modalities_of(table)]) for kind in kinds}
    if any(counts.values()):
        names = {GAP: f"probe {MINUS} alone", PROBE_GAIN: f"probe {MINUS} {BASELINE}"}
        numbers = " and ".join(f"{count} ({names[kind]})" for kind, count in counts.items() if count)
        caption += f"{how_tested(numbers, confidence)} Bold: a significant difference."
    return Table(f"Each modality: {where}", caption, columns, rows, 3)


def _others(table: pd.DataFrame, where: str, common: str, seeds: int, metrics: Sequence[Metric]) -> list[Table]:
    """The fused models by other metrics; no table where none was measured."""
    metrics = [metric for metric in metrics if f"{metric.name}_mean" in table]
    rows = [
        [*map(Entry, (row["fusion"], row["method"])), *(entry(read(row, m.name), seeds, unit=m.unit) for m in metrics)]
        for row in table.to_dict("records")
    ]
    caption = " ".join([common, *(f"{metric.label}: {metric.caption}" for metric in metrics)])
    fraction = primary_of(table).metric.unit == "%"
    if unlike := [metric.label for metric in metrics if (metric.unit == "%") != fraction]:
        caption += f" {'Not in' if fraction else 'In'} percent: {', '.join(unlike)}."
    columns = ["fusion", "method", *map(heading, metrics)]
    return [Table(f"Other metrics: {where}", caption, columns, rows, 2)] if metrics and rows else []


def _plain(value: float, digits: int) -> Entry:
    """A number that has no interval to show."""
    return Entry(NONE if math.isnan(value) else f"{value:.{digits}f}")
