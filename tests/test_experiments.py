"""The experiments that stand beside published tables: complete, planned without data, and named as the figures are."""

import csv
import functools
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_src.datasets.base import datasets
from pipeline_src.study import config, estimate
from pipeline_src.study.outputs import NO_FUSION
from pipeline_src.study.params import Settings
from pipeline_src.study.plan import Plan

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "experiments").glob("*.yaml"))
# Of the embedded dataset, beside no published table
OURS = {
    "av-digits-segments",
    "ave-localisation",
    "sentiment-regression",
    "all-methods",
    "all-methods-mmtm",
    "all-methods-shared",
    "equal-tuning",
    "informativeness",
    "more-seeds",
    "new-data",
    "robustness",
    "robustness-trained",
    "when-balancing-helps",
}
TABLES = [file for file in FILES if file.stem not in OURS]
with (ROOT / "pipeline_src/reports/published.csv").open() as opened:
    FIGURES = list(csv.DictReader(opened))
OTHER_DATASETS = {"balanced_av", "esc50"}  # in the tables of papers whose other datasets are here
# No figure of the paper itself was found, or its recipe is not known; their files say so.
WITHOUT_FIGURES = {
    "inforeg-2025-ks",
    "inforeg-2025-ks-greedy",
    "ogm-ge-2022-ks",
    "opm-2024-ks",
    "opm-2024-ks-missing",
    "relearning-2024-ks",
    "relearning-2024-mosi",
}


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def plan(request, tmp_path, monkeypatch):
    """The plan of an experiment on a machine that has none of its data."""
    monkeypatch.chdir(tmp_path)
    return Plan(request.param)


def test_every_experiment_is_planned_and_estimated_without_its_data(plan):
    compared = [run for run in plan.runs if not run.cell.role]  # all but those of equal tuning
    assert plan.index and len(compared) == len(plan.rows) * len(plan.params.study.seeds) > 0
    costs = estimate.estimate(plan)
    assert sum(cost.runs for cost in costs) == len(plan.runs)
    for cost in costs:
        assert not cost.counted and min(cost.clips.values()) > 0
        assert min(cost.flop, cost.gpu_seconds) > 0
        assert (min(cost.core_seconds, cost.bytes) > 0) is bool(cost.draws)  # schedules share a cache
    assert any(cost.draws for cost in costs)
    epochs = dict.fromkeys(str(training.epochs) for training in plan.params.trainings().values())
    assert f"{len(plan.runs)} runs of {' or '.join(epochs)} epochs; estimated" in estimate.line(plan)


@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.stem)
def test_every_table_has_our_protocol_and_says_where_it_is_from(file):
    params = _params(file)
    assert len(params.study.seeds) >= 3 and "joint" in params.study.methods and params.study.unimodal
    assert params.training.select == "best_val" and params.training.track_test
    assert params.tracking.experiment == file.stem
    assert all(one.recipe in config.shipped_recipes() for one in params.datasets.values())
    head = file.read_text().split("\n\n")[0]
    assert "arXiv:" in head or "user" in head
    assert all(part in head for part in ("Figures:", "Settings:" if "arXiv:" in head else "schedule", "Ours:"))
    assert f"params=experiments/{file.name}" in head


@functools.cache
def _params(file: Path) -> Settings:
    return config.load(file)


def _experiments(recipe: str) -> list[Settings]:
    found = [_params(file) for file in TABLES]
    return [params for params in found if recipe in {one.recipe for one in params.datasets.values()}]


@pytest.mark.parametrize("recipe", sorted({row["recipe"] for row in FIGURES} - {""}))
def test_a_figure_with_a_recipe_has_its_experiment(recipe):
    assert recipe in config.shipped_recipes()
    studies = _experiments(recipe)
    assert studies
    kinds = {one.kind: datasets[one.kind].modalities for params in studies for one in params.datasets.values()}
    fusions = {NO_FUSION, "concat-mlp", *(fusion for params in studies for fusion in params.study.fusions)}
    for row in (row for row in FIGURES if row["recipe"] == recipe):
        assert row["dataset"] in kinds, row
        assert row["fusion"] in fusions, row
        alone = row["method"].removesuffix("-only")
        assert (row["fusion"] == NO_FUSION) == (alone in kinds[row["dataset"]] or alone.startswith("unimodal_")), row
    methods = {method for params in studies for method in params.study.methods}
    methods |= {f"{m}-only" for modalities in kinds.values() for m in modalities}
    assert methods & {row["method"] for row in FIGURES if row["recipe"] == recipe}


def test_every_experiment_beside_a_table_says_which_one():
    assert all(_params(file).reproduces for file in TABLES)


def test_every_experiment_has_figures_or_says_that_it_has_none():
    recipes = {row["recipe"] for row in FIGURES}
    found = {f.stem for f in TABLES if recipes.isdisjoint(one.recipe for one in _params(f).datasets.values())}
    assert found == WITHOUT_FIGURES


def test_figures_name_data_sets_and_say_where_they_are_from():
    for row in FIGURES:
        assert row["dataset"] in {*datasets, *OTHER_DATASETS}, row
        assert row["provenance"] in {"first-hand", "quoted", "user"} and row["source"], row
        assert (
            row["metric"] in {"accuracy", "macro_f1", "f1", "segment_accuracy"} and 0 < float(row["percent"]) < 100
        ), row


def test_a_dry_run_without_the_data_ends_with_runs_and_gpu_hours(tmp_path):
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path)]
    file = ROOT / "experiments/ogm-ge-2022-cremad.yaml"
    done = subprocess.run(
        [*command, "--dry-run", "--quiet", "--config", f"params={file}"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{file}: 40 runs of 100 epochs; estimated") and "GPU hours" in last
