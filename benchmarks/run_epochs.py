"""Whole epochs as a run does them: trained, checked, scored on val, with weights and a checkpoint on disk.

Part of `bench gpu`; see docs/measuring.md.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch

from benchmarks import clips as made
from benchmarks import gpu
from benchmarks.busy import profiled
from pipeline_src.features.read import Cache
from pipeline_src.training import device as devices
from pipeline_src.training import run as runs
from pipeline_src.training.interrupt import Stop
from pipeline_src.training.keeper import Keeper
from pipeline_src.training.loop import Trainer
from pipeline_src.training.observe import Observers

MINUTES = 10.0  # between checkpoints within an epoch, as params.yaml has it


def measure(cache: Cache, device: torch.device, size: gpu.Size) -> dict[str, gpu.Rate]:
    """Rates of whole epochs by cache, in the fastest precision; prints them and what an epoch consists of."""
    precision, rates = gpu.precisions(device)[0], dict[str, gpu.Rate]()
    val = len(cache.rows("val"))
    print(
        f"\nWhole epochs as a run does them, in {precision}: trained on {size.clips:,} clips, scored on {val:,} of val"
        ", weights and checkpoint saved; busy: of all of this time, of an epoch under the profiler"
    )
    print("| cache | samples/s | training, s | scores, checks and saving, s | from disk | GPU busy |")
    print("|---|---|---|---|---|---|")
    for kind in (gpu.RESIDENT, *((gpu.COLD,) if hasattr(os, "posix_fadvise") else ())):
        run = gpu.trainer(cache, device, size, precision, kind == gpu.RESIDENT)
        cold = kind == gpu.COLD
        rates[kind], training, rest = of(Epochs(run, Path(f"run-{len(rates)}"), cold), size.seconds)
        samples, _, read = rates[kind]
        said = (f"{samples:,.0f}", f"{training:.2f}", f"{rest:.2f}", f"{read:.2f}", gpu.shown(rates[kind]))
        print(f"| {kind} | {' | '.join(said)} |", flush=True)
        del run
    return rates


class Epochs:
    """A run whose epochs are taken one at a time; before each its cache is dropped from memory if it is `cold`."""

    def __init__(self, trainer: Trainer, folder: Path, cold: bool):
        folder.mkdir()
        self.trainer, self.cold = trainer, cold
        self.keeper = Keeper(folder, "benchmark", trainer, MINUTES, Stop())
        self.observers = Observers(trainer)

    def next(self) -> None:
        """One epoch more, by the code that trains a run."""
        spec = self.trainer.spec
        schedule = spec.training.model_copy(update={"epochs": len(self.keeper.rows) + 1})
        run = SimpleNamespace(label="benchmark", cell=SimpleNamespace(spec=SimpleNamespace(training=schedule)))
        runs._train_epochs(cast(Any, run), self.trainer, self.keeper, self.observers)

    def end(self) -> None:
        """Wait for the last checkpoint, which is written while the next epoch trains."""
        self.keeper.writer.wait()

    def forget(self) -> None:
        if self.cold:
            made.forget(self.trainer.loaders["train"].cache.folder)


def of(epochs: Epochs, seconds: float) -> tuple[gpu.Rate, float, float]:
    """The rate of epochs for so many seconds, and the seconds of one: its training, and the rest.

    Before it come some steps and a score; after it an epoch under the profiler, of which the busy time is.
    """
    run = epochs.trainer
    gpu.warm(run)
    run.score("val")
    before, spent = made.from_disk(), 0.0
    while spent < seconds or not epochs.keeper.rows:
        epochs.forget()
        started = time.perf_counter()
        epochs.next()
        devices.synchronize(run.device)
        spent += time.perf_counter() - started
    started = time.perf_counter()
    epochs.end()
    spent += time.perf_counter() - started
    rows, train = epochs.keeper.rows, run.loaders["train"]
    done, training = len(rows), sum(row["seconds"] for row in rows)
    wanted = done * (len(train) + len(run.loaders["val"])) * train.cache.row_bytes(list(run.modalities))
    read = (made.from_disk() - before) / wanted
    epochs.forget()
    busy, _, whole = profiled(run.device, epochs.next)
    epochs.end()
    rate = gpu.Rate(done * len(train) / spent, busy / whole, read)
    return rate, training / done, (spent - training) / done
