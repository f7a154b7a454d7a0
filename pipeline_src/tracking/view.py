"""A run in MLflow's terms, from its folder. It only reads, and needs neither MLflow nor the run's end.

Names of metrics, which the UI draws in sections by what stands before the slash:
    train/loss, train/lr, train/seconds                by epoch
    val/accuracy, val/accuracy_audio                   by epoch, of the fused model and of unimodal logits: the primary
                                                       metric of the dataset's task
    test_each_epoch/accuracy, ...                      the same on test, where params.yaml asks; never for choices
    ratio/audio, coefficient/audio, ...                by epoch, the quantities that the method declares
    test/accuracy, test/accuracy_probe_audio, ...      of the selected epoch: rounded values of metrics.parquet
    test/accuracy_gain                                 test/accuracy less that of joint training, by fusion and seed
    val_selected/..., run/seconds, run/forwards, ...   the same for val, and what the run cost
    corrupted/accuracy_noise_0.5_audio, ...            test accuracy with a corrupted modality, or all of them

MLflow's tables show every digit that they have, so values of the selected epoch are rounded; metrics.parquet has all.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_src.core.fingerprint import fingerprint
from pipeline_src.core.params import varying
from pipeline_src.evaluation import CORRUPTED, FUSED
from pipeline_src.features import read_info
from pipeline_src.reports import declared
from pipeline_src.reports.scores import BASELINE
from pipeline_src.study import runs as states
from pipeline_src.study.outputs import TRIAL, TUNED
from pipeline_src.study.places import ATTEMPT, CHECKPOINT
from pipeline_src.study.runs import COMPLETE, STOPPED, RunFiles, State

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Cell, Run
    from pipeline_src.study.plan import Plan

VERSION = 2  # of what is mirrored; another one mirrors finished runs again
DIGITS = 5  # after the point, of what is not by epoch
MEMBER = "yes"  # value of a study's tag
RUNNING, FINISHED, FAILED, KILLED = "RUNNING", "FINISHED", "FAILED", "KILLED"
FINAL = {
    "test": "test",
    "val": "val_selected",
    "train": "run",
    CORRUPTED: CORRUPTED,
}  # split of metrics.json -> section


@dataclass(frozen=True)
class View:
    """One run, as its folder shows it."""

    name: str
    address: str  # the run's folder, which holds the fingerprint of all that determines it: the run's identity
    attempt: str | None  # tells a training from scratch from another at the same address; None before the first epoch
    status: str
    started: int  # Unix time, ms
    ended: int | None
    params: dict[str, str]
    tags: dict[str, str]
    epochs: list[tuple[int, float, dict[str, float]]]  # (epoch from 1, seconds since the start, metrics)
    final: dict[str, float]
    final_time: int  # Unix time, ms
    artifacts: list[Path]
    dataset: dict[str, Any]  # cache.json, with its folder
    digest: str | None  # of all there is to mirror, once the run is finished


def read(run: Run, baseline: Run | None = None) -> View | None:
    """The view of a run (of a Plan), or None if it has not been begun; `baseline` is what its gain is over.

    Raises UserError if a file is not valid.
    """
    reader = RunFiles(run)
    for _ in range(3):
        complete = reader.trained()
        about = reader.record() if complete else reader.attempt()
        if about is not None:
            return _read(run, reader, complete, about, baseline)
    return None  # or its attempt went while we looked, and the record has come


def stopped(view: View) -> View:
    """A view of a run whose training is known to have ended without a word."""
    return replace(view, status=KILLED, ended=view.started + int(1000 * (view.epochs[-1][1] if view.epochs else 0)))


def state(run: Run) -> tuple:
    """Changes when the run's folder does; a stat per file."""
    return tuple(_stat(file) for file in (run.record, run.folder / ATTEMPT, run.folder / CHECKPOINT, run.metrics))


def _stat(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def study_tag(plan: Plan) -> str:
    """The tag that the runs of a study have; its value is MEMBER."""
    return f"study.{plan.results.name}"


def baselines(plan: Plan) -> dict[Path, Run]:
    """The run of joint training with the same data, fusion and seed, tuned alike, by the folder of a run; none of
    trials and of joint training itself.
    """
    every: dict[tuple, Run] = {}
    for run in plan.runs:
        if run.cell.method in (BASELINE, f"{BASELINE}-{TUNED}"):
            every[_compared(run)] = run
    found = {run.folder: every.get(_compared(run)) for run in plan.runs if run.cell.role != TRIAL}
    return {folder: other for folder, other in found.items() if other is not None and other.folder != folder}


def _compared(run: Run) -> tuple:
    return run.cell.data.name, run.cell.fusion, run.cell.role, run.seed


def group(cell: Cell) -> str:
    """What the runs of one configuration share, and no other has: `av_digits/concat/ogm-124481b86f`. Where data vary
    with the seed, the address of a cell holds its draw, so the configuration has a fingerprint of its own.
    """
    key = cell.fp
    if cell.data.vary:
        params = cell.data.dataset.params
        drawn = {name for what in cell.data.vary for name in varying(type(params), what)}
        spec = {name: value for name, value in cell.spec.address().items() if name != "requires"}
        data = {name: value for name, value in params.model_dump(mode="json").items() if name not in drawn}
        points = [] if cell.search is None else [dict(point) for point in cell.search.points]
        key = fingerprint(spec=spec, code=cell.code, data=data, recipe=cell.data.recipe, points=points)
    return f"{cell.place.as_posix()}{'/trial' if cell.role == TRIAL else ''}-{key}"


def _gain(run: Run, score: str, final: dict[str, float], baseline: Run | None) -> tuple[dict[str, float], list[Path]]:
    """{test/<score>_gain: value} and the file that it is from besides the run's own; empty where there is none."""
    other = None if baseline is None else RunFiles(baseline)
    if other is None or f"test/{score}" not in final or not other.evaluated():
        return {}, []
    theirs = {_final_name(row): row["value"] for row in other.metrics()}.get(f"test/{score}")
    if theirs is None:  # it diverged
        return {}, []
    return {f"test/{score}_gain": final[f"test/{score}"] - theirs}, [other.run.metrics]


def _read(run: Run, reader: RunFiles, complete: bool, about: dict[str, Any], baseline: Run | None) -> View:
    folder, rows = run.folder, reader.rows()
    final, artifacts, final_time = {}, [], 0
    beside: list[Path] = []
    evaluated = complete and reader.evaluated()
    if evaluated:
        final = {_final_name(row): float(row["value"]) for row in reader.metrics()}
        gain, beside = _gain(run, declared.primary(run.cell.spec.task).score, final, baseline)
        final |= gain
        final = {name: round(value, DIGITS) for name, value in final.items()}
        final_time = max(int(file.stat().st_mtime * 1000) for file in (run.metrics, *beside))
        artifacts = [run.record, run.metrics, reader.predictions()]
    cell = run.cell
    epochs, clock = [], 0.0
    for row in rows:
        clock += row["seconds"]
        epochs.append((row["epoch"] + 1, clock, {_epoch_name(k): v for k, v in row.items() if _is_metric(k, v)}))
    state, quantities = reader.state(), declared.quantities(cell)
    status, ended = _status(state, about)
    versions, machine = about["versions"], about["machine"]
    tags = {
        "kind": "trial" if cell.role == TRIAL else "run",
        "group": group(cell),
        "tuning": cell.role or None,
        "chosen": json.dumps(about["tuning"]["values"]) if "tuning" in about else None,
        **{name: str(value) for name, value in run.names.items()},
        "address": folder.as_posix(),
        "data": about["cache"]["sha256"],
        "code": about["code"],
        "version": versions["counterpoise"],
        "git": versions["git"],
        "host": machine["host"],
        "device": machine["device"],
        "slurm_job": machine["slurm_job"],
        "state": state.state if state.state in (states.DIVERGED, states.FAILED) else None,
        "error": state.error or about.get("error"),
        "evaluation": cell.evaluation_fp if evaluated else None,
        "mlflow.note.content": "\n".join(f"- {declared.sentence(q)}" for q in quantities.values()) or None,
    }
    return View(
        name=run.label,
        address=folder.as_posix(),
        attempt=fingerprint(first=rows[0]) if rows else None,
        status=status,
        started=_ms(about["started"]),
        ended=ended,
        params={k: str(v) for k, v in (_flat(run.names) | _flat(about["parameters"])).items()},
        tags={k: str(v)[:5000] for k, v in tags.items() if v is not None},
        epochs=epochs,
        final=final,
        final_time=final_time,
        artifacts=artifacts,
        dataset=read_info(cell.data.cache) | {"folder": cell.data.cache.as_posix()}
        if cell.data.cache_file.exists()
        else {},
        digest=_digest(run.record, run.metrics, *beside) if evaluated else None,
    )


def _status(state: State, about: dict) -> tuple[str, int | None]:
    """Status, and the end as Unix time in ms."""
    if "ended" in about:
        status = (
            FINISHED if about["status"] in (COMPLETE, states.DIVERGED) else KILLED if state.state == STOPPED else FAILED
        )
        return status, _ms(about["ended"])
    return (RUNNING, None) if state.state == states.RUNNING else (KILLED, int(state.last * 1000))


def _digest(*contents: Path) -> str:
    found = hashlib.sha256(f"{VERSION}".encode())
    for file in contents:
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


def _ms(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """{'training.lr': 0.1, ...} of nested dictionaries; a list is one value."""
    if not isinstance(values, dict):
        return {prefix: values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}.{key}" if prefix else key)
    return found


def _is_metric(name: str, value: Any) -> bool:
    return name != "epoch" and isinstance(value, int | float) and not isinstance(value, bool)


def _epoch_name(key: str) -> str:
    """A key of metrics.jsonl (`loss`, `val_accuracy/audio`, `ratio/audio`) as the UI shows it best."""
    name, _, modality = key.partition("/")
    split, _, metric = name.partition("_")
    if split in ("val", "test"):
        section = "val" if split == "val" else "test_each_epoch"
        return f"{section}/{metric}_{modality}" if modality else f"{section}/{metric}"
    return key if modality else f"train/{key}"


def _final_name(row: dict[str, Any]) -> str:
    own = "" if row["modality"] == FUSED else f"_{row['modality']}"
    return f"{FINAL[row['split']]}/{row['metric']}{own}"
