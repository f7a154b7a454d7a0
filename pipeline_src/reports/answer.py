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
    significant,
)
from pipeline_src.reports.statistics import FEWEST, POWER, Summary
from pipeline_src.reports.tables import Entry, Table, corrections, entry, sensitivity
from pipeline_src.reports.wording import MINUS, NONE, interval, level, number, p_value, percent, plural
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
    elif tested.empty and table.complete.all():
        headline = f"Nothing to compare: the study has no method besides {BASELINE}."
    elif seeds < FEWEST:
        headline = f"No conclusion about any method: the study has {'one seed' if seeds == 1 else 'two seeds'}."
    elif tested[f"{GAIN}_p"].isna().all():
        headline = "No answer: too many runs diverged to compare any method."
    else:
        headline = _headline(tested[tested.method != ENSEMBLE], confidence)
    points = [
        *_diverged(table),
        *_gains(tested, confidence),
        *_encoders(table, confidence),
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
        yield (
            f"Training diverged: {listed(each, 4)}. Differences are of the seeds that both have; if a method's worst"
            " runs are those that diverge, they flatter it."
        )


def _headline(tested: pd.DataFrame, confidence: float) -> str:
    remain = [row for row in tested.to_dict("records") if significant(row, GAIN, confidence)]
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
    """`pmr with concat (+1.3 points [+0.6, +2.1])`, with `in 6 of 8 seeds` where it is of fewer than all."""
    gain, short = read(row, GAIN), shortfall(row)
    return (
        f"{row['method']} with {row['fusion']} ({percent(gain.mean, True)} points {interval(gain, True)}"
        f"{f'; {short}' if short else ''})"
    )


def _gains(tested: pd.DataFrame, confidence: float) -> Iterator[str]:
    if tested.empty:
        return
    methods = tested[tested.method != ENSEMBLE]
    if len(methods) > 1:
        best, worst = methods[f"{GAIN}_mean"].idxmax(), methods[f"{GAIN}_mean"].idxmin()
        yield f"{_named(methods.loc[best])} gains most, {_named(methods.loc[worst])} least."
    elif len(methods):
        yield f"One method: {_named(methods.iloc[0])}."
    for row in tested[tested.method == ENSEMBLE].to_dict("records"):
        verdict = f", {_verdict(row, GAIN, confidence)}" if not math.isnan(row[f"{GAIN}_p"]) else ""
        yield f"Reference: {_named(row)}{verdict}."
    rows = [row for row in tested.to_dict("records") if not math.isnan(row[f"{GAIN}_p"])]
    if rows:
        below = sum(row[f"{GAIN}_p"] < 1 - confidence for row in rows)
        yield (
            f"p below {1 - confidence:.2g} before any correction: {below} of {plural(len(rows), 'comparison')};"
            f" significant after the correction for {corrections(tested, [GAIN])}:"
            f" {sum(significant(row, GAIN, confidence) for row in rows)}."
        )
        yield sensitivity(tested, GAIN, confidence)


def _encoders(table: pd.DataFrame, confidence: float) -> Iterator[str]:
    rows = table[table.method == BASELINE].to_dict("records")
    each, remain, tested = [], 0, 0
    for row in rows:
        for m in modalities_of(table):
            gap = read(row, f"{m}/{GAP}")
            if not math.isnan(gap.mean):
                each.append(f"{m} with {row['fusion']} {percent(gap.mean, True)} {interval(gap, True)}")
                remain += significant(row, f"{m}/{GAP}", confidence)
                tested += not math.isnan(row[f"{m}/{GAP}_p"])
    if each:
        family = corrections(table, [f"{m}/{GAP}" for m in modalities_of(table)])
        after = f" Significant after the correction for {family}: {remain} of {tested}." if tested else ""
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
    columns = ["model", "difference", "verdict", "points", "p, uncorrected", "p, corrected", "effect g", "detectable"]
    columns += ["seeds for 1 point", "over samples"]
    families = {
        "accuracy": corrections(table, [GAIN]),
        f"probe {MINUS} alone": corrections(table, [f"{m}/{GAP}" for m in modalities]),
        f"probe {MINUS} {BASELINE}": corrections(table, [f"{m}/{PROBE_GAIN}" for m in modalities]),
    }
    numbers = "; ".join(f"{kind}: {count}" for kind, count in families.items() if count)
    caption = (
        "Differences in points, paired by seed. p, uncorrected: paired t test of one difference. p, corrected: by"
        f" Bonferroni's method, p times the number of comparisons ({numbers}). The {level(confidence)} interval is"
        " corrected in the same way, so a difference is significant exactly where its interval excludes 0. Where the"
        " differences of all seeds are equal, their standard deviation is that of rounding to whole samples. Effect:"
        " Hedges' g, the mean of the differences divided by their standard deviation and corrected for small samples;"
        f" with {plural(seeds, 'seed')} it is uncertain. Detectable: the true difference, in points, that these seeds"
        f" find significant with {100 * POWER:.0f} % probability at this standard deviation; seeds for 1 point: the"
        f" number of seeds with which one point is detectable. Over samples: {level(confidence)} interval of the same"
        " difference over the choice of test samples (normal, paired by sample, mean over seeds). It treats samples as"
        " independent, so it is too narrow where several come from one speaker or writer. It is left out where the"
        " seeds differ in their test samples: there, the interval over seeds covers the choice of samples."
        if numbers
        else f"Differences in points, paired by seed. {plural(seeds, 'seed')} cannot be tested."
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


def _comparison(row: dict, kind: str, what: str, seeds: int, confidence: float) -> list[Entry]:
    clips = Summary(0, ci_low=row.get(f"{kind}_clips_low", math.nan), ci_high=row.get(f"{kind}_clips_high", math.nan))
    effect = row[f"{kind}_g_z"]
    return [
        Entry(f"{row['fusion']}, {row['method']}"),
        Entry(what),
        Entry(_verdict(row, kind, confidence)),
        entry(read(row, kind), seeds, True, significant(row, kind, confidence)),
        Entry(p_value(row[f"{kind}_p"])),
        Entry(p_value(row[f"{kind}_p_corrected"])),
        Entry(NONE if math.isnan(effect) else f"{effect:+.1f}".replace("-", MINUS)),
        Entry(percent(row[f"{kind}_detectable"])),
        Entry(number(row[f"{kind}_seeds_needed"])),
        Entry(NONE if math.isnan(clips.ci_low) else interval(clips, True)),
    ]
