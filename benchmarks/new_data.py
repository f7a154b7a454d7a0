"""What new data for every seed changes: a part of docs/experiments.md, from the accuracies of two studies.

`python -m benchmarks new-data` reads docs/results/new-data.csv and, of the same methods and seeds,
docs/results/default.csv: the test accuracies of all runs and ensembles. It writes the text into the page. Where the
results of experiments/new-data.yaml are there, it writes the first of the files before.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline_src.evaluation import FUSED
from pipeline_src.reports import formats
from pipeline_src.reports.scores import ACCURACY, BASELINE, CELL, accuracy_table, read, significant
from pipeline_src.reports.statistics import Summary
from pipeline_src.reports.tables import Entry, Table, corrections, entry
from pipeline_src.reports.wording import MINUS, level, percent, plural, words
from pipeline_src.study import config
from pipeline_src.study.naming import study_name
from pipeline_src.study.outputs import NO_FUSION, STUDY

STUDIED = Path("experiments/new-data.yaml")
FOLDER = Path("docs/results")
FIXED, VARIED = "default", "new-data"  # files of FOLDER
PAGE = Path("docs/experiments.md")
BEGIN, END = "<!-- begin: python -m benchmarks new-data -->", "<!-- end -->"
GAIN = ACCURACY.gain
SAMPLES = 510  # test samples, about, of each draw


def new_data() -> None:
    """Bring the accuracies and the page up to date."""
    metrics = Path(STUDY.format(study=study_name(STUDIED))) / "metrics.parquet"
    if metrics.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        _accuracies(pd.read_parquet(metrics)).to_csv(FOLDER / f"{VARIED}.csv", index=False, lineterminator="\n")
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def written(page: str) -> str:
    """The page with the table and sentences of now."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n#{section()}\n{END}{rest.split(END)[1]}"


def _accuracies(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[(rows.split == "test") & (rows.modality == FUSED) & (rows.metric == "accuracy")]


def section() -> str:
    """The text, as Markdown."""
    fixed, varied = (_accuracies(pd.read_csv(FOLDER / f"{name}.csv")) for name in (FIXED, VARIED))
    compared = _tables(fixed[fixed.method.isin(varied.method) & fixed.seed.isin(varied.seed)], varied)
    return f"{formats.markdown([_table(*compared)])}\n{_sentences(*compared)}\n"


def _tables(*studies: pd.DataFrame) -> list[pd.DataFrame]:
    """The accuracy tables that reports make of studies, by method."""
    confidence = config.load(STUDIED).reporting.confidence
    made = []
    for rows in studies:
        cells = rows[CELL].drop_duplicates().to_dict("records")
        (dataset,) = rows.dataset.unique()
        seeds = sorted(rows.seed.unique())
        table = accuracy_table(rows, cells, seeds, confidence, samples={dataset: SAMPLES})
        made.append(table.set_index("method", drop=False))
    return made


def _tested(table: pd.DataFrame) -> list[str]:
    return [method for method in table.method if table.fusion[method] != NO_FUSION and method != BASELINE]


def _table(fixed: pd.DataFrame, varied: pd.DataFrame) -> Table:
    confidence, seeds = config.load(STUDIED).reporting.confidence, int(varied.seeds.iloc[0].split(" of ")[1])
    rows = []
    for method in varied.method:
        row = [Entry(method)]
        for table in (fixed, varied):
            one = table.loc[method]
            row.append(Entry(entry(read(one, "accuracy"), seeds).value))
            gain = entry(read(one, GAIN), seeds, True, significant(one, GAIN, confidence))
            row.append(gain if method in _tested(table) else Entry(""))
        rows.append(row)
    caption = (
        f"Test accuracy in percent, mean ± standard deviation over {plural(seeds, 'seed')}. {MINUS} {BASELINE}: the"
        f" difference to joint training in points, paired by seed, with its {level(confidence)} interval, corrected for"
        f" {corrections(varied, [GAIN])} in both studies. Bold: significant after the correction."
    )
    difference = f"{MINUS} {BASELINE}"
    columns = ["method", "one draw", f"{difference}, one draw", "new data", f"{difference}, new data"]
    return Table("One draw of the data, and a new one for every seed", caption, columns, rows, 1)


def _sentences(fixed: pd.DataFrame, varied: pd.DataFrame) -> str:
    confidence, methods = config.load(STUDIED).reporting.confidence, _tested(varied)
    both = (fixed, varied)
    gains = [{method: read(table.loc[method], GAIN) for method in methods} for table in both]
    scores = [[read(row, "accuracy").sd for _, row in table.iterrows()] for table in both]
    wider = [gains[1][method].sd / gains[0][method].sd for method in methods]
    narrowest = [sorted(_half(gain) for gain in of.values()) for of in gains]
    signs = [{method: _sign(table.loc[method], confidence) for method in methods} for table in both]
    changed = [
        f"{method} ({signs[0][method]}; with new data {signs[1][method]})"
        for method in methods
        if signs[0][method] != signs[1][method]
    ]
    return "\n".join(
        [
            f"- Standard deviations of accuracies: {_span(scores[0])} points on one draw, {_span(scores[1])} with new"
            " data.",
            f"- Half widths of the intervals of differences: {_span(narrowest[0])} points on one draw,"
            f" {_span(narrowest[1])} with new data. Their standard deviations are"
            f" {pd.Series(wider).median():.1f} times as large (median; {min(wider):.1f} to {max(wider):.1f}).",
            "- Every verdict is the same." if not changed else f"- Verdicts that differ: {words(changed)}.",
        ]
    )


def _half(gain: Summary) -> float:
    return (gain.ci_high - gain.ci_low) / 2


def _span(values: list[float]) -> str:
    return f"{percent(min(values))} to {percent(max(values))}"


def _sign(row: pd.Series, confidence: float) -> str:
    if not significant(row, GAIN, confidence):
        return "not significant"
    return "a gain" if row[f"{GAIN}_mean"] > 0 else "a loss"
