"""What Snakemake is told, and when a call that Snakemake calls a success is an error."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.exceptions import WorkflowError
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
