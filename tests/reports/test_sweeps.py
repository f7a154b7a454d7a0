"""Sweeps: what counts as one, and the curves that are drawn of it."""

from types import SimpleNamespace

import pandas as pd
import pytest

from benchmarks.grid import results
from pipeline_src.methods.ogm import OGMGEParams
from pipeline_src.methods.opm import OPMOGMParams
from pipeline_src.methods.pmr import PMRParams
from pipeline_src.reports.figures.drawing import shown
from pipeline_src.reports.figures.grid_sweeps import grid_sweeps
from pipeline_src.reports.figures.sweeps import sweeps
from pipeline_src.reports.scores import COLUMNS
from pipeline_src.reports.sweeps import Sweep, flat, of_grid, of_methods
from pipeline_src.study.plan import Plan
from tests.reports.gridded import grid
from tests.study.test_config import VALID

SEEDS = [0, 1, 2]


def cell(method, kind, params, fusion="concat"):
    return SimpleNamespace(method=method, fusion=fusion, spec=SimpleNamespace(method=kind, params=params))


SHARES = {"pmr_1": 0.01, "pmr": 0.1, "pmr_100": 1.0}


def test_methods_that_differ_in_one_number_are_a_sweep_in_the_order_of_their_values():
    cells = [cell(name, "pmr", PMRParams(share=share)) for name, share in reversed(SHARES.items())]
    assert of_methods(cells) == [Sweep("pmr", "share", ((0.01, "pmr_1"), (0.1, "pmr"), (1.0, "pmr_100")))]


def test_two_points_other_kinds_and_other_differences_are_none():
    two = [cell(name, "pmr", PMRParams(share=share)) for name, share in list(SHARES.items())[:2]]
    assert of_methods(two) == []
    assert of_methods([*two, cell("ogm_ge", "ogm_ge", OGMGEParams())]) == []
    assert of_methods([*two, cell("pmr_100", "pmr", PMRParams(share=1.0, alpha=2.0))]) == []
    words = [cell(w, "pmr", PMRParams(weights=w)) for w in ("proportional", "binary")]
    assert of_methods([*words, cell("pmr", "pmr", PMRParams(share=0.5))]) == []


def test_a_point_can_be_of_several_sweeps_and_a_parameter_in_a_block():
    blocks = {
        "both": {},
        "q_low": {"opm": {"q_base": 0.3}},
        "q_high": {"opm": {"q_base": 0.7}},
        "alpha_low": {"ogm": {"alpha": 0.1}},
        "alpha_high": {"ogm": {"alpha": 2.6}},
    }
    cells = [cell(name, "opm_ogm", OPMOGMParams.model_validate(block)) for name, block in blocks.items()]
    found = {sweep.parameter: dict(sweep.points) for sweep in of_methods(cells)}
    assert found == {
        "opm.q_base": {0.3: "q_low", 0.5: "both", 0.7: "q_high"},
        "ogm.alpha": {0.1: "alpha_low", 0.8: "both", 2.6: "alpha_high"},
    }
    assert flat({"a": {"b": 1, "c": [1, 2]}, "d": None}) == {"a.b": 1, "a.c": "[1, 2]", "d": "null"}


def planned(tmp_path, monkeypatch, more: str, study: str = "") -> Plan:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(VALID.replace("  methods: [joint]\n", f"  methods: [joint]\n{study}") + more)
    return Plan("p.yaml")


RATES = "schedules: {slow: {lr: 0.001}, plain: {}, fast: {lr: 0.5}}\n"


def test_schedules_that_differ_in_one_number_are_a_sweep(tmp_path, monkeypatch):
    plan = planned(tmp_path, monkeypatch, RATES, "  schedules: [slow, fast, plain]\n")
    (one,) = plan.params.studied_grids.values()
    points = ((0.001, ("slow",)), (0.02, ("plain",)), (0.5, ("fast",)))
    assert of_grid(plan, one.name, one.datasets) == Sweep("av_digits", "training.lr", points)
    more = RATES.replace("fast: {lr: 0.5}", "fast: {lr: 0.5, batch_size: 8}")
    plan = planned(tmp_path, monkeypatch, more, "  schedules: [slow, fast, plain]\n")
    (one,) = plan.params.studied_grids.values()
    assert of_grid(plan, one.name, one.datasets) is None


def test_a_grid_over_a_number_of_the_data_is_a_sweep(tmp_path, monkeypatch):
    levels = "grids: {av_digits: {picture: {clear: {occlusion: 0.0}, usual: {}, hidden: {occlusion: 0.5}}}}\n"
    plan = planned(tmp_path, monkeypatch, levels)
    (one,) = plan.params.studied_grids.values()
    points = ((0.0, ("clear",)), (0.07, ("usual",)), (0.5, ("hidden",)))
    assert of_grid(plan, one.name, one.datasets) == Sweep("av_digits", "data.occlusion", points)


def swept(scores: dict[str, list[float]], fusions=("concat",)):
    rows = [
        ("toy", "toy-1", fusion, method, seed, "test", "fused", "accuracy", value)
        for fusion in fusions
        for method, values in scores.items()
        for seed, value in zip(SEEDS, values, strict=True)
    ]
    made = results(pd.DataFrame(rows, columns=COLUMNS), SEEDS, 0.95)
    made.sweeps = [Sweep("pmr", "share", tuple((value, name) for name, value in SHARES.items()))]
    return made


SCORES = {"joint": [0.5, 0.52, 0.54], "pmr_1": [0.5, 0.5, 0.5], "pmr": [0.6, 0.62, 0.64], "pmr_100": [0.7, 0.7, 0.73]}


def test_a_sweep_is_a_curve_with_its_interval_and_the_baseline_level():
    made = swept(SCORES, ("concat", "sum"))
    assert "sweeps" in made.offers
    (drawing,) = sweeps(made)
    assert [axes.get_title(loc="left") for axes in drawing.figure.axes] == ["concat", "sum"]
    axes = drawing.figure.axes[0]
    curve, level = axes.lines
    assert list(curve.get_xdata()) == [0.01, 0.1, 1.0] and axes.get_xscale() == "log"
    assert list(curve.get_ydata()) == pytest.approx([50, 62, 71])
    assert list(level.get_ydata()) == pytest.approx([52, 52, 52])
    assert axes.get_xlabel() == "pmr.share" and "percent" in axes.get_ylabel()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.01", "0.1", "1"]
    band = axes.collections[0].get_paths()[0].vertices
    half = 4.302653 * 2 / 3**0.5  # Student's t for two degrees of freedom, a standard deviation of 2 points
    at = band[band[:, 0] == 0.1][:, 1]
    assert (at.min(), at.max()) == pytest.approx((62 - half, 62 + half), rel=1e-4)
    assert set(drawing.legend) == {"pmr", "joint"}
    assert "mean over 3 seeds" in drawing.caption and "not corrected" in drawing.caption
    assert curve.get_marker() != "None" and level.get_marker() == "None"
    assert "pmr over share" in str(shown(drawing, folded=False))  # as the report has it


def test_values_that_lie_near_have_a_linear_axis_and_a_value_without_scores_is_left_out():
    made = swept({name: SCORES[name] for name in ("joint", "pmr_1", "pmr_100")})
    made.sweeps = [Sweep("pmr", "alpha", ((1.0, "pmr_1"), (2.0, "pmr"), (4.0, "pmr_100")))]
    (drawing,) = sweeps(made)
    (axes,) = drawing.figure.axes
    assert axes.get_xscale() == "linear" and list(axes.lines[0].get_xdata()) == [1.0, 4.0]


def test_a_grid_of_one_number_has_a_line_for_every_method():
    values = {
        ("low",): {"joint": [0.5, 0.5, 0.52], "pmr": [0.6] * 3},
        ("mid",): {"joint": [0.6] * 3, "pmr": [0.6] * 3},
        ("high",): {"joint": [0.7] * 3, "pmr": [0.65] * 3},
    }
    made = grid({"schedule": ["low", "mid", "high"]}, values, seeds=(0, 1, 2))
    assert "sweep" not in made.offers
    made = grid({"schedule": ["low", "mid", "high"]}, values, seeds=(0, 1, 2))
    made.sweep = Sweep("toy", "training.lr", ((0.001, ("low",)), (0.002, ("mid",)), (0.003, ("high",))))
    assert "sweep" in made.offers
    (drawing,) = grid_sweeps(made)
    (axes,) = drawing.figure.axes
    joint, pmr = axes.lines
    assert list(joint.get_ydata()) == pytest.approx([50 + 2 / 3, 60, 70]) and list(pmr.get_ydata()) == pytest.approx(
        [60, 60, 65]
    )
    assert axes.get_xlabel() == "training.lr" and list(drawing.legend) == ["joint", "pmr"]
    assert "training.lr" in str(shown(drawing, folded=False))
