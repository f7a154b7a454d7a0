"""Equal tuning in the report: "same settings" and "equal tuning" side by side, and what was chosen.

Tuned runs have rows of their own in metrics.parquet, under `<method>-tuned`. Here they go by the names of the methods,
so that the same functions compare each tuned method with tuned joint training: a family of its own.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline_src.core.errors import listed
from pipeline_src.evaluation import FUSED
from pipeline_src.reports import ensemble
from pipeline_src.reports.answer import answers
from pipeline_src.reports.declared import Primary, counting, named_metric
from pipeline_src.reports.scores import BASELINE, CELL, Ended, accuracy_table, primary_of, read, shortfall, significant
from pipeline_src.reports.statistics import POWER, Difference, corrected, paired
from pipeline_src.reports.tables import Entry, Table, corrections, entry, how_tested, sensitivity
from pipeline_src.reports.wording import MINUS, NONE, interval, p_value, plural, points, value, words
from pipeline_src.study.choice import KEY
from pipeline_src.study.outputs import TUNED

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Run
    from pipeline_src.study.plan import Plan

SUFFIX = f"-{TUNED}"
EDGE = "on the edge"
Outcome = Mapping[str, Any]  # of a search; see `study.choice.choose`


@dataclass(frozen=True)
class Tuning:
    """What equal tuning gave: the accuracy table of the tuned runs, by CELL how each difference from BASELINE changes,
    and the outcome of each search.
    """

    table: pd.DataFrame
    changes: dict[tuple[str, ...], Difference]
    outcomes: dict[tuple[str, ...], Outcome]
    differing: list[tuple[str, ...]]  # cells whose seeds did not all choose alike
    trials: int
    seeds: list[int]  # of the trials


def half(plan: Plan, role: str) -> Plan:
    """The plan with the cells of one role alone: what the study compares as it is, or the tuned cells."""
    part = copy.copy(plan)
    values = vars(part)
    for name in ("cells", "rows", "runs"):
        values.pop(name, None)
    values["cells"] = [cell for cell in plan.cells if cell.role == role]
    values["runs"] = [run for run in plan.runs if run.cell.role == role]
    values["rows"] = list({cell.place: cell for cell in reversed(values["cells"])}.values())[::-1]
    return part


def ensembles(plan: Plan, finished: Sequence[Run]) -> list[dict[str, Any]]:
    """Metrics in long form of the ensembles of the tuned unimodal models."""
    tuned = half(plan, TUNED)
    rows = ensemble.rows(tuned, ensemble.ensembles(tuned, finished))
    return [row | {"method": row["method"] + SUFFIX} for row in rows]


def collected(
    plan: Plan,
    metrics: pd.DataFrame,
    finished: Sequence[Run],
    records: Mapping[tuple, Mapping[str, Any]],
    ended: Mapping[tuple, Ended],
    samples: Mapping[str, int],
    primaries: Mapping[str, Primary],
) -> Tuning | None:
    """The tuned runs of a study; None if it is not tuned. The arguments are as the report has them, without trials."""
    section = plan.params.tuning
    if section is None:
        return None
    tuned, study = half(plan, TUNED), plan.params.study
    rows = metrics[metrics.method.str.endswith(SUFFIX)].assign(method=lambda rows: rows.method.map(_plain))
    cells = [
        names | {"method": _plain(names["method"])}
        for names in ensemble.with_ensembles(tuned, ensemble.ensembles(tuned, finished))
    ]
    ends, confidence = halves(ended)[1], plan.params.reporting.confidence
    table = accuracy_table(rows, cells, study.seeds, confidence, ends, samples, primaries)
    scored = metrics[(metrics.split == "test") & (metrics.modality == FUSED)]
    scored = scored[scored.metric == scored.dataset.map(lambda name: primaries[name].score)]
    values = {(*key, seed): value for *key, seed, value in scored[[*CELL, "seed", "value"]].itertuples(index=False)}
    steps = {name: 1 / count for name, count in samples.items() if primaries[name].score in counting()}
    outcomes: dict[tuple[str, ...], Outcome] = {}
    differing: list[tuple[str, ...]] = []
    for key, record in records.items():
        cell = *key[:3], _plain(key[3])
        if KEY in record and outcomes.setdefault(cell, record[KEY])["values"] != record[KEY]["values"]:
            differing.append(cell)
    before, after = halves(values)
    changed = changes(before, after, study.seeds, confidence, steps)
    return Tuning(table, changed, outcomes, list(dict.fromkeys(differing)), section.trials, section.seeds)


def changes(
    same: Mapping[tuple, float],
    tuned: Mapping[tuple, float],
    seeds: Sequence[int],
    confidence: float,
    steps: Mapping[str, float],
) -> dict[tuple[str, ...], Difference]:
    """By CELL, how tuning changes the difference from BASELINE: that of the tuned runs less that at the same settings,
    paired by seed; a family by dataset, recipe and fusion.

    `same` and `tuned` are the scores of the two halves, {(*CELL, seed): score}; those of a dataset are multiples of
    its `steps`.
    """
    families: dict[tuple, dict[tuple, Difference]] = defaultdict(dict)
    for cell in dict.fromkeys(key[:4] for key in tuned):
        keys = [[(*which, seed) for which in (cell, (*cell[:3], BASELINE))] for seed in seeds]
        pairs = [pair for pair in keys if all(key in half for key in pair for half in (same, tuned))]
        if cell[3] == BASELINE or not pairs:
            continue
        own, reference = ([tuned[pair[i]] - same[pair[i]] for pair in pairs] for i in (0, 1))
        families[cell[:3]][cell] = paired(own, reference, math.sqrt(2) * steps.get(cell[0], 0.0))  # two roundings each
    return {
        cell: one
        for family in families.values()
        for cell, one in zip(family, corrected(list(family.values()), confidence, math.inf), strict=True)
    }


def _plain(method: str) -> str:
    return method.removesuffix(SUFFIX)


def halves(records: Mapping[tuple, Any]) -> list[dict[tuple, Any]]:
    """Values by (*CELL, seed) of the study as it is, and of the tuned runs under the names of the methods."""
    same = {key: value for key, value in records.items() if not key[3].endswith(SUFFIX)}
    tuned = {(*key[:3], _plain(key[3]), key[4]): value for key, value in records.items() if key not in same}
    return [same, tuned]


def said(tuning: Tuning, same: pd.DataFrame, seeds: int, confidence: float) -> tuple[list[Table], list[str]]:
    """The two tables of a dataset, and its sentences; `same` are its rows of the accuracy table."""
    name, recipe = same.dataset.iloc[0], same.recipe.iloc[0]
    where = f"{name} (recipe {recipe})"
    equal = tuning.table[(tuning.table.dataset == name) & (tuning.table.recipe == recipe)]
    made = [_side_by_side(tuning, same, equal, where, seeds, confidence), _chosen(tuning, equal, where)]
    (answer,) = answers(equal, seeds, confidence)
    return made, list(_points(tuning, answer.headline, same, equal, confidence))


def _both(same: pd.DataFrame, equal: pd.DataFrame) -> list[tuple[dict, dict]]:
    """The rows of each configuration that is in both tables."""
    after = {tuple(row[name] for name in CELL): row for row in equal.to_dict("records")}
    keys = [(row, tuple(row[name] for name in CELL)) for row in same.to_dict("records")]
    return [(row, after[key]) for row, key in keys if key in after]


def _side_by_side(
    tuning: Tuning, same: pd.DataFrame, equal: pd.DataFrame, where: str, seeds: int, confidence: float
) -> Table:
    one = primary_of(same)
    unit, rows = one.metric.unit, []
    for before, after in _both(same, equal):
        numbers = []
        for row in (before, after):
            gain = entry(read(row, one.gain), seeds, True, significant(row, one.gain, confidence), unit)
            score = entry(read(row, one.score), seeds, unit=unit)
            numbers += [score, gain, Entry(p_value(row[f"{one.gain}_p_corrected"]))]
        change = tuning.changes.get(tuple(before[name] for name in CELL), Difference(0))
        numbers.append(entry(change, seeds, True, change.p_corrected < 1 - confidence, unit))
        lacks = [text for row, text in ((before, "same settings"), (after, "equal tuning")) if shortfall(row)]
        names = [before["fusion"], before["method"] + (f" ({', '.join(lacks)} incomplete)" if lacks else "")]
        rows.append([*map(Entry, names), *numbers])
    columns = ["fusion", "method", "same settings", f"{MINUS} {BASELINE}", "p, corrected"]
    columns += ["equal tuning", f"{MINUS} tuned {BASELINE}", "p, corrected", "change of the difference"]
    caption = (
        f"Test {one.metric.label}{' in percent' * (unit == '%')}, mean ± standard deviation over the seeds [interval]."
        " Same settings: every method with the parameters of params.yaml. Equal tuning: every configuration, joint"
        f" training and each modality alone included, had {plural(tuning.trials, 'trial')}, each with"
        f" {plural(len(tuning.seeds), 'seed')} ({words(tuning.seeds)}); all seeds of the study train with the trial"
        " whose mean score on val is the best. Intervals cover what varies with these seeds, but no other outcome of"
        f" the search. Differences{points(unit, ' in ')} are paired by seed, each from the {BASELINE} of its own half"
        " of the table; the two halves and the changes between them are three families of comparisons."
    )
    if family := corrections(equal, [one.gain]):
        first = corrections(same, [one.gain])
        family = f"{family} in each half" if family == first else f"{first or 'none'} and {family}"
        caption += (
            f"{how_tested(family, confidence)} Bold: a significant difference. Of the tuned comparisons:"
            f" {sensitivity(equal, one.gain, confidence)}"
        )
    return Table(f"Equal tuning: {where}", caption, columns, rows, 2)


def _chosen(tuning: Tuning, equal: pd.DataFrame, where: str) -> Table:
    rows = []
    for row in equal.to_dict("records"):
        outcome = tuning.outcomes.get(tuple(row[name] for name in CELL))
        if outcome is None:
            continue
        scores = [trial["mean"] for trial in outcome["trials"] if trial["mean"] is not None]
        best = outcome["trials"][outcome["chosen"]]["mean"]
        middle, worst = sorted(scores)[len(scores) // 2], max(scores, key=lambda score: abs(score - best))
        rows.append(
            [
                *map(Entry, (row["fusion"], row["method"], values(outcome["values"]), edge(outcome) or NONE)),
                *(Entry(_score(score, outcome)) for score in (best, middle, worst)),
                Entry(str(sum(trial["mean"] is None for trial in outcome["trials"]))),
            ]
        )
    caption = (
        f"Of {tuning.trials} trials of each configuration, the mean over {plural(len(tuning.seeds), 'seed')} of the"
        " score on val at the selected epoch; test data took no part. A choice is on the edge if no trial had a value"
        " beyond it: a wider space may give a better one. Diverged: trials of which a run diverged; they count as"
        " worse than any other."
    )
    columns = ["fusion", "method", "chosen", EDGE, "val, chosen", "val, median trial", "val, worst", "diverged"]
    return Table(f"Chosen values: {where}", caption, columns, rows, 4)


def values(chosen: Mapping[str, Any]) -> str:
    """`training.lr 0.0192, alpha 1.11`."""
    return ", ".join(f"{name} {value}" for name, value in chosen.items())


def edge(outcome: Outcome) -> str:
    """`training.lr is the highest of 8` values that were tried; empty where the choice is on no edge."""
    tried = {name: len({trial["values"][name] for trial in outcome["trials"]}) for name in outcome["edges"]}
    return ", ".join(f"{name} is the {which} of {tried[name]}" for name, which in outcome["edges"].items())


def _score(score: float, outcome: Outcome) -> str:
    return value(score, named_metric(outcome["metric"].removeprefix("val_")).unit)


def trials(tuning: Tuning) -> pd.DataFrame:
    """Every trial: CELL, trial (from 1), values, mean score, score of each seed, whether it diverged, was chosen."""
    rows = [
        dict(zip(CELL, cell, strict=True))
        | {"trial": i + 1, **trial["values"], "metric": outcome["metric"], "mean": trial["mean"]}
        | {f"score_seed{seed}": score for seed, score in zip(outcome["seeds"], trial["scores"], strict=True)}
        | {"diverged": trial["mean"] is None, "chosen": i == outcome["chosen"]}
        for cell, outcome in tuning.outcomes.items()
        for i, trial in enumerate(outcome["trials"])
    ]
    return pd.DataFrame(rows)


def _points(tuning: Tuning, headline: str, same: pd.DataFrame, equal: pd.DataFrame, confidence: float) -> Iterator[str]:
    """What equal tuning says of a dataset, in sentences; `headline` is the answer of its tuned rows, `equal`."""
    name = same.dataset.iloc[0]
    yield (
        f"Equal tuning ({plural(tuning.trials, 'trial')} of each configuration, chosen on val): {headline} This holds"
        " for one outcome of the search; another search may choose other values."
    )
    for before, after in _both(same, equal):
        if before["method"] == BASELINE and before["complete"] and after["complete"]:
            one = primary_of(before)
            change = value(after[f"{one.score}_mean"] - before[f"{one.score}_mean"], one.metric.unit, True)
            by = f"{change}{points(one.metric.unit) or f' {one.metric.label}'}"
            yield f"Tuning changes {BASELINE} training with {before['fusion']} by {by}."
    yield from _changed(tuning, same, confidence)
    cells = {cell: outcome for cell, outcome in tuning.outcomes.items() if cell[0] == name}
    if on := [f"{cell[3]} with {cell[2]} ({edge(outcome)})" for cell, outcome in cells.items() if outcome["edges"]]:
        yield f"The choice lies on the edge of its space for {listed(on, 12)}. A wider space may change these results."
    diverged = sum(trial["mean"] is None for outcome in cells.values() for trial in outcome["trials"])
    if diverged:
        yield f"{plural(diverged, 'trial')} diverged, and could not be chosen."
    if different := [f"{cell[3]} with {cell[2]}" for cell in tuning.differing if cell[0] == name]:
        yield (
            f"The seeds of {listed(different)} did not all train with the same choice, because trials were trained"
            " again between them; delete these runs and run snakemake again."
        )


def _changed(tuning: Tuning, same: pd.DataFrame, confidence: float) -> Iterator[str]:
    """For which methods tuning changes the difference from BASELINE, in a sentence; none where that is not tested."""
    one = primary_of(same)
    keys = [key for row in same.to_dict("records") if (key := tuple(row[name] for name in CELL)) in tuning.changes]
    tested = {key: change for key in keys if not math.isnan((change := tuning.changes[key]).p_corrected)}
    if not tested:
        return
    shown = [
        f"{key[3]} with {key[2]} ({value(change.mean, one.metric.unit, True)}"
        f"{points(one.metric.unit) or f' {one.metric.label}'} {interval(change, True, one.metric.unit)})"
        for key, change in tested.items()
        if change.p_corrected < 1 - confidence
    ]
    subject = f"changes the difference from {BASELINE} training for"
    if shown:
        yield f"Tuning {subject} {listed(shown, 6)}."
    else:
        sizes = [change.detectable for change in tested.values()]
        least, most = (value(size, one.metric.unit) for size in (min(sizes), max(sizes)))
        yield (
            f"It is not shown that tuning {subject} any configuration; a true change of {least} to {most}"
            f"{points(one.metric.unit)}, by configuration, is found with {100 * POWER:.0f} % probability."
        )
