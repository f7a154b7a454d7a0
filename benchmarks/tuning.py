"""The tables of docs/equal-tuning.md, from its accuracies and trials.

`python -m benchmarks tuning` reads docs/results/equal-tuning.csv, which has the test accuracy of every run and ensemble
of the study, and equal-tuning-trials.csv, which has every trial, and writes the tables into the page. Where the study's
own results are there, it writes these files first.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from pipeline_src.evaluation import FUSED
from pipeline_src.reports import formats
from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.reports.scores import BASELINE, CELL, COLUMNS, accuracy_table
from pipeline_src.reports.tuning import Tuning, changes, halves, said
from pipeline_src.reports.wording import percent
from pipeline_src.study import config
from pipeline_src.study.choice import edges
from pipeline_src.study.naming import study_name
from pipeline_src.study.outputs import NO_FUSION, STUDY, TUNING

STUDIED = Path("experiments/equal-tuning.yaml")
ACCURACIES, TRIALS = Path("docs/results/equal-tuning.csv"), Path("docs/results/equal-tuning-trials.csv")
PAGE = Path("docs/equal-tuning.md")
BEGIN, END = "<!-- begin: python -m benchmarks tuning -->", "<!-- end -->"
SAMPLES = 510  # test samples of the dataset
SCORE = "score_seed"  # columns of a trial's scores


def tuning() -> None:
    """Bring the page up to date."""
    results = Path(STUDY.format(study=study_name(STUDIED)))
    if (results / "metrics.parquet").exists():
        rows = pd.read_parquet(results / "metrics.parquet")
        rows = rows[(rows.split == "test") & (rows.modality == FUSED) & (rows.metric == "accuracy")]
        rows = rows[[*CELL, "seed", "value"]].rename(columns={"value": "accuracy"})
        rows.to_csv(ACCURACIES, index=False, lineterminator="\n")
        shutil.copyfile(results / "tables" / TUNING[1], TRIALS)
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def written(page: str) -> str:
    """The page with the sentences and tables of now."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{measured()}\n{END}{rest.split(END)[1]}"


def measured() -> str:
    """What the report says of the files in docs/results, as Markdown."""
    params = config.load(STUDIED)
    assert params.tuning is not None
    seeds, confidence = list(params.study.seeds), params.reporting.confidence
    rows = pd.read_csv(ACCURACIES)
    values = halves({tuple(row[:5]): row[5] for row in rows.itertuples(index=False, name=None)})
    same, equal = (_table(half, seeds, confidence) for half in values)
    outcomes = {cell: _outcome(trials) for cell, trials in pd.read_csv(TRIALS).groupby(CELL, sort=False)}
    changed = changes(*values, seeds, confidence, dict.fromkeys(rows.dataset, 1 / SAMPLES))
    tables, points = said(
        Tuning(equal, changed, outcomes, [], params.tuning.trials, params.tuning.seeds), same, len(seeds), confidence
    )
    return "\n".join([*(f"- {point}" for point in [*points, _papers(same, equal)]), "", formats.markdown(tables)])


def _papers(same: pd.DataFrame, equal: pd.DataFrame) -> str:
    """What a comparison would say that tunes a method and takes joint training as it is."""
    baseline = same[same.method == BASELINE].accuracy_mean.item()
    after = equal[(equal.fusion != NO_FUSION) & (equal.method != ENSEMBLE)]
    gains = [f"{row.method} {percent(row.accuracy_mean - baseline, True)}" for row in after.itertuples()]
    return f"Each tuned, minus joint training at the settings of params.yaml, in points: {', '.join(gains)}."


def _table(half: dict[tuple, float], seeds: list[int], confidence: float) -> pd.DataFrame:
    """The accuracy table of one half of the study, {(*CELL, seed): accuracy}."""
    rows = pd.DataFrame([(*key, "test", FUSED, "accuracy", value) for key, value in half.items()], columns=COLUMNS)
    cells = rows[CELL].drop_duplicates().to_dict("records")
    return accuracy_table(rows, cells, seeds, confidence, samples=dict.fromkeys(rows.dataset, SAMPLES))


def _outcome(trials: pd.DataFrame) -> dict:
    """The outcome of a search, as a record has it, from its rows of trials.csv."""
    given = {*CELL, "trial", "metric", "mean", "diverged", "chosen", *(c for c in trials if c.startswith(SCORE))}
    names = [name for name in trials if name not in given and trials[name].notna().all()]
    rows = trials.to_dict("records")
    points = tuple({name: row[name] for name in names} for row in rows)
    (chosen,) = (i for i, row in enumerate(rows) if row["chosen"])
    scores = [None if row["diverged"] else row["mean"] for row in rows]
    return {
        "metric": rows[0]["metric"],
        "chosen": chosen,
        "values": points[chosen],
        "edges": edges(points, chosen),
        "trials": [{"values": point, "mean": score} for point, score in zip(points, scores, strict=True)],
    }
