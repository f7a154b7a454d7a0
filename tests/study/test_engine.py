"""What Snakemake is told, and when a call that Snakemake calls a success is an error."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.exceptions import WorkflowError
from snakemake.jobs import GroupJob
from snakemake.resources import Resource, ResourceScopes
from snakemake.settings.types import DAGSettings, ExecutionSettings, RerunTrigger

from pipeline_src.core import files
from pipeline_src.study import engine, remains
from pipeline_src.study.plan import Plan

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return Plan()


def test_why_a_group_of_jobs_was_refused_is_said_in_a_line(plan, capsys):
    """Snakemake itself drops it."""
    engine.steer(workflow(), plan)
    group = GroupJob.__new__(GroupJob)
    group.groupid, group._jobs = "cells", frozenset()
    group.log_error("SLURM sbatch failed. The error message was 'sbatch: error:\n no'.\n    sbatch call:\n sbatch -p x")
    assert capsys.readouterr().err == "SLURM sbatch failed. The error message was 'sbatch: error: no'.\n"


class Limited(SimpleNamespace):
    """A workflow as far as its limits of resources go; `limits` are those it has been given."""

    is_main_process = True

    def __init__(self, local: bool, scope: str = "local", **limits: int):
        super().__init__(local_exec=local, resource_scopes=ResourceScopes(gpu=scope))
        self.global_resources = {name: Resource(name, value) for name, value in limits.items()}

    def register_resource(self, name: str, value: int) -> None:
        self.global_resources[name] = Resource(name, value)

    @property
    def limits(self) -> dict[str, int]:
        return {name: limit.value for name, limit in self.global_resources.items()}


@pytest.mark.parametrize(
    ("workflow", "gpus", "limits"),
    [
        (Limited(local=True), 1, {"gpu": 8}),  # the machine's, which Snakemake hands out
        (Limited(local=True), 4, {"gpu": 8}),
        (Limited(local=True, gpu=4), 4, {"gpu": 4}),  # the user's
        (Limited(local=False), 1, {"gpu": 1}),  # the runs of a group one after the other
        (Limited(local=False), 4, {"gpu": 4}),
        (Limited(local=False, gpu=6), 4, {"gpu": 6}),
        (Limited(local=False, scope="global"), 4, {}),  # a limit would be one of the whole cluster
    ],
)
def test_gpus_are_limited_by_the_machine_or_by_a_run_in_each_job_of_a_cluster(plan, workflow, gpus, limits):
    engine.limit_gpus(workflow, plan, gpus, here=8)
    assert workflow.limits == limits


def test_without_a_gpu_here_there_is_no_limit(plan):
    engine.limit_gpus(workflow := Limited(local=True), plan, 1, here=None)
    assert workflow.limits == {}


@pytest.mark.parametrize("local", [True, False])
def test_a_limit_that_would_cut_a_run_down_is_refused(plan, local):
    expected = (
        "params.yaml: training.gpus: expected at most 2, the limit that --resources or a profile sets by gpu=2, but"
    )
    with pytest.raises(WorkflowError, match=f"^{expected} got 4; leave that limit out, or lower training.gpus$"):
        engine.limit_gpus(Limited(local=local, gpu=2), plan, 4, here=8)


def finish(plan) -> None:
    """Every file of the study but those of its data."""
    for run in plan.runs:
        for file in (*run.train_files, *run.evaluate_files):
            files.write_json(file, {"status": "complete"})
    files.write_text(plan.results / "figures/a.svg", "")
    files.write_json(plan.index, {"files": ["figures/a.svg"]})


def workflow(**dag) -> SimpleNamespace:
    """What the engine reads of a workflow whose execution does nothing and ends well."""
    return SimpleNamespace(
        execute=lambda: None,
        dag_settings=DAGSettings(**dag),
        execution_settings=ExecutionSettings(),
        remote_execution_settings=SimpleNamespace(immediate_submit=False),
        is_main_process=True,
        dryrun=False,
        touch=False,
    )


@pytest.mark.parametrize("targets", [(), ("all",), ("runs",), ("features",), ("data",)])
def test_a_call_that_ends_without_what_it_was_to_make_is_an_error(plan, targets):
    made = workflow(targets=frozenset(targets))
    engine.steer(made, plan)
    with pytest.raises(WorkflowError, match=r"params.yaml: expected .* at the end, but got no such file"):
        made.execute()


def test_a_call_that_has_made_the_study_ends_well(plan):
    finish(plan)
    made = workflow()
    engine.steer(made, plan)
    made.execute()
    plan.index.unlink()
    with pytest.raises(WorkflowError, match=f"expected {plan.index} at the end"):
        made.execute()


@pytest.mark.parametrize(
    "change",
    [{"until": {"train"}}, {"omit_from": {"aggregate"}}, {"targets": {"results/a"}}, {"target_jobs": {"train:"}}],
)
def test_a_call_that_is_to_do_a_part_ends_as_snakemake_says(plan, change):
    made = workflow(**change)
    engine.steer(made, plan)
    made.execute()


def test_a_dry_run_ends_well(plan):
    made = workflow()
    made.dryrun = True
    engine.steer(made, plan)
    made.execute()


def test_no_memory_of_snakemakes_is_asked_whatever_the_command_line(plan):
    finish(plan)
    made = workflow(rerun_triggers=RerunTrigger.all())
    engine.steer(made, plan)
    made.execute()
    assert made.dag_settings.rerun_triggers == {RerunTrigger.MTIME}
    execution = made.execution_settings
    assert (execution.ignore_incomplete, execution.keep_incomplete, execution.keep_going) == (True, True, True)
    assert not execution.lock


def test_lost_files_are_asked_for_again_with_what_was_made_from_them(plan, capsys):
    finish(plan)
    one, other, third, whole = plan.runs[:4]
    (one.folder / "weights.safetensors").unlink()
    third.record.unlink()
    (other.evaluation / "predictions.parquet").unlink()
    made = workflow()
    inputs = engine.steer(made, plan)
    with pytest.raises(WorkflowError):
        made.execute()
    asked = {one.metrics, other.metrics, third.metrics, plan.index}
    assert made.dag_settings.forcerun == set(map(str, asked))
    assert "(3 in all)" in capsys.readouterr().err
    assert inputs.kept(whole.metrics).flags["ancient"] and not hasattr(inputs.kept(one.metrics), "flags")
    pattern, (new, cache) = ("{folder}/metrics.json",), (plan.runs[4], list(map(str, one.cell.data.files)))
    new.metrics.unlink()
    assert inputs.of({"folder": whole.evaluation}, "evaluate", pattern) == []
    assert inputs.of({"folder": one.evaluation}, "evaluate", pattern) == cache
    assert inputs.of({"folder": new.evaluation}, "evaluate", pattern) == cache
    assert inputs.of({"folder": "unknown"}, "evaluate", pattern) == []  # its job says what it is


def test_what_a_run_had_goes_before_it_is_trained_again(plan):
    finish(plan)
    run, other = plan.runs[:2]
    remains.make_way(plan, plan.runs, "train")
    assert plan.index.exists() and run.record.exists(), "nothing is to be done"
    (run.folder / "metrics.jsonl").unlink()
    remains.make_way(plan, [run, other], "train")
    assert not run.record.exists() and not run.evaluation.exists() and not plan.index.exists()
    assert other.record.exists() and other.metrics.exists()


def test_a_run_that_diverged_has_lost_nothing(plan):
    finish(plan)
    run = plan.runs[0]
    files.write_json(run.record, {"status": "diverged"})
    (run.folder / "weights.safetensors").unlink()
    (run.evaluation / "predictions.parquet").unlink()
    assert remains.lost(run) == [] and remains.again(plan) == ([], [])
    (run.folder / "weights.safetensors").touch()
    files.write_json(run.record, {"status": "complete"})
    assert remains.lost(run) == [run.evaluation / "predictions.parquet"]


@pytest.mark.parametrize("content", ["{", "[]", '{"params": "x"}'])
def test_an_index_that_is_no_index_is_made_again(plan, content):
    finish(plan)
    plan.index.write_text(content)
    assert remains.again(plan) == ([plan.index], [plan.index])
