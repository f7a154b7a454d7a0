"""What Snakemake is told, and when a call that Snakemake calls a success is an error."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.exceptions import WorkflowError
from snakemake.jobs import GroupJob
from snakemake.resources import Resources, ResourceScopes
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


def limited(plan, gpus: int, here: int | None, local: bool, scope: str, limits: dict[str, int]) -> dict[str, int]:
    """The limits of resources by which a workflow executes that had others."""
    made = workflow(targets=frozenset({"a file"}))
    made.resource_scopes["gpu"] = scope
    for name, value in limits.items():
        made.register_resource(name, value)
    engine.steer(made, plan, gpus, here)
    made.execute(executor_plugin=SimpleNamespace(common_settings=SimpleNamespace(local_exec=local)))
    return {name: limit.value for name, limit in made.global_resources.items()}


@pytest.mark.parametrize(
    ("local", "scope", "gpus", "given", "limits"),
    [
        (True, "global", 1, {}, {"gpu": 8}),  # the machine's, which Snakemake hands out
        (True, "global", 4, {}, {"gpu": 8}),
        (True, "global", 4, {"gpu": 4}, {"gpu": 4}),  # the user's
        (False, "local", 1, {}, {"gpu": 1}),  # the runs of a group one after the other
        (False, "local", 4, {}, {"gpu": 4}),
        (False, "local", 4, {"gpu": 6}, {"gpu": 6}),
        (True, "local", 4, {}, {"gpu": 4}),  # a dry run
        (False, "global", 4, {}, {}),  # it would be a limit of the whole cluster
    ],
)
def test_gpus_are_limited_by_the_machine_or_by_a_run_in_each_job_of_a_cluster(plan, local, scope, gpus, given, limits):
    assert limited(plan, gpus, 8, local, scope, given) == limits


def test_without_a_gpu_here_there_is_no_limit(plan):
    assert limited(plan, 1, None, True, "global", {}) == {}


@pytest.mark.parametrize("local", [True, False])
def test_a_limit_that_would_cut_a_run_down_is_refused(plan, local):
    expected = "at most 2, the limit that --resources or a profile sets by gpu=2, but got 4; leave that limit out, or"
    with pytest.raises(WorkflowError, match=f"^params.yaml: training.gpus: expected {expected} lower training.gpus$"):
        limited(plan, 4, 8, local, "local", {"gpu": 2})


def finish(plan) -> None:
    """Every file of the study but those of its data."""
    for run in plan.runs:
        for file in (*run.train_files, *run.evaluate_files):
            files.write_json(file, {"status": "complete"})
    files.write_text(plan.results / "figures/a.svg", "")
    files.write_json(plan.index, {"files": ["figures/a.svg"]})


def workflow(**dag) -> SimpleNamespace:
    """What the engine reads of a workflow whose execution does nothing and ends well."""
    resources = Resources({})
    return SimpleNamespace(
        execute=lambda executor_plugin=None: None,
        global_resources=resources,
        register_resource=resources.__setitem__,
        resource_scopes=ResourceScopes(),
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
