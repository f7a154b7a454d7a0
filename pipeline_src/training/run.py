"""The train stage: runs of one cell, one after the other in one process, each in its own folder.

A run's folder holds
record.json          what the run is and was: parameters, versions, hashes, machine, times; it exists when the run is
done metrics.jsonl        one line per epoch, appended as it ends weights.safetensors  the selected epoch's weights
and, until the run is done, checkpoint.safetensors and attempt.json (who is at it, since when, and how it failed).
"""

import json
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import pipeline_src
from pipeline_src import files
from pipeline_src.features.read import Cache
from pipeline_src.progress import clock, say
from pipeline_src.training import checkpoint
from pipeline_src.training import device as devices
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer

SPLITS = ("train", "val", "test")


def train(runs: list, params, process_started: float | None = None) -> None:
    """Train runs that share a cell (and so its cache and loaders). Finished ones are left alone, begun ones go on.

    `params` is the whole params file, of which only what changes no result is read here: device, memory and threads.
    `process_started` (Unix time) is when the process began, for the fixed cost in the first run's record.
    """
    runs = [run for run in runs if not run.record.exists()]
    if not runs:
        return
    cell = runs[0].cell
    device = devices.pick(params.training.device)
    devices.deterministic(device, params.resources.train.threads)
    cache = Cache(cell.data.cache)
    loaders = make_loaders(cache, cell.spec["modalities"], device, params)
    for run in runs:
        _train(run, cache, loaders, device, params, process_started)
        process_started = None


def make_loaders(cache: Cache, modalities: list[str], device: torch.device, params) -> dict[str, Loader]:
    """The three splits, on the device if all of them fit in the set share of its memory, else streamed."""
    need = cache.row_bytes(modalities) * len(cache.clips)
    room = params.training.resident_share * devices.free_bytes(device, params.resources.train.mem_mb)
    return {split: Loader(cache, split, modalities, device, resident=need <= room) for split in SPLITS}


def _train(run, cache: Cache, loaders: dict[str, Loader], device: torch.device, params, process_started) -> None:
    spec, folder = run.cell.spec, run.folder
    folder.mkdir(parents=True, exist_ok=True)
    attempt = {
        **run.names,
        "fingerprint": run.cell.fp,
        "code": run.cell.code,
        "parameters": spec,
        "cache": {"folder": str(cache.folder), "fingerprint": run.cell.data.cache_fp, "sha256": cache.info["sha256"]},
        "machine": _machine(device, params.resources.train.threads),
        "versions": _versions(),
        "resident": loaders["train"].resident is not None,
        "started": _now(),
    }
    files.write_json(folder / "attempt.json", {**attempt, "status": "running"})
    try:
        result = _epochs(run, cache, loaders, device, params, process_started)
    except BaseException as error:
        files.write_json(
            folder / "attempt.json", {**attempt, "status": "failed", "error": repr(error), "ended": _now()}
        )
        raise
    files.write_json(run.record, {**attempt, "status": "complete", **result, "ended": _now()})
    for left in ("attempt.json", "checkpoint.safetensors"):
        (folder / left).unlink(missing_ok=True)


def _epochs(
    run, cache: Cache, loaders: dict[str, Loader], device: torch.device, params, process_started
) -> dict[str, Any]:
    schedule, folder = run.cell.spec["training"], run.folder
    trainer = Trainer(run.cell.spec, run.seed, cache, loaders, device)
    best = {"epoch": -1, "val_accuracy": -1.0}
    first, spent, resumed = 0, 0.0, 0
    kept = folder / "checkpoint.safetensors"
    if kept.exists():
        state, about = checkpoint.load(kept)
        trainer.load_state_dict(state)
        best, first, spent, resumed = about["best"], about["epoch"] + 1, about["seconds"], about["resumed"] + 1
        say(f"train {run.label}", f"goes on after epoch {first} of {schedule['epochs']}")
    metrics = folder / "metrics.jsonl"
    _keep_lines(metrics, first)
    if first == 0:
        trainer.method.on_train_start(trainer.context)
    fixed = time.time() - process_started if process_started else 0.0
    for epoch in range(first, schedule["epochs"]):
        started = time.perf_counter()
        row = trainer.epoch(epoch)
        row |= trainer.score("val")
        if schedule["track_test"]:
            row |= trainer.score("test")
        if schedule["select"] == "last" or row["val_accuracy"] >= best["val_accuracy"]:
            best = {"epoch": epoch, "val_accuracy": row["val_accuracy"]}
            checkpoint.save(folder / "weights.safetensors", trainer.model.state_dict(), best)
        with metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        spent += time.perf_counter() - started
        about = {"epoch": epoch, "best": best, "seconds": spent, "resumed": resumed}
        checkpoint.save(kept, trainer.state_dict(), about)
        left = (schedule["epochs"] - epoch - 1) * spent / (epoch + 1)
        say(
            f"train {run.label}",
            f"epoch {epoch + 1:{len(str(schedule['epochs']))}} of {schedule['epochs']}  loss {row['loss']:.3f}  "
            f"val {row['val_accuracy']:.1%}" + _shares(row) + f"  {clock(left)} left",
        )
    return {
        "selected": best,
        "seconds": spent,
        "fixed_seconds": fixed,  # process start to first epoch: imports, cache, model
        "resumed": resumed,
        "forwards": trainer.context.forwards,
        "backwards": trainer.context.backwards,
        "peak_memory_mb": devices.peak_mb(device),
        "parameters_count": sum(p.numel() for p in trainer.model.parameters()),
    }


def _shares(row: dict[str, float]) -> str:
    shares = {k.removeprefix("val_accuracy/"): v for k, v in row.items() if k.startswith("val_accuracy/")}
    return f"  ({', '.join(f'{m} {v:.1%}' for m, v in shares.items())})" if shares else ""


def _keep_lines(metrics: Path, epochs: int) -> None:
    """Drop lines of epochs that no checkpoint covers: they will be run again."""
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)[:epochs] if metrics.exists() else []
    files.write_text(metrics, "".join(lines))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _machine(device: torch.device, threads: int) -> dict[str, Any]:
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def _versions() -> dict[str, str | None]:
    from importlib.metadata import version

    root = Path(pipeline_src.__file__).parent.parent
    try:
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        git = None
    return {
        "counterpoise": pipeline_src.__version__,
        "git": git,
        "python": platform.python_version(),
        "torch": torch.__version__,  # with the build, as 2.14.1+cu130
        "torchvision": version("torchvision"),
        "numpy": version("numpy"),
    }
