"""The results tables as people read them, in percent. The HTML report, Markdown and LaTeX write the same `Table`s.

Modalities and methods are whatever the metrics name.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

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
    supported,
)
from pipeline_src.reports.statistics import Summary
from pipeline_src.reports.wording import MARK, MINUS, NONE, interval, level, p_value, percent
from pipeline_src.tasks.base import Metric

FAMILY = (
    "p is that of the paired t test, adjusted by Holm's method for all differences of its kind on the dataset, of all"
    " fusions and modalities"
)


@dataclass(frozen=True)
class Entry:
    """An entry of a table as people read it: the value and, apart, its interval or what is wrong with it."""

    value: str
    interval: str = ""
    strong: bool = False  # a difference that the corrected test supports, or the best value where it does

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


def tables(
    table: pd.DataFrame,
    seeds: int,
    confidence: float,
    extensions: dict[tuple[str, str], str] | None = None,
    metrics: Sequence[Metric] = (),
) -> list[Table]:
    """Tables per dataset of an accuracy table: the fused models, each of their modalities, and the fused models by all
    but the first of the `metrics` that their task declares.

    `extensions` {(dataset, method): text} says of a method what no paper gives; it is marked and the text shown.
    """
    made = []
    common = _captions(table, seeds, confidence)
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
    """`91.7 ± 0.9` and `[89.4, 94.0]`; marked where some of the `seeds` are missing."""
    if math.isnan(summary.mean):
        return Entry(NONE)
    mean = percent(summary.mean, sign)
    if math.isnan(summary.sd):
        return Entry(mean, interval(summary) if seeds == 1 else "(incomplete)")
    return Entry(f"{mean} ± {percent(summary.sd)}", interval(summary, sign), strong)


def _captions(table: pd.DataFrame, seeds: int, confidence: float) -> str:
    """What the numbers of an accuracy table are, and what they do not support."""
    if seeds > 1:
        text = (
            f"Test scores in percent: mean ± standard deviation over {seeds} seeds [{level(confidence)} Student t"
            " interval]."
        )
    else:
        text = f"Test scores in percent. One seed supports no conclusion: no deviation and no interval ({NONE})."
    if not table.complete.all():
        text += " Values marked incomplete are means over the runs that have scores; they are not results."
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
        remains = supported(row, GAIN, confidence)
        top = remains and row[f"{GAIN}_mean"] > 0 and i in set(best)
        accuracy = entry(read(row, "accuracy"), seeds, strong=top)
        gain = [entry(read(row, GAIN), seeds, True, remains), Entry(p_value(row[f"{GAIN}_p_holm"]))] if tested else []
        probes = [entry(read(row, f"{m}/accuracy_probe"), seeds) for m in modalities_of(table)]
        cost = [_plain(row["seconds_mean"], 0), _plain(row["passes_mean"], 2)]
        names = map(Entry, [row["fusion"], row["method"], *([] if whole else [shortfall(row) or row["seeds"]])])
        papers = [entry(read(row, BEST), seeds)] if best_test else []
        rows.append([*names, accuracy, *gain, *probes, *papers, *cost])
    columns = ["fusion", "method", *([] if whole else ["seeds"]), "accuracy"]
    caption = common
    if tested:
        columns += [f"{MINUS} {BASELINE}", "p, corrected"]
        caption += (
            f" {MINUS} {BASELINE}: accuracy minus that of {BASELINE} with the same fusion, in points, paired by seed;"
            f" {FAMILY}. Bold: a difference with p below {1 - confidence:.2g}, and the best accuracy of a fusion if its"
            " gain has such a p."
        )
    columns += [f"{m} probe" for m in modalities_of(table)]
    columns += [*(["best test epoch"] if best_test else []), "training, s", f"passes / {BASELINE}"]
    if (table.method == ENSEMBLE).any():
        caption += f" {CAPTION}"
    caption += " Probe: accuracy of a linear classifier on the features of the modality's frozen encoder."
    if best_test:
        caption += " Best test epoch: accuracy by the papers' rule, which selects the epoch on test data."
    caption += (
        " Training: mean seconds"
        " of a run, which depend on what else the machine did. Passes: samples in forward and backward passes, divided"
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
                scores.append(entry(read(row, what), seeds, True, supported(row, what, confidence)))
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
    caption += f" Bold: p below {1 - confidence:.2g}; {FAMILY}."
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
    mean = f"{summary.mean:.3f}".replace("-", MINUS)
    if math.isnan(summary.sd):
        return Entry(mean, interval(summary) if seeds == 1 else "(incomplete)")
    low, high = (f"{bound:.3f}".replace("-", MINUS) for bound in (summary.ci_low, summary.ci_high))
    return Entry(f"{mean} ± {summary.sd:.3f}", f"[{low}, {high}]")


def _plain(value: float, digits: int) -> Entry:
    """A number that has no interval to show."""
    return Entry(NONE if math.isnan(value) else f"{value:.{digits}f}")
