"""Schedules: what a study under several of them plans, and every mistake in one line."""

import json

import jsonschema
import pytest
import yaml

from pipeline_src.core.errors import UserError
from pipeline_src.study import estimate
from pipeline_src.study.plan import Plan
from pipeline_src.study.schema import SCHEMAS
from pipeline_src.study.yaml import Loader
from tests.study.test_config import VALID
from tests.study.test_grids import GRID

SCHEDULES = """\
schedules:
  sgd: {}
  adam: {optimizer: adam, lr: 0.001, epochs: 3}
"""
STUDY = VALID.replace("  methods: [joint]\n", "  methods: [joint]\n  schedules: [sgd, adam]\n") + SCHEDULES


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A function: text of a params file -> its plan."""
    monkeypatch.chdir(tmp_path)

    def of(text: str) -> Plan:
        (tmp_path / "p.yaml").write_text(text)
        return Plan("p.yaml")

    return of


def test_every_run_of_a_dataset_is_trained_under_each_schedule(plan):
    made, plain = plan(STUDY), plan(VALID)
    assert list(made.datasets) == ["av_digits-sgd", "av_digits-adam"]
    for name, (optimizer, lr, epochs) in {
        "av_digits-sgd": ("sgd", 0.02, plain.params.training.epochs),
        "av_digits-adam": ("adam", 0.001, 3),
    }.items():
        cells = [cell for cell in made.cells if cell.data.name == name]
        assert [(cell.fusion, cell.method) for cell in cells] == [(cell.fusion, cell.method) for cell in plain.cells]
        assert {(c.spec.training.optimizer, c.spec.training.lr, c.spec.training.epochs) for c in cells} == {
            (optimizer, lr, epochs)
        }
    same = [cell for cell in made.cells if cell.data.name == "av_digits-sgd"]
    assert [cell.fp for cell in same] == [cell.fp for cell in plain.cells]  # a schedule that changes nothing


def test_raw_data_manifest_and_cache_are_those_of_the_dataset(plan):
    made, plain = plan(STUDY), plan(VALID)
    for stage in ("fetch", "manifest", "extract", "cache"):
        assert [path for path, _ in made.places(stage)] == [path for path, _ in plain.places(stage)]
    assert [data.name for data in made.all("cache")] == ["av_digits"]
    assert {data.cache for data in made.data} == {plain.data[0].cache}
    assert [data.name for data in made.named("av_digits")] == ["av_digits"]


def test_the_report_draws_the_schedules_of_a_dataset_together(plan):
    (grid,) = plan(STUDY).params.studied_grids.values()
    assert grid.name == "av_digits" and grid.axes == {"schedule": ["sgd", "adam"]}
    assert grid.datasets == {("sgd",): "av_digits-sgd", ("adam",): "av_digits-adam"}


def test_schedules_are_one_more_axis_of_a_grid_that_has_one(plan):
    one_axis = GRID[: GRID.index("    picture")]
    (grid,) = plan(STUDY + one_axis).params.studied_grids.values()
    assert grid.axes == {"sound": ["noisy", "middle"], "schedule": ["sgd", "adam"]}
    assert grid.datasets["noisy", "adam"] == "av_digits-noisy-adam"


def test_a_grid_of_two_axes_is_one_grid_for_each_schedule(plan):
    grids = plan(STUDY + GRID).params.studied_grids
    assert list(grids) == ["av_digits-sgd", "av_digits-adam"]
    assert grids["av_digits-adam"].datasets["noisy", "clear"] == "av_digits-noisy-clear-adam"


def test_the_estimate_counts_the_epochs_of_each_and_one_cache(plan):
    made, plain = plan(STUDY), plan(VALID)
    costs, (one,) = estimate.estimate(made), estimate.estimate(plain)
    assert [cost.epochs for cost in costs] == [one.epochs, 3]
    assert costs[0].flop == one.flop and costs[1].flop < one.flop
    assert [cost.bytes for cost in costs] == [one.bytes, 0]


def test_trials_of_equal_tuning_are_drawn_for_each_schedule(plan):
    made = plan(STUDY + "tuning: {trials: 2, seeds: [7], spaces: {all: {training.lr: [0.1, 0.3]}}}\n")
    trials = [cell for cell in made.cells if cell.role == "trial" and cell.fusion == "sum"]
    found = [(c.data.name, c.spec.training.lr, c.spec.training.optimizer, c.spec.training.epochs) for c in trials]
    assert found == [
        *((f"av_digits-{name}", lr, name, epochs) for name, epochs in (("sgd", 12), ("adam", 3)) for lr in (0.1, 0.3))
    ]


def test_rule_of_initial_weights_and_offset_reach_every_run(plan):
    text = STUDY.replace("training:\n", "  fusion: {offset: 0.0}\n  init: relearning\ntraining:\n")
    cells = plan(text).cells
    assert {(cell.spec.init, cell.spec.fusion_params.offset) for cell in cells} == {("relearning", 0.0)}


MISTAKES = {
    "a key": (
        "optimizer: adam",
        "optimiser: adam",
        "schedules.adam.optimiser: expected a parameter of `training`",
    ),
    "a key that all schedules share": (
        "optimizer: adam",
        "select: last",
        "schedules.adam.select: expected a param",
    ),
    "a value": ("lr: 0.001", "lr: -1.0", "schedules.adam.lr: expected greater than or equal to 1e-30, but got -1.0"),
    "a choice": (
        "optimizer: adam",
        "optimizer: adamm",
        "schedules.adam.optimizer: expected 'sgd', 'adam', 'adamw' or 'adagrad', but got \"adamm\"",
    ),
    "no such schedule": (
        "[sgd, adam]",
        "[sgd, adan]",
        "study.schedules.1: expected a key of `schedules`, but got 'adan'; did you mean 'adam'?",
    ),
    "the same twice": (
        "{optimizer: adam, lr: 0.001, epochs: 3}",
        "{lr: 0.02}",
        "schedules.adam: expected another schedule than that of 'sgd', but got the same",
    ),
    "a name that is no path": ("  adam:", "  Adam/1:", "schedules.Adam/1: expected a name of at most 64 small letters"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(plan, mistake):
    old, new, message = MISTAKES[mistake]
    assert STUDY.count(old) == 1
    text = STUDY.replace(old, new)
    if mistake == "a name that is no path":
        text = text.replace("[sgd, adam]", "[sgd]")
    with pytest.raises(UserError) as raised:
        plan(text)
    (line,) = str(raised.value).split("\n")
    assert line.split(": ", 1)[1].startswith(message), line


def test_a_method_that_a_schedule_is_too_short_for_is_refused(plan):
    text = STUDY.replace("methods: [joint]", "methods: [joint, pmr]").replace(
        "methods: {}", "methods: {pmr: {first_epoch: 4}}"
    )
    with pytest.raises(UserError, match=r"methods\.pmr: expected first_epoch below .* = 3, but"):
        plan(text)


def test_the_schema_knows_schedules():
    schema = json.loads(SCHEMAS["params"].read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert validator.is_valid(yaml.load(STUDY, Loader))
    assert not validator.is_valid(yaml.load(STUDY.replace("lr: 0.001", "lrr: 0.001"), Loader))
