"""What is left of runs and tables whose files were deleted: found by looking, made again by the next `snakemake`.

A record stands for a trained run, metrics.json for its evaluation, and the index for the tables. Each is written after
the files that it stands for, so one of those can be missing only if somebody deleted it. Snakemake knows metrics.json
and the tables alone: the job that makes metrics.json trains the run where that is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_src.core import files

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Run
    from pipeline_src.study.plan import Plan


def lost(run: Run) -> list[Path]:
    """Files of a trained or evaluated run that are not there. A run that diverged may have none but its record."""
    trained, evaluated = lost_of_training(run), lost_of_evaluation(run)
    if (trained or evaluated) and _read(run.record).get("status") == "diverged":
        return []
    return trained + evaluated


def lost_of_training(run: Run) -> list[Path]:
    begun = run.record.exists() or run.metrics.exists()
    return [file for file in run.train_files if not file.exists()] if begun else []


def lost_of_evaluation(run: Run) -> list[Path]:
    return [file for file in run.evaluate_files if not file.exists()] if run.metrics.exists() else []


def lost_tables(plan: Plan) -> list[Path]:
    """Files that the index of the tables names and that are not there; figures, as their number depends on the data."""
    if not plan.index.exists():
        return []
    try:
        return [file for file in map(plan.results.joinpath, _read(plan.index)["files"]) if not file.exists()]
    except (KeyError, TypeError):
        return [plan.index]  # not what the aggregate stage writes


def again(plan: Plan) -> tuple[list[Path], list[Path]]:
    """(lost files, outputs that stand for them and must be made again) of a plan's runs and tables."""
    gone, outputs = [], []
    for run in plan.runs:
        if missing := lost(run):
            gone += missing
            outputs.append(run.metrics)
    gone += lost_tables(plan)
    return gone, [*outputs, plan.index] if gone else []


def make_way(plan: Plan, runs: list[Run], stage: str) -> None:
    """Before a stage makes `runs`: remove what must not outlive what they had.

    That is the index of the study, which is not finished any more, and, before training, the record of a run of which
    files are lost, and every evaluation of weights that will be others.
    """
    started = False
    for run in runs:
        if stage == "evaluate":
            started |= not run.metrics.exists() or bool(lost(run))
        elif not run.record.exists() or (lost(run) and lost_of_training(run)):
            started = True
            run.record.unlink(missing_ok=True)
            for folder in run.folder.glob("evaluation-*"):
                files.remove(folder)
    if started:
        plan.index.unlink(missing_ok=True)


def _read(file: Path) -> dict:
    try:
        value = files.read_json(file)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
