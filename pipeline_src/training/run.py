"""The train stage: runs of one cell, one after the other in one process, each in its own folder.

A run's folder holds
record.json          what the run is and was: parameters, versions, hashes, machine, times; exists when it is done
metrics.jsonl        one line per epoch, appended as it ends
weights.safetensors  the selected epoch's weights
and, until the run is done, what `keeper` keeps and attempt.json: who is at it, since when, and how it ended if it did.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch

from pipeline_src.core import files
from pipeline_src.core.errors import UserError, listed
from pipeline_src.core.progress import clock
from pipeline_src.features import unseen_in_val
from pipeline_src.features.read import Cache
from pipeline_src.models.collective import LostError
from pipeline_src.models.parts import Place
from pipeline_src.observers.base import SECONDS
from pipeline_src.study import runs as states
from pipeline_src.study.places import ATTEMPT, CHECKPOINT
from pipeline_src.study.runs import RunFiles
from pipeline_src.tasks.base import Metric, tasks
from pipeline_src.training import checkpoint, compiled
from pipeline_src.training import device as devices
from pipeline_src.training.assemble import assemble
from pipeline_src.training.divergence import DivergedError, check_epoch
from pipeline_src.training.interrupt import Stop, StoppedError
from pipeline_src.training.keeper import Keeper
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from pipeline_src.training.machine import machine, versions
from pipeline_src.training.observe import Observers

log = logging.getLogger(__name__)
if TYPE_CHECKING:
    from pipeline_src.models.multimodal import MultimodalModel
    from pipeline_src.study.outputs import Cell, Run
    from pipeline_src.study.params import Settings
    from pipeline_src.training.ranks import Ranks
    from pipeline_src.training.spec import RunSpec

SPLITS = ("train", "val", "test")
Planned = Callable[[str], "tuple[Run, Settings]"]  # the path of a record -> its run, and the params; can be pickled


def train(
    runs: list[Run], params: Settings, process_started: float | None = None, planned: Planned | None = None
) -> signal.Signals | None:
    """Train runs that share a cell (and so its cache and loaders). Finished ones are left alone, begun ones go on.

    Returns the signal that asked to stop when the last run was all but done.

    `params` is the whole params file, of which only what changes no result is read here: device, memory and threads.
    `process_started` (Unix time) is when the process began, for the fixed cost in the first run's record. By `planned`
    the processes of a run on several GPUs find the run again.
    """
    for run in runs:
        if run.record.exists():
            _tidy(run)  # of a run that was killed after its last word
    runs = [run for run in runs if not run.record.exists()]
    if not runs:
        return None
    cell = runs[0].cell
    train_one: Callable[[Run, float | None, Stop], None]
    if params.training.gpus > 1:
        assert planned is not None
        train_one = several(params, planned)
    else:
        device = devices.pick(params.training.device, params.resources.cells_per_gpu)
        cache, loaders = ready(cell, params, device)

        def train_one(run: Run, started: float | None, stop: Stop) -> None:
            _train(run, cache, loaders, device, params, started, stop)

    failed: list[Exception] = []
    with Stop() as stop:
        for run in runs:
            try:
                train_one(run, process_started, stop)
            except StoppedError:
                raise
            except Exception as error:  # the other seeds are trained all the same
                log.error(f"train {run.label}  failed: {error!r}")
                failed.append(error)
            process_started = None
            if stop.asked and run is not runs[-1]:
                raise StoppedError(stop.asked, f"between two seeds, {run.label} done")
    if failed:
        raise failed[0]
    return stop.asked


def several(params: Settings, planned: Planned) -> Callable[[Run, float | None, Stop], None]:
    """How a run is trained in as many processes as `training.gpus` says."""
    from pipeline_src.training import ranks

    found = devices.pick_several(params.training.device, params.training.gpus)

    def train_one(run: Run, started: float | None, stop: Stop) -> None:
        try:
            ranks.launch(run.label, found, stop, in_process, planned, str(run.record), started)
        except StoppedError:
            raise
        except Exception as error:
            with suppress(UserError, OSError, ValueError):  # what a process that was killed could not say itself
                told = {"status": states.FAILED, "error": " ".join(repr(error).split()), "ended": _now()}
                files.write_json(run.folder / ATTEMPT, files.read_json(run.folder / ATTEMPT) | told)
            raise

    return train_one


def in_process(ranks: Ranks, planned: Planned, record: str, started: float | None) -> None:
    """One process's part of the training of the run with a record."""
    from pipeline_src.training.ranks import accept_signals

    run, params = planned(record)
    cache, loaders = ready(run.cell, params, ranks.device, ranks.place)
    with Stop() as stop:
        accept_signals()
        _train(run, cache, loaders, ranks.device, params, started, stop, ranks)


def ready(
    cell: Cell, params: Settings, device: torch.device, place: Place | None = None
) -> tuple[Cache, dict[str, Loader]]:
    """The process as a cell is computed in it, the cell's cache, and its splits."""
    threads = params.resources.train.threads
    devices.use_precision(device, cell.spec.training.precision)
    devices.deterministic(device, max(1, threads // place.processes) if place else threads)
    compiled.check(device, cell.spec.training.compile)
    cache = Cache(cell.data.cache, params.resources.local_copy.room)
    loaders = make_loaders(cache, cell.spec, device, params, place)
    if tasks[cell.spec.task].counted and (missing := unseen_in_val(cache.clips.label, cache.clips.split)):
        names = listed([cache.classes[label] for label in missing])
        log.warning(f"train {cell.data.name}  val has no sample of {names}, which train has: they do not select")
    return cache, loaders


def make_loaders(
    cache: Cache, spec: RunSpec, device: torch.device, params: Settings, place: Place | None = None
) -> dict[str, Loader]:
    """The three splits, on the device if all of them fit in the set share of its memory, else streamed."""

    def made(resident: bool) -> dict[str, Loader]:
        target = tasks[spec.task].target
        return {s: Loader(cache, s, spec.modalities, device, resident, target, spec.segments, place) for s in SPLITS}

    need = cache.row_bytes(spec.modalities) * len(cache.clips)
    own_mb = params.resources.train.mem_mb // (place.processes if place else 1)
    room = params.training.resident_fraction * devices.free_bytes(device, own_mb)
    try:
        return made(need <= room)
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
    log.info(f"train  {need / 1e6:,.0f} MB of clips do not fit on {devices.describe(device)}: streamed from disk")
    return made(False)


def _train(
    run: Run,
    cache: Cache,
    loaders: dict[str, Loader],
    device: torch.device,
    params: Settings,
    process_started: float | None,
    stop: Stop,
    ranks: Ranks | None = None,
) -> None:
    writes, processes = ranks is None or ranks.first, ranks.place.processes if ranks else 1
    attempt = {
        **run.names,
        "fingerprint": run.cell.fp,
        "code": run.cell.code,
        "parameters": run.cell.spec.record(),
        **({"tuning": run.cell.outcome} if run.cell.outcome else {}),
        "cache": {"folder": str(cache.folder), "fingerprint": run.cell.data.cache_fp, "sha256": cache.info["sha256"]},
        "machine": machine(device, params.resources.train.threads, processes),
        "versions": versions(),
        "resident": loaders["train"].resident is not None,
        "started": _now(),
    }

    def note(status: str, **more: Any) -> None:
        if writes:
            files.write_json(run.folder / ATTEMPT, {**attempt, "status": status, **more})

    note(states.RUNNING, pid=os.getpid(), checkpoint_minutes=params.training.checkpoint_minutes)
    try:
        with (
            devices.memory_explained(f"train {run.label}", device, "training", run.cell.spec.training),
            devices.nondeterministic() as unordered,
        ):
            result = _epochs(run, cache, loaders, device, params, process_started, stop, ranks)
    except StoppedError as error:
        note(states.INTERRUPTED, error=str(error), ended=_now())
        raise
    except BaseException as error:
        with suppress(UserError):  # a full disk would hide what is wrong
            note(states.FAILED, error=" ".join(repr(error).split()), ended=_now())
        raise
    if unordered:
        result["nondeterministic"] = unordered
        log.warning(
            f"train {run.label}  not deterministic on {devices.describe(device)}: {', '.join(unordered)}; another run "
            "of the seed may differ in its last digits"
        )
    if writes:
        states.write_record(run.folder, {**attempt, **result, "ended": _now()})
        _tidy(run)


def _finished(run: Run, cache: Cache, device: torch.device) -> MultimodalModel:
    """The model of another run, with its selected weights, on the device. Raises UserError if they cannot be read."""
    model = assemble(run.cell.spec, cache.modalities, len(cache.classes), run.seed)[0]
    reader = RunFiles(run)
    if (diverged := reader.diverged()) is not None:
        raise UserError(
            f"{run.label}: expected a run whose weights another one can use, but got one that diverged in "
            f"{states.told(diverged)}; change its parameters, or leave out the method that requires it"
        )
    weights = reader.weights()
    try:
        model.load_state_dict(checkpoint.load(weights)[0])
    except checkpoint.DamagedError as error:
        raise UserError(f"{weights}: {error}; delete {run.record} to train it again") from error
    return model.to(device, memory_format=torch.channels_last)


def _required(run: Run) -> dict[str, dict[str, Any]]:
    """What the runs that the method requires were and cost, their passes in samples through all encoders of `run`."""
    costs = {}
    for name, other in run.requires.items():
        record, part = RunFiles(other).record(), len(other.cell.spec.modalities) / len(run.cell.spec.modalities)
        passes = {k: part * record[k] for k in ("forwards", "backwards")}
        costs[name] = {**other.names, "fingerprint": other.cell.fp, "seconds": record["seconds"], **passes}
    return costs


def _tidy(run: Run) -> None:
    """Remove what only a run that is not done needs."""
    for left in (ATTEMPT, CHECKPOINT):
        (run.folder / left).unlink(missing_ok=True)


def _epochs(
    run: Run,
    cache: Cache,
    loaders: dict[str, Loader],
    device: torch.device,
    params: Settings,
    process_started: float | None,
    stop: Stop,
    ranks: Ranks | None,
) -> dict[str, Any]:
    with devices.weights_explained(f"train {run.label}", device):
        trainer = Trainer(
            run.cell.spec, run.seed, cache, loaders, device, lambda name: _finished(run.requires[name], cache, device)
        )
    keeper = Keeper(run.folder, run.label, trainer, params.training.checkpoint_minutes, stop, ranks)
    if not keeper.resume():
        trainer.method.on_train_start(trainer.context)
    fixed = time.time() - process_started if process_started else 0.0
    with keeper.writer:
        diverged = _train_to_end(run, trainer, keeper, ranks)
    return {
        "status": states.COMPLETE if diverged is None else states.DIVERGED,
        **({} if diverged is None else {"diverged": diverged.about}),
        "selected": keeper.best,
        "seconds": keeper.seconds - (observed := sum(row.get(SECONDS.name, 0.0) for row in keeper.rows)),
        **({SECONDS.name: observed} if run.cell.spec.observers else {}),
        "fixed_seconds": fixed,  # process start to first epoch: imports, cache, model
        "resumed": keeper.resumed,
        "forwards": trainer.context.forwards,
        "backwards": trainer.context.backwards,
        "steps": trainer.context.step,
        **({"united": ranks.differed} if ranks and ranks.differed else {}),
        "required": _required(run),
        "peak_memory_mb": devices.peak_mb(device),
        "parameters_count": sum(p.numel() for p in trainer.model.parameters()),
    }


def _train_to_end(run: Run, trainer: Trainer, keeper: Keeper, ranks: Ranks | None) -> DivergedError | None:
    """Train the epochs that are left and name the weights; what ended them early if the run diverged."""
    diverged: DivergedError | None = None
    try:
        _train_epochs(run, trainer, keeper, Observers(trainer), ranks)
    except DivergedError as error:
        diverged = error
    except (UserError, StoppedError, LostError):
        raise
    except Exception as error:
        if devices.is_out_of_memory(error):
            raise
        try:
            check_epoch(trainer)
        except DivergedError as cause:  # a method met the values before the loop did
            diverged = cause
        else:
            raise
    if diverged is None:
        keeper.finish()
    else:
        keeper.finish_diverged()
        log.warning(f"train {run.label}  {diverged}")
    return diverged


def _scores(row: dict[str, float], metric: Metric) -> str:
    """`val 71.2 %  (audio 60.0 %, visual 55.1 %)`."""
    key = f"val_{metric.name}"
    parts = [f"{k.removeprefix(key + '/')} {metric.shown(v)}" for k, v in row.items() if k.startswith(key + "/")]
    return f"val {metric.shown(row[key])}" + (f"  ({', '.join(parts)})" if parts else "")


def _train_epochs(run: Run, trainer: Trainer, keeper: Keeper, observers: Observers, ranks: Ranks | None = None) -> None:
    """The epochs that are left. Raises DivergedError at the first value that is not finite."""
    schedule = run.cell.spec.training
    for epoch in range(len(keeper.rows), schedule.epochs):
        row = trainer.epoch(epoch, keeper.pulse)
        if ranks:
            ranks.unite(trainer)
        check_epoch(trainer)
        row |= trainer.score("val", keeper.pulse)
        if schedule.track_test:
            row |= trainer.score("test", keeper.pulse)
        row |= observers.observe(epoch, keeper.pulse)
        keeper.epoch_done(row, schedule.select)
        left = (schedule.epochs - epoch - 1) * keeper.seconds / (epoch + 1)
        log.info(
            f"train {run.label}  "
            f"epoch {epoch + 1:{len(str(schedule.epochs))}} of {schedule.epochs}  loss {row['loss']:.3f}  "
            f"{_scores(row, trainer.task.primary)}  {clock(left)} left",
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
