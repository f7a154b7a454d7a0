"""The results tables as people read them, in percent. The HTML report, Markdown and LaTeX write the same `Table`s.

Modalities and methods are whatever the metrics name.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import pandas as pd
from scipy import stats

from pipeline_src.reports.declared import VIEWS
from pipeline_src.reports.ensemble import CAPTION, ENSEMBLE
from pipeline_src.reports.scores import (
    BASELINE,
    BEST,
    CELL,
    GAIN,
    GAP,
    PROBE_GAIN,
    Ended,
    modalities_of,
    read,
    shortfall,
    significant,
    timing,
)
from pipeline_src.reports.statistics import FEWEST, POWER, Summary
from pipeline_src.reports.wording import MARK, MINUS, NONE, interval, level, p_value, pair, percent, plural, words
from pipeline_src.tasks.base import Metric

AT_BEST = "accuracy at the best test epoch"  # heading of the column


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
    common = _captions(table, seeds, confidence, covered)
    for (dataset, recipe), rows in table.groupby(CELL[:2], sort=False):
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


def entry(summary: Summary, seeds: int, sign: bool = False, strong: bool = False) -> Entry:
    """`91.7 ± 0.9` and `[89.4, 94.0]`; of two values the mean and both; marked where some `seeds` are missing."""
    if math.isnan(summary.mean):
        return Entry(NONE)
    mean, few = percent(summary.mean, sign), 0 < summary.n < seeds  # `n` is 0 of a score
    if math.isnan(summary.sd) and seeds > 1 and not few:
        return Entry(mean, "(incomplete)")
    between = interval(summary, sign) + (f" ({summary.n} of {seeds} seeds)" if few else "")
    return Entry(mean if math.isnan(summary.ci_low) else f"{mean} ± {percent(summary.sd)}", between, strong)


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
    one point needs, in sentences; empty where nothing is tested.
    """
    tested = table[table[f"{what}_detectable"].notna()].sort_values(f"{what}_detectable")
    if tested.empty:
        return ""
    sizes, needed = tested[f"{what}_detectable"], tested[f"{what}_seeds_needed"]
    seeds, alone = int(tested[f"{what}_n"].max()), len(tested) == 1
    spans = "", ""
    if not alone:
        first, last = (
            f"{percent(row[f'{what}_detectable'])} for {row.method}" for _, row in tested.iloc[[0, -1]].iterrows()
        )
        spans = (
            f" (median of {len(tested)} comparisons; from {first} to {last})",
            f" (median; from {needed.min():.0f} to {needed.max():.0f})",
        )
    few = f" {seeds} seeds estimate the standard deviation, and with it these numbers, poorly." if seeds < 5 else ""
    return (
        f"Smallest detectable difference: with {seeds} seeds, a true difference of {percent(sizes.median())}"
        f" points{spans[0]} is significant with {100 * POWER:.0f} % probability. To detect one point,"
        f" {math.ceil(needed.median())} seeds are needed{spans[1]}.{few}"
    )


def how_tested(numbers: str, confidence: float) -> str:
    """How differences are tested, and for which numbers of comparisons they are corrected."""
    return (
        f" The differences have a paired t test; p and interval are corrected by Bonferroni's method for {numbers}."
        f" Significant means that p is below {1 - confidence:.2g} and that the interval excludes 0."
    )


def _captions(table: pd.DataFrame, seeds: int, confidence: float, covered: str) -> str:
    """What the numbers of an accuracy table are, and what they do not support."""
    if seeds >= FEWEST:
        text = (
            f"Test scores in percent: mean ± standard deviation over {seeds} seeds [{level(confidence)} Student t"
            f" interval, cut at 0 and 100]. {covered}"
        ).rstrip()
    elif seeds == 2:
        text = (
            "Test scores in percent: mean (both values). Two seeds support no conclusion and have no interval: with one"
            f" degree of freedom, Student's t at {level(confidence)} is {stats.t.isf((1 - confidence) / 2, 1):.0f}"
            " standard errors."
        )
    else:
        text = f"Test scores in percent. One seed supports no conclusion: no deviation and no interval ({NONE})."
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
    best_test = table[f"{BEST}_mean"].notna().any()
    tested, whole = table[f"{GAIN}_mean"].notna().any(), table.complete.all()
    best = table.groupby("fusion").accuracy_mean.idxmax() if table.accuracy_mean.notna().all() else []
    rows = []
    for i, row in table.iterrows():
        remains = significant(row, GAIN, confidence)
        top = remains and row[f"{GAIN}_mean"] > 0 and i in set(best)
        accuracy = entry(read(row, "accuracy"), seeds, strong=top)
        gain = (
            [entry(read(row, GAIN), seeds, True, remains), Entry(p_value(row[f"{GAIN}_p_corrected"]))] if tested else []
        )
        probes = [entry(read(row, f"{m}/accuracy_probe"), seeds) for m in modalities_of(table)]
        cost = [_plain(row["seconds_mean"], 0), _plain(row["passes_mean"], 2)]
        names = map(Entry, [row["fusion"], row["method"], *([] if whole else [shortfall(row) or row["seeds"]])])
        papers = [entry(read(row, BEST), seeds)] if best_test else []
        rows.append([*names, accuracy, *gain, *probes, *papers, *cost])
    columns = ["fusion", "method", *([] if whole else ["seeds"]), "accuracy"]
    caption = common
    if tested:
        columns += [f"accuracy {MINUS} {BASELINE}", "p, corrected"]
        caption += (
            f" Accuracy {MINUS} {BASELINE}: accuracy minus that of {BASELINE} with the same fusion, in points, by seed."
        )
        if table[f"{GAIN}_p"].notna().any():
            caption += (
                f"{how_tested(corrections(table, [GAIN]), confidence)} Bold: a significant difference, and the best"
                f" accuracy of a fusion if its difference is one. {sensitivity(table, GAIN, confidence)}"
            )
    columns += [f"{m} probe" for m in modalities_of(table)]
    columns += [*([AT_BEST] if best_test else []), "training time, s", f"passes / {BASELINE}'s"]
    if (table.method == ENSEMBLE).any():
        caption += f" {CAPTION}"
    caption += " Probe: accuracy of a linear classifier on the features of the modality's frozen encoder."
    if best_test:
        caption += f" {AT_BEST.capitalize()}: by the papers' rule, which selects the epoch on test data."
    caption += (
        f" Training time: mean of the runs. {timing(table)[1]} Passes: samples in forward and backward passes, divided"
        f" by those of {BASELINE}. {NONE}: no value."
    )
    return Table(f"Accuracy: {where}", caption, columns, rows, 2 if whole else 3)


def _each(table: pd.DataFrame, where: str, common: str, seeds: int, confidence: float) -> Table:
    tested = any(table[f"{m}/{PROBE_GAIN}_mean"].notna().any() for m in modalities_of(table))
    kinds = [GAP, PROBE_GAIN] if tested else [GAP]
    rows = []
    for row in table.to_dict("records"):
        for m in modalities_of(table):
            views = [read(row, f"{m}/{what}") for what in VIEWS]
            if all(math.isnan(view.mean) for view in views):
                continue  # a modality that this model does not have
            scores = [entry(view, seeds) for view in views]
            for what in (f"{m}/{kind}" for kind in kinds):
                scores.append(entry(read(row, what), seeds, True, significant(row, what, confidence)))
            rows.append([*map(Entry, (row["fusion"], row["method"], m)), *scores])
    caption = (
        f"{common} {' '.join(f'{view.label.capitalize()}: {view.caption}' for view in VIEWS.values())}"
        f" Probe {MINUS} alone: probe accuracy minus that of the model trained on this modality alone, in points,"
        f" paired by seed ({NONE}: nothing to compare with)."
    )
    columns = ["fusion", "method", "modality", *(view.label for view in VIEWS.values()), f"probe {MINUS} alone"]
    if tested:
        columns.append(f"probe {MINUS} {BASELINE}")
        caption += f" Probe {MINUS} {BASELINE}: probe accuracy minus that of {BASELINE} with the same fusion."
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
        [*map(Entry, (row["fusion"], row["method"])), *(_shown(read(row, m.name), seeds, m) for m in metrics)]
        for row in table.to_dict("records")
    ]
    caption = " ".join([common, *(f"{metric.label}: {metric.caption}" for metric in metrics)])
    if plain := [metric.label for metric in metrics if metric.unit != "%"]:
        caption += f" Not in percent: {', '.join(plain)}."
    columns = ["fusion", "method", *(f"{m.label}{'' if m.higher else ' (lower is better)'}" for m in metrics)]
    return [Table(f"Other metrics: {where}", caption, columns, rows, 2)] if metrics and rows else []


def _shown(summary: Summary, seeds: int, metric: Metric) -> Entry:
    """`entry`, in the metric's unit."""
    if metric.unit == "%" or math.isnan(summary.mean):
        return entry(summary, seeds)
    mean = _decimal(summary.mean)
    if math.isnan(summary.sd):
        return Entry(mean, interval(summary) if seeds == 1 else "(incomplete)")
    if math.isnan(summary.ci_low):
        return Entry(mean, f"({', '.join(map(_decimal, pair(summary)))})")
    return Entry(f"{mean} ± {summary.sd:.3f}", f"[{_decimal(summary.ci_low)}, {_decimal(summary.ci_high)}]")


def _decimal(value: float) -> str:
    return f"{value:.3f}".replace("-", MINUS)


def _plain(value: float, digits: int) -> Entry:
    """A number that has no interval to show."""
    return Entry(NONE if math.isnan(value) else f"{value:.{digits}f}")
