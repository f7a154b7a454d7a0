"""A grid of datasets whose accuracies are written by hand, as the report's tables and figures get it."""

from pathlib import Path

import pandas as pd

from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.reports.grids import GridResults
from pipeline_src.reports.published import published
from pipeline_src.reports.results import Results
from pipeline_src.reports.scores import COLUMNS, accuracy_table


def grid(axes, accuracies, seeds=(0, 1, 2, 3), fusion="concat"):
    """GridResults of {levels: {method: test accuracy of each seed}}; the methods of the first levels are the grid's."""
    methods = [method for method in next(iter(accuracies.values())) if method != ENSEMBLE]
    cells = {levels: results("-".join(("toy", *levels)), of, list(seeds), fusion) for levels, of in accuracies.items()}
    assert methods[0] == "joint"
    return GridResults("toy", axes, cells)


def results(name, accuracies, seeds, fusion):
    rows = [
        (name, "toy-1", fusion, method, seed, "test", "fused", "accuracy", value)
        for method, values in accuracies.items()
        for seed, value in zip(seeds, values, strict=True)
        if value is not None
    ]
    metrics = pd.DataFrame(rows, columns=COLUMNS)
    cells = [{"dataset": name, "recipe": "toy-1", "fusion": fusion, "method": method} for method in accuracies]
    table = accuracy_table(metrics, cells, seeds, 0.95)
    return Results(
        name=name,
        recipe="toy-1",
        classes=["a", "b"],
        modalities=["audio", "visual"],
        fusions=[fusion],
        methods=list(accuracies),
        alone={},
        seeds=seeds,
        confidence=0.95,
        cache=Path("none"),
        table=table.set_index(["fusion", "method"]),
        metrics=metrics,
        histories={},
        outcomes={},
        quantities={},
        published=published(name, "toy", "toy-1", list(accuracies)),
    )
