"""A grid of datasets whose accuracies are written by hand, as the report's tables and figures get it."""

import pandas as pd

from benchmarks.grid import results
from pipeline_src.reports.grids import GridResults
from pipeline_src.reports.scores import COLUMNS


def grid(axes, accuracies, seeds=(0, 1, 2, 3), fusion="concat"):
    """GridResults of {levels: {method: test accuracy of each seed, None where there is no score}}."""
    cells = {}
    for levels, of in accuracies.items():
        rows = [
            ("-".join(("toy", *levels)), "toy-1", fusion, method, seed, "test", "fused", "accuracy", value)
            for method, values in of.items()
            for seed, value in zip(seeds, values, strict=True)
            if value is not None
        ]
        cells[levels] = results(pd.DataFrame(rows, columns=COLUMNS), list(seeds), 0.95)
    return GridResults("toy", axes, cells)
