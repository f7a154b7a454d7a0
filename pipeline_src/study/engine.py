"""How Snakemake works here: by the files that are there, past failures, and to the end.

Snakemake remembers the inputs of jobs and marks those that were cut off. A job that it starts for such a reason hides
what is missing downstream of it (`DAG.update_needrun`), and a call ends well with nothing done. Our outputs are renamed
into place when whole, so none of this is needed: what exists is right, what is missing is made, and a call that ends
well has made it.

The settings are made when Snakemake executes, so they hold for every profile and command line.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snakemake.exceptions import WorkflowError
from snakemake.io import ancient
from snakemake.jobs import GroupJob
from snakemake.logging import logger
from snakemake.settings.types import RerunTrigger
from snakemake_interface_logger_plugins.common import LogEvent

from pipeline_src.core.errors import listed
from pipeline_src.study import remains, watch
from pipeline_src.study.versioning import PARTS

if TYPE_CHECKING:
    from pipeline_src.study.plan import Plan

GUESSES = ("No SLURM account given", "No account was given", "Unable to guess SLURM account")
EACH_JOB = ("Select jobs to execute", "Execute ")


class Inputs:
    """What jobs of `plan` depend on, as far as it matters now; `again` are outputs that must be made though they are
    there.
    """

    def __init__(self, plan: Plan, again: set[str]):
        self.plan, self.again = plan, again

    def kept(self, path: str | Path) -> str:
        """An input. Its time does not matter; but what was made from it is made again if it is."""
        return str(path) if str(path) in self.again else ancient(str(path))

    def of(self, wildcards: Any, stage: str, outputs: tuple[str, ...]) -> list[str]:
        """The inputs of a job of a stage; none if its outputs (patterns, the first of which the plan has) are there, so
        that nothing below can start it.
        """
        made = [pattern.format(**dict(wildcards.items())) for pattern in outputs]
        needed = any(path in self.again or not Path(path).exists() for path in made)
        return [self.kept(path) for path in self.plan.inputs(stage, made[0])] if needed else []


def steer(workflow: Any, plan: Plan, gpus: int = 1, here: int | None = None) -> Inputs:
    """Change how `workflow`, whose Snakefile is being read, executes `plan`; what its rules name their inputs by.

    `gpus` train a run together; cells find `here` places on the GPUs of this machine (None: it has none).
    """
    execute = workflow.execute
    gone, outputs = remains.again(plan) if workflow.is_main_process else ([], [])
    again = set(map(str, outputs))

    def steered(*arguments: Any, **options: Any) -> Any:
        if workflow.is_main_process and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, _stop_once)
        _decide_by_files(workflow)
        asked = _asked(workflow)
        if workflow.is_main_process:
            executor = options.get("executor_plugin")  # `workflow` itself does not know it yet
            remote = executor is not None and not executor.common_settings.local_exec
            _limit_gpus(workflow, plan, gpus, None if remote else here)
        if asked & {"all", "runs"}:
            _ask_for(workflow, gone, again - {str(plan.index)} if asked == {"runs"} else again)
        try:
            done = execute(*arguments, **options)
        except WorkflowError:
            if "all" in asked and _failed(workflow):
                _report_what_is_there(plan)
            raise
        if not workflow.dryrun and (missing := [path for target in asked for path in _missing(plan, target)]):
            raise WorkflowError(
                f"{plan.file}: expected {listed([str(path) for path in missing])} at the end, but got no such file "
                f"({len(missing)} in all); run snakemake again, and report this if it happens twice"
            )
        return done

    workflow.execute = steered
    GroupJob.log_error = _group_failed
    logger.addFilter(_of_use)
    return Inputs(plan, again)


_log_group = GroupJob.log_error


def _group_failed(group: GroupJob, msg: str | None = None, **more: Any) -> None:
    """Say, in a line, why a job of the queue that groups several failed or was refused; Snakemake leaves that out."""
    if msg:
        print(" ".join(msg.partition("sbatch call:")[0].split()), file=sys.stderr)
    _log_group(group, msg, **more)


def _limit_gpus(workflow: Any, plan: Plan, gpus: int, here: int | None) -> None:
    """Limit the GPUs that jobs have at a time: where the limit is one of each job of a queue (a cluster's profile says
    so), to those of one run, so that the runs of a group come one after the other; else to those that are `here`.

    Snakemake cuts what a job asks for down to the limit. Raises WorkflowError if one is set that is less than the
    `gpus` that train a run together.
    """
    if "gpu" not in workflow.global_resources:
        a_run = max(plan.params.resources.train.gpus(gpus), 1)
        if limit := a_run if workflow.resource_scopes.is_local("gpu") else here:
            workflow.register_resource("gpu", limit)
    elif gpus > 1 and isinstance(most := workflow.global_resources["gpu"].value, int) and most < gpus:
        raise WorkflowError(
            f"{plan.file}: training.gpus: expected at most {most}, the limit that --resources or a profile sets by "
            f"gpu={most}, but got {gpus}; leave that limit out, or lower training.gpus"
        )


def _of_use(record: logging.LogRecord) -> bool:
    """Whether a message of Snakemake is worth a line. A line on the study stands for those on each job. Where no
    account is set, Slurm's plug-in says that it guesses one, by a command line that cannot run (`sacct: invalid
    option`).
    """
    event, said = getattr(record, "event", None), str(record.msg)
    each_job = event in (LogEvent.JOB_FINISHED, LogEvent.PROGRESS) or said.startswith(EACH_JOB)
    return not said.startswith(GUESSES) and (watch.epochs_shown() or not each_job)


def _stop_once(number: int, frame: object) -> None:
    """Ctrl-C: the jobs were told, too, and Snakemake waits for them. Another one must not break that."""
    signal.signal(number, _still_stopping)
    raise KeyboardInterrupt


def _still_stopping(number: int, frame: object) -> None:
    print("still stopping: the jobs save what they have done; the next call goes on there", file=sys.stderr)


def _decide_by_files(workflow: Any) -> None:
    dag, execution = workflow.dag_settings, workflow.execution_settings
    dag.rerun_triggers = frozenset({RerunTrigger.MTIME})  # which `ancient` inputs never pull
    dag.force_incomplete = True  # no job is taken for one that still runs somewhere
    execution.ignore_incomplete = True
    execution.keep_incomplete = True  # what a failed job has finished
    execution.keep_going = True
    execution.lock = False  # a killed call leaves its lock; one address gets one content whoever writes it


def _asked(workflow: Any) -> set[str]:
    """The targets that a call promises to have made at its end; none if it is to do a part of the work."""
    dag = workflow.dag_settings
    if not workflow.is_main_process or workflow.touch or workflow.remote_execution_settings.immediate_submit:
        return set()
    if dag.target_jobs or dag.until or dag.omit_from or dag.batch or dag.allowed_rules:
        return set()
    return set(dag.targets or ["all"]) & {"all", *PARTS}


def _missing(plan: Plan, target: str) -> list[Path]:
    if target == "all":
        gone, _ = remains.again(plan)
        return [path for path in [plan.index, *_stamps(plan, "runs")] if not path.exists()] + gone
    if target == "runs":
        return [path for path in _stamps(plan, "runs") if not path.exists()]
    return [path for stage in PARTS[target] for job in plan.jobs(stage) for path in job if not path.exists()]


def _stamps(plan: Plan, target: str) -> list[Path]:
    return [path for stage in PARTS[target] for path, _ in plan.places(stage)]


def _ask_for(workflow: Any, gone: list[Path], outputs: set[str]) -> None:
    if gone:
        names = listed([str(path) for path in gone])
        print(f"{names}: deleted since, to be made again ({len(gone)} in all)", file=sys.stderr)
    if outputs:
        workflow.dag_settings.forcerun = {*workflow.dag_settings.forcerun, *outputs}


def _failed(workflow: Any) -> bool:
    """Whether jobs failed, all others were done, and tables can be made of these."""
    scheduler = getattr(workflow, "scheduler", None)
    if workflow.dryrun or scheduler is None or scheduler.running:  # still running: the user has cancelled
        return False
    rules = {rule for job in scheduler.failed for rule in job.rules}
    return bool(rules) and "aggregate" not in rules


def _report_what_is_there(plan: Plan) -> None:
    there = sum(run.metrics.exists() for run in plan.runs)
    if there:
        subprocess.run(
            [sys.executable, "-m", "pipeline_src", "aggregate", f"--params={plan.file}"], stdout=sys.stderr, check=False
        )
    print(
        f"{plan.file}: not finished, {there} of {len(plan.runs)} runs are there; "
        f"`python -m pipeline_src status --params={plan.file}` says what failed",
        file=sys.stderr,
    )
