"""What the study answers, in sentences, and every comparison that they rest on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from pipeline_src.core.errors import listed
from pipeline_src.reports.declared import Primary
from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.reports.scores import (
    BASELINE,
    CELL,
    GAP,
    PROBE_GAIN,
    modalities_of,
    primary_of,
    read,
    shortfall,
    significant,
)
from pipeline_src.reports.statistics import FEWEST, POINT, POWER, Summary
from pipeline_src.reports.tables import Entry, Table, corrections, entry, sensitivity
from pipeline_src.reports.wording import MINUS, NONE, interval, level, number, p_value, plural, points, value
from pipeline_src.study.outputs import NO_FUSION
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
    one = primary_of(table)
    tested = table[table[f"{one.gain}_mean"].notna()]
    trained = table[table.method != ENSEMBLE]  # the others are a reference
    lacking = int((~trained.complete & ~_ended(trained, seeds)).sum())
    if lacking:
        headline = f"No answer yet: runs of {lacking} of {len(trained)} configurations are missing."
    elif tested.empty and table.complete.all():
        headline = "Nothing to compare: " + (
            f"the study has no method besides {BASELINE}."
            if BASELINE in set(table.method) or (table.fusion == NO_FUSION).all()
            else f"the study does not have {BASELINE}, with which methods are compared; add it to study.methods."
        )
    elif seeds < FEWEST:
        headline = f"No conclusion about any method: the study has {'one seed' if seeds == 1 else 'two seeds'}."
    elif (tested[f"{one.gain}_n"] < FEWEST).all():
        headline = "No answer: too many runs diverged to compare any method."
    elif tested[f"{one.gain}_p"].isna().all():
        headline = f"No test: the differences from {BASELINE} are equal in every seed, so that they show no spread."
    else:
        headline = _headline(tested[tested.method != ENSEMBLE], one, confidence)
    points = [
        *_diverged(table),
        *_gains(tested, one, confidence),
        *_encoders(table, one, confidence),
        *_rule(table, one),
    ]
    return Answer(name, headline, points)


def _ended(table: pd.DataFrame, seeds: int) -> pd.Series:
    """Whether all that a row lacks are runs that diverged: nothing is left to do."""
    return table.seeds.str.split(" of ").str[0].astype(int) + table[DIVERGED] == seeds


def _diverged(table: pd.DataFrame) -> Iterator[str]:
    rows = [row for row in table.to_dict("records") if row[DIVERGED]]
    if rows:
        each = [f"{row['method']} with {row['fusion']} {shortfall(row)}" for row in rows]
        yield (
            f"Training diverged: {listed(each, 4)}. Differences are of the seeds that both have; if a method's worst"
            " runs are those that diverge, they flatter it."
        )


def _headline(tested: pd.DataFrame, one: Primary, confidence: float) -> str:
    remain = [row for row in tested.to_dict("records") if significant(row, one.gain, confidence)]
    up = [row for row in remain if one.better(row[f"{one.gain}_mean"])]
    down = [row for row in remain if one.better(-row[f"{one.gain}_mean"])]
    phrases = []
    for rows, verb in ((up, "helps"), (down, "hurts")):
        if rows:
            rows = sorted(rows, key=lambda row: -abs(row[f"{one.gain}_mean"]))
            names = listed([_named(row, one) for row in rows], 4)
            phrases.append(f"{names} {verb if len(rows) == 1 else verb.removesuffix('s')}")
    if not up:
        phrases.insert(0, f"No method is shown to help over {BASELINE} training")
    return "; ".join(phrases) + "."


def _named(row: dict, one: Primary) -> str:
    """`pmr with concat (+1.3 points [+0.6, +2.1])`, with `in 6 of 8 seeds` where it is of fewer than all."""
    gain, short, unit = read(row, one.gain), shortfall(row), one.metric.unit
    told = points(unit) or f" {one.metric.label}"
    return (
        f"{row['method']} with {row['fusion']} ({value(gain.mean, unit, True)}{told} {interval(gain, True, unit)}"
        f"{f'; {short}' if short else ''})"
    )


def _gains(tested: pd.DataFrame, one: Primary, confidence: float) -> Iterator[str]:
    if tested.empty:
        return
    methods = tested[tested.method != ENSEMBLE]
    if len(methods) > 1:
        gains = methods[f"{one.gain}_mean"] if one.metric.higher else -methods[f"{one.gain}_mean"]
        best, worst = methods.loc[gains.idxmax()], methods.loc[gains.idxmin()]
        yield f"{_named(best, one)} gains most, {_named(worst, one)} least."
    elif len(methods):
        yield f"One method: {_named(methods.iloc[0], one)}."
    for row in tested[tested.method == ENSEMBLE].to_dict("records"):
        verdict = f", {_verdict(row, one.gain, confidence)}" if not math.isnan(row[f"{one.gain}_p"]) else ""
        yield f"Reference: {_named(row, one)}{verdict}."
    rows = [row for row in tested.to_dict("records") if not math.isnan(row[f"{one.gain}_p"])]
    if rows:
        below = sum(row[f"{one.gain}_p"] < 1 - confidence for row in rows)
        yield (
            f"p below {1 - confidence:.2g} before any correction: {below} of {plural(len(rows), 'comparison')};"
            f" significant after the correction for {corrections(tested, [one.gain])}:"
            f" {sum(significant(row, one.gain, confidence) for row in rows)}."
        )
        yield sensitivity(tested, one.gain, confidence)


def _encoders(table: pd.DataFrame, one: Primary, confidence: float) -> Iterator[str]:
    unit = one.metric.unit
    rows = table[table.method == BASELINE].to_dict("records")
    each, remain, tested = [], 0, 0
    for row in rows:
        for m in modalities_of(table):
            gap = read(row, f"{m}/{GAP}")
            if not math.isnan(gap.mean):
                each.append(f"{m} with {row['fusion']} {value(gap.mean, unit, True)} {interval(gap, True, unit)}")
                remain += significant(row, f"{m}/{GAP}", confidence)
                tested += not math.isnan(row[f"{m}/{GAP}_p"])
    if each:
        family = corrections(table, [f"{m}/{GAP}" for m in modalities_of(table)])
        after = f" Significant after the correction for {family}: {remain} of {tested}." if tested else ""
        more = f"; and {len(each) - 4} more in the table" if len(each) > 4 else ""
        yield (
            f"Change in linear-probe {one.metric.label} by joint training, compared with an encoder trained alone"
            f"{points(unit, ', in ')}: {'; '.join(each[:4])}{more}. A value"
            f" {'below' if one.metric.higher else 'above'} 0 is the imbalance that the methods address.{after}"
        )


def _rule(table: pd.DataFrame, one: Primary) -> Iterator[str]:
    more, unit = (table[f"{one.best}_mean"] - table[f"{one.score}_mean"]).mean(), one.metric.unit
    if not math.isnan(more):
        yield (
            "The epoch was selected on val, and test was scored once. The papers' rule, the best epoch on test, would"
            f" have shown {value(more, unit, True)}{points(unit)} on average."
        )


def comparisons(table: pd.DataFrame, seeds: int, confidence: float) -> Table:
    """Every difference of one dataset's rows: accuracy and probes minus BASELINE's, probes minus those alone.

    The differences are the fourth column, strong where they are significant after correction.
    """
    rows = []
    modalities, one = modalities_of(table), primary_of(table)
    label, unit = one.metric.label, one.metric.unit
    for row in table.to_dict("records"):
        has = [m for m in modalities if not math.isnan(read(row, f"{m}/{one.view('probe')}").mean)]
        kinds = [] if len(has) == 1 else [(f"{m}/{GAP}", f"{m} probe {MINUS} alone") for m in has]
        if row["method"] != BASELINE and len(has) != 1:
            kinds = [
                (one.gain, f"{label} {MINUS} {BASELINE}"),
                *[(f"{m}/{PROBE_GAIN}", f"{m} probe {MINUS} {BASELINE}") for m in has],
                *kinds,
            ]
        rows += [_comparison(row, kind, what, seeds, confidence, unit) for kind, what in kinds]
    size, least = ("points", "1 point") if unit == "%" else ("value", f"{POINT}")
    columns = ["model", "difference", "verdict", size, "p, uncorrected", "p, corrected", "effect g", "detectable"]
    columns += [f"seeds for {least}", "over samples"]
    families = {
        label: corrections(table, [one.gain]),
        f"probe {MINUS} alone": corrections(table, [f"{m}/{GAP}" for m in modalities]),
        f"probe {MINUS} {BASELINE}": corrections(table, [f"{m}/{PROBE_GAIN}" for m in modalities]),
    }
    numbers = "; ".join(f"{kind}: {count}" for kind, count in families.items() if count)
    caption = (
        f"Differences{points(unit, ' in ')}, paired by seed. p, uncorrected: paired t test of one difference. p,"
        f" corrected: by Bonferroni's method, p times the number of comparisons ({numbers}). The {level(confidence)}"
        " interval is corrected in the same way, so a difference is significant exactly where its interval excludes 0."
        " Where the differences of all seeds are equal, their standard deviation is that of rounding to whole samples."
        " Effect:"
        " Hedges' g, the mean of the differences divided by their standard deviation and corrected for small samples;"
        f" with {plural(seeds, 'seed')} it is uncertain. Detectable: the true difference{points(unit, ' in ')}"
        f" that these seeds find significant with {100 * POWER:.0f} % probability at this standard deviation; seeds for"
        f" {least}: the number of seeds with which this difference is detectable. Over samples: {level(confidence)}"
        " interval of the same difference over the choice of test samples (normal, paired by sample, mean over seeds)."
        " It treats samples as"
        " independent, so it is too narrow where several come from one speaker or writer. It is left out where the"
        " seeds differ in their test samples: there, the interval over seeds covers the choice of samples."
        if numbers
        else f"Differences{points(unit, ' in ')}, paired by seed. {plural(seeds, 'seed')} cannot be tested."
    )
    return Table("Every comparison", caption, columns, rows, 3)


def _verdict(row: dict, kind: str, confidence: float) -> str:
    """What a difference says: the only words for it, in every table and sentence."""
    mean, p = row[f"{kind}_mean"], row[f"{kind}_p"]
    if math.isnan(mean):
        return shortfall(row) or "nothing complete to compare with"
    if math.isnan(p):
        return f"{shortfall(row) or plural(int(row[f'{kind}_n']), 'seed')}: no test"
    if significant(row, kind, confidence):
        return "significantly above" if mean > 0 else "significantly below"
    equal = mean == 0 and row[f"{kind}_sd"] == 0
    return "equal in every seed" if equal else "not significant"


def _comparison(row: dict, kind: str, what: str, seeds: int, confidence: float, unit: str) -> list[Entry]:
    clips = Summary(0, ci_low=row.get(f"{kind}_clips_low", math.nan), ci_high=row.get(f"{kind}_clips_high", math.nan))
    effect = row[f"{kind}_g_z"]
    return [
        Entry(f"{row['fusion']}, {row['method']}"),
        Entry(what),
        Entry(_verdict(row, kind, confidence)),
        entry(read(row, kind), seeds, True, significant(row, kind, confidence), unit),
        Entry(p_value(row[f"{kind}_p"])),
        Entry(p_value(row[f"{kind}_p_corrected"])),
        Entry(NONE if math.isnan(effect) else f"{effect:+.1f}".replace("-", MINUS)),
        Entry(value(row[f"{kind}_detectable"], unit)),
        Entry(number(row[f"{kind}_seeds_needed"])),
        Entry(NONE if math.isnan(clips.ci_low) else interval(clips, True, unit)),
    ]
