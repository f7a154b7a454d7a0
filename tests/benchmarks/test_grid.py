"""The page on when balancing helps says what its file of accuracies says."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks import grid
from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.reports.figures.heatmaps import heatmaps
from pipeline_src.reports.figures.style import svg
from pipeline_src.reports.headroom import halves

PAGE = Path("docs/when-balancing-helps.md")


@pytest.fixture(scope="module")
def measured():
    return grid.read()


def test_every_run_and_ensemble_is_there(measured):
    rows = pd.read_csv(grid.ACCURACIES)
    names = ["dataset", "fusion", "method"]
    counts = rows.groupby(names).seed.agg(["size", "nunique"])
    assert (counts == len(measured.seeds)).all(axis=None)
    assert rows.dataset.nunique() == len(measured.cells) == 9
    assert {"joint", ENSEMBLE, "audio-only", "visual-only", *measured.methods} == set(rows.method)
    samples = rows.value * grid.SAMPLES
    assert (samples - samples.round()).abs().max() < 1e-6, "of so many test samples"


def test_the_page_has_the_tables(measured):
    page = PAGE.read_text(encoding="utf-8")
    for line in grid.tables(measured).splitlines():
        if line.startswith("|"):
            assert line in page, "run `python -m benchmarks grid` and put its tables into the page"


def test_the_figure_is_drawn_from_the_accuracies(measured):
    (drawing,) = heatmaps(measured)

    def words(text):
        return re.findall(r">([^<>]+)</text>", text)

    assert words(grid.FIGURE.read_text(encoding="utf-8")) == words(svg(drawing.figure)), "run python -m benchmarks grid"


def test_the_numbers_of_the_text_are_those_of_the_accuracies(measured):
    page = PAGE.read_text(encoding="utf-8")
    joint = measured.scores("joint", "concat")
    gains = {method: measured.scores(method, "concat") - joint for method in [*measured.methods, ENSEMBLE]}
    first, second = halves(measured.seeds)

    def rho(a, b):
        return f"{stats.spearmanr(a.mean(axis=1), b.mean(axis=1)).statistic:+.2f}"

    def between(method):
        return rho(gains[method][first], gains[method][second])

    assert f"datasets is {between(ENSEMBLE)}, and that of the gains is {between('opm')} for `opm`" in page
    assert f"{between('ogm_ge')} for `ogm_ge`" in page
    same = [f"`{method}` {rho(gains[method], gains[ENSEMBLE])}" for method in ("pmr", "mmpareto", "joint_unimodal")]
    assert ", ".join(same) in page
    significant = {m: measured.significant(m, "concat") * np.sign(measured.gains(m, "concat")) for m in gains}
    counts = {method: ((signs > 0).sum(), (signs < 0).sum()) for method, signs in significant.items()}
    assert counts["mmpareto"] == (7, 0) and counts["joint_unimodal"] == (5, 0) and counts["relearning"] == (0, 0)
    others = [counts[method] for method in ("ogm_ge", "opm", "pmr", "relearning")]
    assert tuple(map(sum, zip(*others, strict=True))) == (4, 10), "4 significant gains and 10 significant losses"
