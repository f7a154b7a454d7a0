"""The figure and the tables of docs/when-balancing-helps.md, from its accuracies.

`python -m benchmarks grid` reads docs/results/when-balancing-helps.csv, which has the test accuracy of every run and
ensemble of the study. Where the study's own results are there, it writes that file first.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline_src.evaluation import FUSED
from pipeline_src.reports import formats, headroom
from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.reports.figures.heatmaps import heatmaps
from pipeline_src.reports.figures.style import svg
from pipeline_src.reports.grids import GridResults, gains_table
from pipeline_src.reports.published import published
from pipeline_src.reports.results import Results
from pipeline_src.reports.scores import ACCURACY, COLUMNS, accuracy_table
from pipeline_src.study import config
from pipeline_src.study.naming import study_name
from pipeline_src.study.outputs import NO_FUSION, STUDY

STUDIED = Path("experiments/when-balancing-helps.yaml")
ACCURACIES = Path("docs/results/when-balancing-helps.csv")
FIGURE = Path("docs/when-balancing-helps.svg")
SAMPLES = 510  # test samples of each dataset


def grid() -> None:
    """Bring the figure up to date and print the tables as Markdown."""
    metrics = Path(STUDY.format(study=study_name(STUDIED))) / "metrics.parquet"
    if metrics.exists():
        rows = pd.read_parquet(metrics)
        rows = rows[(rows.split == "test") & (rows.modality == FUSED) & (rows.metric == "accuracy")]
        ACCURACIES.parent.mkdir(parents=True, exist_ok=True)
        rows.to_csv(ACCURACIES, index=False, lineterminator="\n")
    measured = read()
    (drawing,) = heatmaps(measured)
    FIGURE.write_text(svg(drawing.figure), encoding="utf-8")
    print(tables(measured), end="")


def read() -> GridResults:
    """The grid of the experiment with the accuracies of docs/results."""
    params = config.load(STUDIED)
    (asked,) = params.studied_grids.values()
    rows = pd.read_csv(ACCURACIES)
    seeds, confidence = list(params.study.seeds), params.reporting.confidence
    cells = {
        levels: results(rows[rows.dataset == name], seeds, confidence, SAMPLES)
        for levels, name in asked.datasets.items()
    }
    return GridResults(asked.name, asked.axes, cells)


def results(metrics: pd.DataFrame, seeds: list[int], confidence: float, samples: int | None = None) -> Results:
    """The Results of one dataset of which nothing is known but its accuracies, in long form."""
    names = metrics[COLUMNS[:4]].drop_duplicates().to_dict("records")
    (name, recipe), *_ = metrics[["dataset", "recipe"]].itertuples(index=False, name=None)
    table = accuracy_table(metrics, names, seeds, confidence, samples=None if samples is None else {name: samples})
    alone = [row["method"] for row in names if row["fusion"] == NO_FUSION]
    methods = [row["method"] for row in names if row["fusion"] != NO_FUSION]
    modalities = [method.removesuffix("-only") for method in alone]
    return Results(
        primary=ACCURACY,
        name=name,
        recipe=recipe,
        classes=[],
        modalities=modalities,
        fusions=list(dict.fromkeys(row["fusion"] for row in names if row["fusion"] != NO_FUSION)),
        methods=[*(m for m in methods if m != ENSEMBLE), *(m for m in methods if m == ENSEMBLE)],
        alone={m: (NO_FUSION, method) for m, method in zip(modalities, alone, strict=True)},
        seeds=seeds,
        confidence=confidence,
        cache=Path("none"),
        table=table.set_index(["fusion", "method"]),
        metrics=metrics,
        histories={},
        outcomes={},
        quantities={},
        published=published(name, name, recipe, methods, ""),
    )


def tables(measured: GridResults) -> str:
    """The tables of the grid as Markdown."""
    found = headroom.associations(measured)
    made = formats.markdown([gains_table(measured), headroom.table(measured, found)])
    return f"{headroom.headline(found, measured.confidence)}\n\n{made}"
