"""Every method once, at its published and at other settings: a part of docs/experiments.md, from accuracies.

`python -m benchmarks all-methods` reads docs/results/all-methods.csv, the test accuracies of the runs of three studies,
experiments/all-methods.yaml and those for the methods that need the fusions shared and mmtm, and writes the text into
the page. Where the results of all three are there, it writes the file before.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline_src.evaluation import FUSED
from pipeline_src.methods.base import FAMILIES, methods
from pipeline_src.reports import formats
from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.reports.scores import BASELINE, COLUMNS
from pipeline_src.reports.tables import Entry, Table
from pipeline_src.reports.wording import MINUS, NONE, percent, words
from pipeline_src.study.naming import study_name
from pipeline_src.study.outputs import NO_FUSION, STUDY

STUDIED = [Path(f"experiments/all-methods{part}.yaml") for part in ("", "-shared", "-mmtm")]
FILE = Path("docs/results/all-methods.csv")
PAGE = Path("docs/experiments.md")
BEGIN, END = "<!-- begin: python -m benchmarks all-methods -->", "<!-- end: all-methods -->"
HERE = "_here"  # ends the name of a method with other settings
ACCURACY, DIVERGED = "accuracy", "diverged"  # metrics of the file; a run that diverged has the second alone
SAMPLES = 510  # test samples


def all_methods() -> None:
    """Bring the accuracies and the page up to date."""
    folders = [Path(STUDY.format(study=study_name(file))) for file in STUDIED]
    if all((folder / "metrics.parquet").exists() for folder in folders):
        rows = pd.concat([part for folder in folders for part in _results(folder)])
        rows[COLUMNS].to_csv(FILE, index=False, lineterminator="\n")
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def _results(folder: Path) -> list[pd.DataFrame]:
    """Of a study the accuracies, and a row of each run that diverged."""
    rows = pd.read_parquet(folder / "metrics.parquet")
    scores = rows[(rows.split == "test") & (rows.modality == FUSED) & (rows.metric == ACCURACY)]
    table = pd.read_csv(folder / "tables" / "accuracy.csv", keep_default_na=False)
    ended = {"seed": 0, "split": "test", "modality": FUSED, "metric": DIVERGED, "value": 1.0}
    return [scores, table[table.diverged > 0].assign(**ended)[COLUMNS]]


def written(page: str) -> str:
    """The page with the table and sentences of now."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n#{section()}\n{END}{rest.split(END)[1]}"


def section() -> str:
    """The text, as Markdown."""
    rows = pd.read_csv(FILE, keep_default_na=False)
    return f"{formats.markdown([_table(rows)])}\n{_sentences(rows)}\n"


def _values(rows: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Accuracy by fusion and method; NaN of what diverged."""
    value = rows.value.astype(float).where(rows.metric == ACCURACY)
    return dict(zip(zip(rows.fusion, rows.method, strict=True), value, strict=True))


def _table(rows: pd.DataFrame) -> Table:
    values = _values(rows)
    places = {name: fusion for fusion, name in values if not name.endswith(HERE)}
    order = [name for family in FAMILIES for name in methods if methods[name].family == family and name != BASELINE]
    entries = [
        [Entry(name), Entry(fusion), Entry(percent(values[fusion, name])), *[Entry("")] * 3]
        for fusion, name in values
        if fusion == NO_FUSION or name == BASELINE
    ]
    for name in [*order, ENSEMBLE]:
        if name not in places:
            continue
        fusion = places[name]
        joint = values[fusion, BASELINE]
        row = [Entry(name), Entry(fusion)]
        for of in (name, f"{name}{HERE}"):
            row += _pair(values[fusion, of], joint) if (fusion, of) in values else [Entry("")] * 2
        entries.append(row)
    difference = f"{MINUS} {BASELINE}"
    caption = (
        "Test accuracy in percent, and the difference to joint training with the same fusion in points, of one run"
        f" each: at the published values, and at values for this schedule. A run that diverged has a dash ({NONE})."
        f" One sample of test is {100 / SAMPLES:.1f} points."
    )
    columns = ["method", "fusion", "published", difference, "here", f"{difference}, here"]
    return Table("Accuracies of single runs", caption, columns, entries, 2)


def _pair(value: float, joint: float) -> list[Entry]:
    return [Entry(percent(value)), Entry(percent(value - joint, sign=True))]


def _sentences(rows: pd.DataFrame) -> str:
    diverged = list(rows.method[rows.metric == DIVERGED])
    runs = len(rows) - (rows.method == ENSEMBLE).sum()
    ended = f"Diverged: {words(diverged)}." if diverged else "None diverged."
    return f"- {runs} runs. {ended}"
