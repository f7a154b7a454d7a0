"""Equal tuning: what is drawn, the same number for every configuration, and what is wrong with a space."""

import math
from pathlib import Path

import pytest
import yaml

from pipeline_src.core.errors import UserError
from pipeline_src.methods.base import methods
from pipeline_src.study import config
from pipeline_src.study.tuning import Range, Tuning, changed, drawn, given, merged
from pipeline_src.study.yaml import Loader

SHIPPED = Path(__file__).parents[2] / "params.yaml"
LR = Range(log=[0.003, 0.1])


def tuning(**spaces) -> Tuning:
    return Tuning(trials=8, seeds=[100], spaces=spaces)


def test_a_range_gives_one_value_in_each_of_as_many_parts():
    for kind, low, high, place in (("log", 0.01, 100.0, math.log), ("linear", -1.0, 3.0, float)):
        values = [point["x"] for point in drawn({"x": Range(**{kind: [low, high]})}, 16, 0)]
        parts = [16 * (place(value) - place(low)) / (place(high) - place(low)) for value in values]
        assert sorted(int(part + 0.02) for part in parts) == list(range(16))  # values are rounded
        assert all(low <= value <= high for value in values)
        assert values != sorted(values)


def test_values_are_drawn_by_name_alone_and_differ_by_seed():
    alone = [point["training.lr"] for point in drawn({"training.lr": LR}, 8, 0)]
    pair = drawn({"training.lr": LR, "alpha": Range(linear=[0.0, 1.0])}, 8, 0)
    assert [point["training.lr"] for point in pair] == alone
    assert [point["alpha"] for point in pair] != sorted(point["alpha"] for point in pair)
    assert [point["training.lr"] for point in drawn({"training.lr": LR}, 8, 1)] != alone
    # The draw is part of every address of a study that is tuned: it may never change.
    assert alone == [0.00483, 0.0612, 0.00309, 0.0328, 0.0087, 0.0192, 0.0663, 0.0166]


def test_a_grid_of_as_many_points_is_taken_whole_and_of_a_larger_one_a_part_without_repeats():
    space = {"a": [1, 2, 3, 4], "b": [True, False]}
    every = drawn(space, 8, 0)
    assert every == [{"a": a, "b": b} for a in (1, 2, 3, 4) for b in (True, False)]
    some = drawn(space, 5, 0)
    assert len({tuple(point.values()) for point in some}) == 5
    assert some == [point for point in every if point in some]
    assert any(drawn(space, 5, seed) != some for seed in range(1, 5))
    assert all(point in drawn(space, 6, 0) for point in some)  # a larger budget keeps what was trained


def test_a_list_beside_a_range_gives_each_value_as_often_as_the_others():
    points = drawn({"training.lr": LR, "scale": ["a", "b"]}, 8, 3)
    assert sorted(point["scale"] for point in points) == ["a"] * 4 + ["b"] * 4


def test_every_configuration_has_the_same_number_of_trials():
    one = tuning(
        all={"training.lr": LR}, pmr={"alpha": [1.0, 2.0, 4.0]}, unimodal={"training.weight_decay": [0.0, 0.1]}
    )
    configurations = [("joint", False), ("joint", True), ("pmr", False), ("opm", False)]
    assert [len(one.points(*each)) for each in configurations] == [8] * 4
    assert set(one.points("pmr")[0]) == {"training.lr", "alpha"}
    assert set(one.points("joint", True)[0]) == {"training.lr", "training.weight_decay"}
    assert one.points("opm") == one.points("joint")


def test_unimodal_training_shares_the_space_of_joint_unless_it_has_one():
    joint = {"training.lr": [0.1 * i for i in range(1, 9)]}
    assert tuning(joint=joint).points("joint", True) == tuning(joint=joint).points("joint")
    own = tuning(joint=joint, unimodal={"training.lr": [1.0 * i for i in range(1, 9)]})
    assert own.points("joint", True)[0] == {"training.lr": 1.0}


def test_a_parameter_of_a_block_in_a_block_has_both_names():
    block = methods["opm_ogm"].Params.model_validate({"opm": {"q_base": 0.5, "lam": 2.0}, "ogm": {"alpha": 0.3}})
    trial = changed(block, {"opm.q_base": 0.25, "ogm.alpha": 0.7})
    assert (trial.opm.q_base, trial.ogm.alpha) == (0.25, 0.7)
    assert merged(block, {"opm.q_base": 0.25})["opm"] == {**given(block.opm), "q_base": 0.25}, "the others stay"
    assert (block.opm.q_base, block.ogm.alpha) == (0.5, 0.3)


@pytest.fixture
def said(tmp_path, monkeypatch):
    """A function: the section `tuning` -> the lines of the error, without file and line; none if it is valid."""
    monkeypatch.chdir(tmp_path)

    def of(**changes) -> list[str]:
        values = yaml.load(SHIPPED.read_text(), Loader)
        values["study"] |= {
            "methods": ["joint", "pmr", "ogm"],
            "fusions": ["concat"],
            "seeds": [0, 1],
            "unimodal": True,
        }
        spaces = {"all": {"training.lr": {"log": [0.003, 0.1]}}, "pmr": {"alpha": [1.0, 2.0]}}
        values["tuning"] = {"trials": 8, "seeds": [100, 101], "spaces": spaces} | changes
        Path("p.yaml").write_text(yaml.safe_dump(values))
        try:
            config.load("p.yaml")
        except UserError as error:
            return [line.split(": ", 1)[1] for line in str(error).split("\n")]
        return []

    return of


def test_a_valid_section(said):
    assert said() == []
    lr = {"training.lr": {"log": [0.003, 0.1]}}
    assert said(spaces={"all": lr, "opm_ogm": {"opm.q_base": {"linear": [0.1, 0.9]}}}) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"trials": 1}, "tuning.trials: expected greater than or equal to 2, but got 1"),
        ({"seeds": [100, 0]}, "tuning.seeds: expected seeds that study.seeds lacks, but got 0, which it has"),
        (
            {"spaces": {"all": {"training.lr": {"log": [0.0, 0.1]}}}},
            "tuning.spaces.all.training.lr.range: expected [low, high], both above 0, with low below high, but got ",
        ),
        (
            {"spaces": {"all": {"training.lr": {"log": [0.1, 1.0], "linear": [0.1, 1.0]}}}},
            "tuning.spaces.all.training.lr.range: expected either log: [low, high] or linear: [low, high], but got ",
        ),
        (
            {"spaces": {"all": {"training.lr": 0.1}}},
            "tuning.spaces.all.training.lr.list: expected a valid list, but got 0.1",
        ),
        (
            {"spaces": {"all": {"training.lr": [[0.1], 0.2]}}},
            "tuning.spaces.all.training.lr.list.0: expected a number, text, true, false or null, but got [0.1]",
        ),
        (
            {"spaces": {"all": {"training.epochs": [1, 2]}}},
            "tuning.spaces.all.training.epochs: expected a parameter that can be tuned",
        ),
        (
            {"spaces": {"all": {"training.lr": {"log": [0.1, 1.0]}}, "opm_ogm": {"opm.q_bas": [0.1, 0.2]}}},
            "tuning.spaces.opm_ogm.opm.q_bas: expected a parameter that can be tuned; did you mean 'opm.q_base'?",
        ),
        (
            {"spaces": {"all": {"alpha": [1.0, 2.0]}}},
            "tuning.spaces.all.alpha: expected a parameter that can be tuned",
        ),
        (
            {"spaces": {"all": {"training.lr": {"log": [0.1, 1.0]}}, "prm": {}}},
            "tuning.spaces.prm: expected all, unimodal or a registered method, but got 'prm'; did you mean 'pmr'?",
        ),
        (
            {"spaces": {"joint": {"training.lr": {"log": [0.1, 1.0]}}, "pmr": {"alpha": {"linear": [0.0, 1.0]}}}},
            "tuning.spaces: expected a space for 'ogm', but got none; name one, or one of 'all'",
        ),
        (
            {"spaces": {"all": {"training.lr": [0.1, 0.2, 0.3]}}},
            "tuning.spaces.all: expected a space with at least trials = 8 different points, but got 3",
        ),
        (
            {"spaces": {"all": {"training.lr": {"log": [0.1, 1.0]}}, "pmr": {"alpha": [1.0, -2.0]}}},
            "tuning.spaces.pmr.alpha: expected greater than or equal to 0, but got -2.0",
        ),
        (
            {"spaces": {"all": {"training.batch_size": {"linear": [8.0, 64.0]}}}},
            "tuning.spaces.all.training.batch_size: expected a valid integer, but got ",
        ),
        (
            {"spaces": {"all": {"training.lr": {"log": [0.1, 1.0]}}, "ogm": {"first_epoch": [0, 5, 50]}}},
            "tuning.spaces.ogm: expected first_epoch below training.epochs = ",
        ),
    ],
)
def test_a_mistake_is_one_line_before_any_run(said, changes, line):
    lines = said(**changes)
    assert len(lines) == 1 and lines[0].startswith(line), lines


def test_a_mistake_that_all_configurations_share_is_said_once(said):
    assert len(said(spaces={"all": {"training.lr": [0.1, 0.2, 0.3]}})) == 1
