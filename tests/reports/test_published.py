from pathlib import Path

import pandas as pd
import pytest

from pipeline_src.methods.base import methods
from pipeline_src.reports import tables
from pipeline_src.reports.published import figures, published
from pipeline_src.reports.statistics import paired, summary

ROOT = Path(__file__).parents[2]
SEEDS = (0.60, 0.62, 0.64)


def rows(*cells):
    """Rows of an accuracy table: the joint model and others by (fusion, method), with accuracies of SEEDS and more."""
    found = []
    for i, (fusion, method) in enumerate(cells):
        values = [value + 0.01 * i for value in SEEDS]
        row = {"fusion": fusion, "method": method}
        for what, one in {
            "accuracy": summary(values, 0.95),
            "accuracy_best_test_epoch": summary([value + 0.03 for value in values], 0.95),
            "accuracy_gain": paired(values, SEEDS, 0.95),
        }.items():
            row |= {f"{what}_{name}": getattr(one, name) for name in tables.STATISTICS}
        found.append(row)
    return pd.DataFrame(found)


def test_the_file_is_well_formed():
    known = figures()
    columns = ["dataset", "method", "fusion", "metric", "percent", "recipe", "source", "provenance", "remark"]
    assert list(known) == columns
    assert not known.duplicated().any()
    assert known.percent.between(0, 100).all()
    assert set(known.provenance) == {"first-hand", "quoted", "user"}
    assert set(known.metric) == {"accuracy", "macro_f1"}
    assert known[["dataset", "method", "source"]].ne("").all(axis=None)
    assert {"joint", "ogm_ge", "opm", "pmr", "relearning"} <= set(known.method) & set(methods)
    recipes = {file.stem for file in (ROOT / "recipes").glob("*.yaml")}
    assert set(known.recipe) - {""} <= recipes


def test_side_by_side_are_figures_of_the_same_recipe_and_head_alone():
    found = published("cremad", "cremad", "ogm-ge-2022-cremad", rows(("concat", "joint"), ("concat", "ogm_ge")), 3)
    shown = [[str(cell) for cell in row] for row in found.table.rows]
    assert {row[4] for row in shown if row[1] == "joint"} == {"51.7", "59.8", "61.5"}
    assert {row[4] for row in shown if row[1] == "ogm_ge"} == {"61.2", "61.9", "64.4"}, "not 62.2, which is of sum"
    assert not any("PDMP" in row[2] for row in shown), "another recipe, or one that is not named"
    first = next(row for row in shown if "Table 2" in row[2] and row[1] == "ogm_ge")
    assert first[5].startswith("63.0 ± 2.0 [")
    assert first[6].startswith("66.0 ± 2.0 [")
    assert first[7] == "+9.5", "61.25 less 51.7, both of the same source"
    assert first[8].startswith("+1.0")
    assert "best test accuracy" in found.protocol


def test_a_modality_alone_has_its_figure_beside_it():
    found = published(
        "vggsound", "vggsound", "ogm-ge-2022-vggsound", rows(("none", "audio-only"), ("concat", "joint")), 3
    )
    assert [[str(cell) for cell in row[1:5:3]] for row in found.table.rows] == [
        ["audio-only", "44.3"],
        ["joint", "49.1"],
    ]


def test_a_published_gain_needs_its_own_joint_training():
    found = published("cremad", "cremad", "ogm-ge-2022-cremad", rows(("concat", "ogm_ge")), 3)
    (row,) = [row for row in found.table.rows if str(row[4]) == "61.9"]
    assert str(row[7]) == tables.NONE


def test_another_recipe_has_nothing_beside_it():
    found = published("cremad", "cremad", "mine-1", rows(("concat", "joint"), ("concat", "ogm_ge")), 3)
    assert found.table is None
    assert "none of them by the recipe mine-1" in found.line
    assert found.drawing is not None
    assert "not in this study" not in found.drawing.caption


def test_a_data_set_without_figures_gets_another_ones_spread_said_to_be_so():
    found = published("mine", "av_digits", "r-1", rows(("concat", "joint"), ("concat", "pmr")), 3)
    assert found.line == "No figure on mine is published: nothing to set beside."
    assert found.table is None
    assert "For context only; cremad is not in this study" in found.drawing.caption
    own = figures().query("dataset == 'cremad' and metric == 'accuracy' and method == 'joint'").percent
    assert f"of joint {len(own)}, from {own.min():.1f} to {own.max():.1f} percent" in found.drawing.caption
    (axes,) = found.drawing.figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["joint", "pmr"]
    points = sum(len(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "None")
    assert points == len(own) + 4


@pytest.mark.parametrize("percent", [51.7, 77.69])
def test_figures_that_the_field_disputes_are_kept_with_their_origin(percent):
    (one,) = figures().query("dataset == 'cremad' and percent == @percent").to_dict("records")
    assert one["remark"]
