"""What the study answers, in sentences, and every comparison that they rest on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from pipeline_src.core.errors import listed
from pipeline_src.reports.statistics import Summary
from pipeline_src.reports.tables import (
    BASELINE,
    CELL,
    GAIN,
    GAP,
    MINUS,
    NONE,
    PROBE_GAIN,
    interval,
    level,
    modalities_of,
    p_value,
    percent,
    read,
    supported,
)


@dataclass(frozen=True)
class Comparison:
    """One difference, paired by seed; figures as people read them."""

    where: str  # fusion, method
    what: str
    difference: str
    interval: str
    p: str
    corrected: str
    effect: str  # Hedges' g_z
    clips: str  # interval over the choice of test clips
    verdict: str
    supported: bool


@dataclass(frozen=True)
class Answer:
    """The sentences on one dataset: the first is the answer, the others what it rests on."""

    name: str
    headline: str
    points: list[str]


def answers(table: pd.DataFrame, seeds: int, confidence: float) -> list[Answer]:
    """One Answer per dataset of an accuracy table."""
    return [_answer(f"{name}", part, seeds, confidence) for (name, _), part in table.groupby(CELL[:2], sort=False)]


def _answer(name: str, part: pd.DataFrame, seeds: int, confidence: float) -> Answer:
    tested = part[part[f"{GAIN}_mean"].notna()]
    if not part.complete.all():
        missing = int((~part.complete).sum())
        headline = f"No answer yet: runs of {missing} of {len(part)} rows are missing."
    elif tested.empty:
        headline = f"Nothing to compare: the study has no method beside {BASELINE}."
    elif seeds == 1:
        headline = "One seed: nothing can be concluded about any method."
    else:
        headline = _headline(tested, confidence)
    points = [*_gains(tested, seeds, confidence), *_encoders(part, seeds, confidence), *_rule(part)]
    return Answer(name, headline, points)


def _headline(tested: pd.DataFrame, confidence: float) -> str:
    stands = [row for row in tested.to_dict("records") if supported(row, GAIN, confidence)]
    up = [row for row in stands if row[f"{GAIN}_mean"] > 0]
    down = [row for row in stands if row[f"{GAIN}_mean"] < 0]
    found = []
    for rows, verb in ((up, "helps"), (down, "hurts")):
        if rows:
            rows = sorted(rows, key=lambda row: -abs(row[f"{GAIN}_mean"]))
            found.append(
                f"{listed([_named(row) for row in rows], 4)} {verb if len(rows) == 1 else verb.removesuffix('s')}"
            )
    if not up:
        found.insert(0, f"No method is shown to help over {BASELINE} training")
    return "; ".join(found) + "."


def _named(row: dict) -> str:
    """`pmr with concat (+1.3 points [+0.6, +2.1])`."""
    one = read(row, GAIN)
    return f"{row['method']} with {row['fusion']} ({percent(one.mean, True)} points {interval(one, True)})"


def _gains(tested: pd.DataFrame, seeds: int, confidence: float) -> Iterator[str]:
    if tested.empty:
        return
    best = tested.loc[tested[f"{GAIN}_mean"].idxmax()]
    worst = tested.loc[tested[f"{GAIN}_mean"].idxmin()]
    several = len(tested) > 1
    range_ = f"The largest gain is that of {_named(best)}, the smallest that of {_named(worst)}."
    range_ = range_ if several else f"The one comparison: {_named(best)}."
    if seeds == 1:
        yield range_
        return
    alone = int((tested[f"{GAIN}_p"] < 1 - confidence).sum())
    stands = int((tested[f"{GAIN}_p_holm"] < 1 - confidence).sum())
    if several:
        range_ += (
            f" Of {len(tested)} comparisons {alone} would look like a difference each by itself; {stands}"
            f" stand{'s' if stands == 1 else ''} after Holm's correction for all (p below {1 - confidence:.2g})."
        )
    yield range_
    half = 100 * ((tested[f"{GAIN}_ci_high"] - tested[f"{GAIN}_ci_low"]) / 2).median()
    few = f" With {seeds} seeds the deviation itself is hardly known." if seeds < 5 else ""
    yield (
        f"How far to trust it: half of the {level(confidence)} intervals are wider than ± {half:.1f} points, so smaller"
        f" differences than that cannot be seen here; more seeds narrow them.{few}"
    )


def _encoders(part: pd.DataFrame, seeds: int, confidence: float) -> Iterator[str]:
    rows = part[part.method == BASELINE].to_dict("records")
    said, stands = [], 0
    for row in rows:
        for m in modalities_of(part):
            one = read(row, f"{m}/{GAP}")
            if not math.isnan(one.mean):
                said.append(f"{m} with {row['fusion']} {percent(one.mean, True)} {interval(one, True)}")
                stands += supported(row, f"{m}/{GAP}", confidence)
    if said:
        after = f" {stands} of {len(said)} stand after Holm's correction for all such differences of the study."
        more = f"; and {len(said) - 4} more in the table" if len(said) > 4 else ""
        yield (
            f"Encoders inside {BASELINE} models against those trained alone, linear probe, points:"
            f" {'; '.join(said[:4])}{more}."
            f" Below 0 is the imbalance that the methods are meant to cure.{after if seeds > 1 else ''}"
        )


def _rule(part: pd.DataFrame) -> Iterator[str]:
    more = (part.accuracy_best_test_epoch_mean - part.accuracy_mean).mean()
    if not math.isnan(more):
        yield (
            "The epoch was chosen on val, and test scored once. The papers' rule, the best epoch on test, would have"
            f" shown {percent(more, True)} points on average."
        )


def comparisons(part: pd.DataFrame, seeds: int, confidence: float) -> list[Comparison]:
    """Every difference of one dataset's rows: accuracy and probes with BASELINE's, probes with those alone."""
    found = []
    modalities = modalities_of(part)
    for row in part.to_dict("records"):
        has = [m for m in modalities if not math.isnan(read(row, f"{m}/accuracy_probe").mean)]
        kinds = [] if len(has) == 1 else [(f"{m}/{GAP}", f"{m} probe {MINUS} alone") for m in has]
        if row["method"] != BASELINE and len(has) != 1:
            kinds = [
                (GAIN, f"accuracy {MINUS} {BASELINE}"),
                *[(f"{m}/{PROBE_GAIN}", f"{m} probe {MINUS} {BASELINE}") for m in has],
                *kinds,
            ]
        found += [_comparison(row, kind, what, seeds, confidence) for kind, what in kinds]
    return found


def _comparison(row: dict, kind: str, what: str, seeds: int, confidence: float) -> Comparison:
    one = read(row, kind)
    stands = supported(row, kind, confidence)
    if math.isnan(one.mean):
        verdict = "its seeds are incomplete" if not row["complete"] else "nothing complete to compare with"
    elif seeds == 1:
        verdict = "one seed supports no conclusion"
    else:
        verdict = ("above" if one.mean > 0 else "below") if stands else "no difference supported"
    clips = Summary(2, ci_low=row.get(f"{kind}_clips_low", math.nan), ci_high=row.get(f"{kind}_clips_high", math.nan))
    effect = row[f"{kind}_g_z"]
    return Comparison(
        where=f"{row['fusion']}, {row['method']}",
        what=what,
        difference=percent(one.mean, True),
        interval=interval(one, True),
        p=p_value(row[f"{kind}_p"]),
        corrected=p_value(row[f"{kind}_p_holm"]),
        effect=NONE if math.isnan(effect) else f"{effect:+.1f}".replace("-", MINUS),
        clips=interval(clips, True) if not math.isnan(clips.ci_low) else NONE,
        verdict=verdict,
        supported=stands,
    )
