from pathlib import Path

import pandas as pd
import pytest

from pipeline_src.datasets.base import datasets
from pipeline_src.methods.base import methods
from pipeline_src.reports import scores
from pipeline_src.reports.published import published, side_by_side, values
from pipeline_src.reports.statistics import paired, summary
from pipeline_src.reports.wording import NONE

ROOT = Path(__file__).parents[2]
SEEDS = (0.60, 0.62, 0.64)


def beside(kind, recipe, table, optimizer="sgd"):
    """The published values beside ours, as texts."""
    found = side_by_side(kind, recipe, published(kind, kind, recipe, list(table.method), optimizer).same, table, 3)
    return [[str(entry) for entry in row] for row in found.rows]


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
            row |= {f"{what}_{name}": getattr(one, name) for name in scores.STATISTICS}
        found.append(row)
    return pd.DataFrame(found).assign(metric="accuracy")


def test_the_file_is_well_formed():
    known = values()
    assert list(known) == [
        *("dataset", "method", "fusion", "modality", "metric", "percent", "recipe", "optimizer", "source", "table"),
        *("protocol", "provenance", "remark"),
    ]
    assert not known.duplicated().any()
    assert known.percent.between(0, 100).all()
    assert set(known.provenance) == {"first-hand", "quoted", "user"}
    assert set(known.metric) == {"accuracy", "macro_f1", "f1", "segment_accuracy"}
    assert set(known.optimizer) == {"", "sgd", "adamw", "adam", "adagrad"}
    for row in known.to_dict("records"):
        assert row["dataset"] not in datasets or row["modality"] in {"", *datasets[row["dataset"]].modalities}, row
    assert known[["dataset", "method", "source"]].ne("").all(axis=None)
    assert {"joint", "ogm_ge", "opm", "pmr", "relearning"} <= set(known.method) & set(methods)
    recipes = {file.stem for file in (ROOT / "recipes").glob("*.yaml")}
    assert set(known.recipe) - {""} <= recipes


def test_side_by_side_are_values_of_the_same_recipe_and_fusion_only():
    shown = beside("cremad", "ogm-ge-2022-cremad", rows(("concat", "joint"), ("concat", "ogm_ge")))
    assert {row[4] for row in shown if row[1] == "joint"} == {"51.7", "59.8", "61.5"}
    assert {row[4] for row in shown if row[1] == "ogm_ge"} == {"61.2", "61.9", "64.4"}, "not 62.2, which is of sum"
    assert not any("PDMP" in row[2] for row in shown), "another recipe, or one that is not named"
    first = next(row for row in shown if "Table 2" in row[2] and row[1] == "ogm_ge")
    assert first[5].startswith("63.0 ± 2.0 [")
    assert first[6].startswith("66.0 ± 2.0 [")
    assert first[7] == "+9.5", "61.25 less 51.7, both of the same source"
    assert first[8].startswith("+1.0")
    assert "best test accuracy" in published("cremad", "cremad", "ogm-ge-2022-cremad", [], "sgd").protocol


def test_values_of_another_optimizer_are_only_drawn():
    cells = rows(("concat", "joint"), ("concat", "pmr"))
    of = {
        name: [
            (row[1], row[4], row[7]) for row in beside("cremad", "pmr-2023-cremad", cells, name) if "arXiv" in row[2]
        ]
        for name in ("sgd", "adagrad", "adam")
    }
    assert of == {
        "sgd": [("joint", "53.2", NONE), ("pmr", "61.1", "+7.9")],
        "adagrad": [("joint", "58.8", NONE), ("pmr", "61.5", "+2.7")],
        "adam": [("joint", "59.8", NONE), ("pmr", "65.3", "+5.5")],
    }
    drawn = published("cremad", "cremad", "pmr-2023-cremad", ["pmr"], "sgd").drawn
    assert {53.2, 58.8, 59.8, 61.1, 61.5, 65.3} <= set(drawn.percent)


def test_the_scores_of_a_modality_inside_a_model_are_not_the_models():
    known = values().query("dataset == 'cremad' and method == 'inforeg' and source == 'InfoReg (CVPR 2025)'")
    assert set(known.percent) == {75.71, 61.63, 61.22}
    drawn = published("cremad", "cremad", "r-1", ["inforeg"], "sgd").drawn
    assert set(drawn[drawn.method == "inforeg"].percent) == {75.71, 67.72}


def test_a_modality_alone_has_its_value_beside_it():
    shown = beside("vggsound", "ogm-ge-2022-vggsound", rows(("none", "audio-only"), ("concat", "joint")))
    assert [row[1:5:3] for row in shown] == [["audio-only", "44.3"], ["joint", "49.1"]]


def test_a_published_gain_needs_its_own_joint_training():
    shown = beside("cremad", "ogm-ge-2022-cremad", rows(("concat", "ogm_ge")))
    (row,) = [row for row in shown if row[4] == "61.9"]
    assert row[7] == NONE


def test_another_recipe_has_nothing_beside_it():
    found = published("cremad", "cremad", "mine-1", ["joint", "ogm_ge"], "sgd")
    assert side_by_side("cremad", "mine-1", found.same, rows(("concat", "joint"), ("concat", "ogm_ge")), 3) is None
    assert "none of them by the recipe mine-1 and sgd" in found.line
    assert found.drawable


def test_a_dataset_without_values_has_nothing_of_another_one():
    found = published("mine", "av_digits", "r-1", ["joint", "pmr"], "sgd")
    assert found.line == "No accuracy on mine is published, so nothing is shown beside ours."
    assert found.same.empty and not found.drawable


def test_all_values_of_the_datasets_kind_are_drawn_whatever_its_name():
    found = published("mine", "cremad", "r-1", ["joint", "pmr"], "sgd")
    own = (
        values().query("dataset == 'cremad' and modality == '' and metric == 'accuracy' and method == 'joint'").percent
    )
    assert found.where == "cremad" and set(found.drawn.method) == {"joint", "pmr"}
    assert sorted(found.drawn[found.drawn.method == "joint"].percent) == sorted(own)


@pytest.mark.parametrize("percent", [51.7, 77.69])
def test_values_that_the_field_disputes_are_kept_with_their_origin(percent):
    (one,) = values().query("dataset == 'cremad' and percent == @percent").to_dict("records")
    assert one["remark"]
