"""What the study answers, in sentences, and every comparison that they rest on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from pipeline_src.core.errors import listed
from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.reports.scores import (
    BASELINE,
    CELL,
    GAIN,
    GAP,
    PROBE_GAIN,
    modalities_of,
    read,
    shortfall,
    supported,
)
from pipeline_src.reports.statistics import Summary
from pipeline_src.reports.tables import Entry, Table
from pipeline_src.reports.wording import MINUS, NONE, interval, level, p_value, percent, plural
from pipeline_src.study.runs import DIVERGED


@dataclass(frozen=True)
class Answer:
    """The sentences on one dataset: the first is the answer, the others what it rests on."""

    name: str
    headline: str
    points: list[str]


def answers(table: pd.DataFrame, seeds: int, confidence: float) -> list[Answer]:
    """One Answer per dataset of an accuracy table."""
    return [_answer(f"{name}", rows, seeds, confidence) for (name, _), rows in table.groupby(CELL[:2], sort=False)]


def _answer(name: str, table: pd.DataFrame, seeds: int, confidence: float) -> Answer:
    tested = table[table[f"{GAIN}_mean"].notna()]
    trained = table[table.method != ENSEMBLE]  # the others are a reference
    lacking = int((~trained.complete & ~_ended(trained, seeds)).sum())
    if lacking:
        headline = f"No answer yet: runs of {lacking} of {len(trained)} configurations are missing."
    elif tested.empty and not table.complete.all():
        headline = "No answer: too many runs diverged to compare any method."
    elif tested.empty:
        headline = f"Nothing to compare: the study has no method besides {BASELINE}."
    elif seeds == 1:
        headline = "No conclusion about any method: the study has one seed."
    else:
        headline = _headline(tested[tested.method != ENSEMBLE], confidence)
    points = [
        *_diverged(table),
        *_gains(tested, seeds, confidence),
        *_encoders(table, seeds, confidence),
        *_rule(table),
    ]
    return Answer(name, headline, points)


def _ended(table: pd.DataFrame, seeds: int) -> pd.Series:
    """Whether all that a row lacks are runs that diverged: nothing is left to do."""
    return table.seeds.str.split(" of ").str[0].astype(int) + table[DIVERGED] == seeds


def _diverged(table: pd.DataFrame) -> Iterator[str]:
    rows = [row for row in table.to_dict("records") if row[DIVERGED]]
    if rows:
        each = [f"{row['method']} with {row['fusion']} {shortfall(row)}" for row in rows]
        yield f"Training diverged: {listed(each, 4)}. These configurations are compared with nothing."


def _headline(tested: pd.DataFrame, confidence: float) -> str:
    remain = [row for row in tested.to_dict("records") if supported(row, GAIN, confidence)]
    up = [row for row in remain if row[f"{GAIN}_mean"] > 0]
    down = [row for row in remain if row[f"{GAIN}_mean"] < 0]
    phrases = []
    for rows, verb in ((up, "helps"), (down, "hurts")):
        if rows:
            rows = sorted(rows, key=lambda row: -abs(row[f"{GAIN}_mean"]))
            names = listed([_named(row) for row in rows], 4)
            phrases.append(f"{names} {verb if len(rows) == 1 else verb.removesuffix('s')}")
    if not up:
        phrases.insert(0, f"No method is shown to help over {BASELINE} training")
    return "; ".join(phrases) + "."


def _named(row: dict) -> str:
    """`pmr with concat (+1.3 points [+0.6, +2.1])`."""
    gain = read(row, GAIN)
    return f"{row['method']} with {row['fusion']} ({percent(gain.mean, True)} points {interval(gain, True)})"


def _gains(tested: pd.DataFrame, seeds: int, confidence: float) -> Iterator[str]:
    if tested.empty:
        return
    best = tested.loc[tested[f"{GAIN}_mean"].idxmax()]
    worst = tested.loc[tested[f"{GAIN}_mean"].idxmin()]
    several = len(tested) > 1
    text = f"{_named(best)} gains most, {_named(worst)} least." if several else f"One comparison: {_named(best)}."
    if seeds == 1:
        yield text
        return
    alone = int((tested[f"{GAIN}_p"] < 1 - confidence).sum())
    corrected = int((tested[f"{GAIN}_p_holm"] < 1 - confidence).sum())
    if several:
        text += (
            f" Significant uncorrected: {alone} of {len(tested)}; after Holm's correction: {corrected}"
            f" (p below {1 - confidence:.2g})."
        )
    yield text
    half = 100 * ((tested[f"{GAIN}_ci_high"] - tested[f"{GAIN}_ci_low"]) / 2).median()
    few = f" {seeds} seeds estimate the standard deviation poorly." if seeds < 5 else ""
    if round(half, 1) == 0:  # of equal differences: too few samples or seeds to say anything of smaller ones
        return
    yield (
        f"Half of the {level(confidence)} intervals are wider than ± {half:.1f} points, so this study cannot detect"
        f" smaller differences; more seeds narrow them.{few}"
    )


def _encoders(table: pd.DataFrame, seeds: int, confidence: float) -> Iterator[str]:
    rows = table[table.method == BASELINE].to_dict("records")
    each, remain = [], 0
    for row in rows:
        for m in modalities_of(table):
            gap = read(row, f"{m}/{GAP}")
            if not math.isnan(gap.mean):
                each.append(f"{m} with {row['fusion']} {percent(gap.mean, True)} {interval(gap, True)}")
                remain += supported(row, f"{m}/{GAP}", confidence)
    if each:
        after = f" After Holm's correction, {remain} of {len(each)} remain significant." if seeds > 1 else ""
        more = f"; and {len(each) - 4} more in the table" if len(each) > 4 else ""
        yield (
            "Change in linear-probe accuracy by joint training, compared with an encoder trained alone, in points:"
            f" {'; '.join(each[:4])}{more}. A value below 0 is the imbalance that the methods address.{after}"
        )


def _rule(table: pd.DataFrame) -> Iterator[str]:
    more = (table.accuracy_best_test_epoch_mean - table.accuracy_mean).mean()
    if not math.isnan(more):
        yield (
            "The epoch was selected on val, and test was scored once. The papers' rule, the best epoch on test, would"
            f" have shown {percent(more, True)} points on average."
        )


def comparisons(table: pd.DataFrame, seeds: int, confidence: float) -> Table:
    """Every difference of one dataset's rows: accuracy and probes minus BASELINE's, probes minus those alone.

    The differences are the fourth column, strong where they are significant after correction.
    """
    rows = []
    modalities = modalities_of(table)
    for row in table.to_dict("records"):
        has = [m for m in modalities if not math.isnan(read(row, f"{m}/accuracy_probe").mean)]
        kinds = [] if len(has) == 1 else [(f"{m}/{GAP}", f"{m} probe {MINUS} alone") for m in has]
        if row["method"] != BASELINE and len(has) != 1:
            kinds = [
                (GAIN, f"accuracy {MINUS} {BASELINE}"),
                *[(f"{m}/{PROBE_GAIN}", f"{m} probe {MINUS} {BASELINE}") for m in has],
                *kinds,
            ]
        rows += [_comparison(row, kind, what, seeds, confidence) for kind, what in kinds]
    columns = ["model", "difference", "verdict", "points", "p, uncorrected", "p, corrected", "effect g", "over samples"]
    caption = (
        f"Differences in points, paired by seed, with the {level(confidence)} Student t interval. p, uncorrected:"
        " paired t test of one difference. p, corrected: by Holm's method over all differences of the same kind"
        f" (accuracy; probe {MINUS} alone; probe {MINUS} {BASELINE}) on this dataset; the verdict rests on it. Effect:"
        " Hedges' g, the mean of the differences divided by their standard deviation and corrected for small samples;"
        f" with {plural(seeds, 'seed')} it is uncertain. Over samples: {level(confidence)} interval of the same"
        " difference over the choice of test samples (normal, paired by sample, mean over seeds). It treats samples as"
        " independent, so it is too narrow where several come from one speaker or writer."
    )
    return Table("Every comparison", caption, columns, rows, 3)


def _comparison(row: dict, kind: str, what: str, seeds: int, confidence: float) -> list[Entry]:
    gap = read(row, kind)
    remains = supported(row, kind, confidence)
    if math.isnan(gap.mean):
        verdict = shortfall(row) or "nothing complete to compare with"
    elif seeds == 1:
        verdict = "one seed supports no conclusion"
    else:
        verdict = ("above" if gap.mean > 0 else "below") if remains else "no difference supported"
    clips = Summary(2, ci_low=row.get(f"{kind}_clips_low", math.nan), ci_high=row.get(f"{kind}_clips_high", math.nan))
    effect = row[f"{kind}_g_z"]
    return [
        Entry(f"{row['fusion']}, {row['method']}"),
        Entry(what),
        Entry(verdict),
        Entry(percent(gap.mean, True), interval(gap, True), remains),
        Entry(p_value(row[f"{kind}_p"])),
        Entry(p_value(row[f"{kind}_p_holm"])),
        Entry(NONE if math.isnan(effect) else f"{effect:+.1f}".replace("-", MINUS)),
        Entry(NONE if math.isnan(clips.ci_low) else interval(clips, True)),
    ]
