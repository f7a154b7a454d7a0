"""Benchmarks: ratios against a baseline that is measured in the same process, turn by turn."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pipeline_src.core.errors import UserError
from pipeline_src.study.outputs import Cell
from pipeline_src.study.plan import Plan
from pipeline_src.tasks.base import tasks

if TYPE_CHECKING:
    import torch

    from pipeline_src.features.read import Cache
    from pipeline_src.methods.base import Batch
    from pipeline_src.training.loop import Trainer

    Prepare = Callable[[Batch], Batch]
    Step = Callable[[Batch], None]

ROUNDS = 5
STARTED = "COUNTERPOISE_STARTED"


def loader(plan: Plan) -> None:
    """Time of an epoch over the time of as many steps on batches that are already what the model reads.

    Printed for a cache on the device and for a streamed one, with the parts: reading batches, and making them the
    model's input (augmentation, normalisation). Needs the feature cache of the first cell with several modalities.
    """
    import torch

    from pipeline_src.core.seeding import generator
    from pipeline_src.training.loader import Loader
    from pipeline_src.training.loop import Trainer

    cell, cache = _cell(plan), _cache(plan)
    device = _device(plan)
    size, modalities = cell.spec.training.batch_size, cell.spec.modalities
    print(f"{cell.data.name}/{cell.fusion}/{cell.method} on {device}, {torch.get_num_threads()} threads, batch {size}")
    print(f"medians of {ROUNDS} epochs; read and prepare as shares of the steps")
    print(f"{'cache':12}{'epoch s':>10}{'steps s':>10}{'ratio':>8}{'read':>8}{'prepare':>9}")

    for name, resident in (("on device", True), ("streamed", False)):
        target = tasks[cell.spec.task].target
        loaders = {split: Loader(cache, split, modalities, device, resident, target) for split in ("train", "val")}
        trainer = Trainer(cell.spec, 0, cache, loaders, device)
        augment = {m: generator(0, "bench", m) for m in modalities}

        def prepare(batch: Batch, trainer: Trainer = trainer, augment: dict = augment) -> Batch:
            (drawn,) = trainer.transform.draw([len(batch.label)], augment)
            return batch._replace(inputs=trainer.transform(batch.inputs, drawn))

        def step(batch: Batch, trainer: Trainer = trainer) -> None:
            trainer.method.step(trainer.context, batch)

        ready = [prepare(batch) for batch in loaders["train"].batches(size)]
        trainer.epoch(0)
        trainer.model.train()
        turns = []
        for _ in range(ROUNDS):  # all in turn, so that a slow minute of the machine slows them alike
            bare = whole(iter(ready), lambda batch: batch, step, device)
            epoch = whole(loaders["train"].batches(size), prepare, step, device)
            turns.append((epoch, bare, epoch / bare, *parts(loaders["train"].batches(size), prepare, step, device)))
        epoch, bare, ratio, read, prepared = (statistics.median(column) for column in zip(*turns, strict=True))
        print(f"{name:12}{epoch:10.3f}{bare:10.3f}{ratio:8.3f}{read / bare:8.3f}{prepared / bare:9.3f}", flush=True)


def whole(batches: Iterator[Batch], prepare: Prepare, step: Step, device: torch.device) -> float:
    """Seconds of an epoch as training goes through it: one step for each batch that is read, so that a thread that
    reads ahead has the time of that one step; nobody waits for the device before the end.
    """
    started = _now(device)
    for batch in batches:
        step(prepare(batch))
    return _now(device) - started


def parts(batches: Iterator[Batch], prepare: Prepare, step: Step, device: torch.device) -> tuple[float, float]:
    """Of such an epoch, the seconds of waiting for batches, and of making them the model's input; the device is waited
    for after each.
    """
    read = prepared = 0.0
    before = _now(device)
    while (batch := next(batches, None)) is not None:
        there = _now(device)
        batch = prepare(batch)
        ready = _now(device)
        step(batch)
        read, prepared, before = read + there - before, prepared + ready - there, _now(device)
    return read, prepared


def _now(device: torch.device) -> float:
    from pipeline_src.training import device as devices

    devices.synchronize(device)
    return time.perf_counter()


def start(plan: Plan) -> None:
    """The fixed cost of a run, from the start of the process to the end of its first step, and where it goes."""
    _cache(plan)
    for label in ("cold", "warm"):
        print(f"{label}: seconds since the start of the process, and CPU seconds in it, which no other job lengthens")
        command = [sys.executable, "-m", "benchmarks", "first_step", "--params", str(plan.file)]
        subprocess.run(command, env={**os.environ, STARTED: repr(time.time())}, check=True)


def first_step(plan: Plan) -> None:
    """What `start` runs in a process of its own."""
    started = float(os.environ.get(STARTED, time.time()))

    def mark(what: str) -> None:
        print(f"{time.time() - started:8.2f}{time.process_time():8.2f}  {what}", flush=True)

    cell = _cell(plan)
    mark("plan read")
    from pipeline_src.training.loop import Trainer
    from pipeline_src.training.run import make_loaders

    mark("imports")
    device = _device(plan)
    mark("device and determinism")  # PyTorch imports more of itself here
    cache = _cache(plan)
    loaders = make_loaders(cache, cell.spec, device, plan.params)
    mark("cache on the device")
    trainer = Trainer(cell.spec, 0, cache, loaders, device)
    mark("model and optimiser")
    batch = next(loaders["train"].batches(cell.spec.training.batch_size))
    trainer.model.train()
    trainer.method.step(trainer.context, batch._replace(inputs=trainer.transform(batch.inputs)))
    mark("first step")


def report(plan: Plan) -> None:
    """Time and size of the report of a made-up grid of 2,000 runs, with the plan's settings, in a temporary folder."""
    import contextlib
    import tempfile
    from pathlib import Path

    import yaml

    from benchmarks.synthetic import grid, write
    from pipeline_src.reports.aggregate import aggregate

    values = grid(plan.file, 2000)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        made = Plan("params.yaml")
        write(made)
        wall, cpu = time.perf_counter(), time.process_time()
        aggregate(made)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        figures = [file.stat().st_size for file in (made.results / "figures").glob("*.svg")]
        size = (made.results / "report.html").stat().st_size
    print(f"{len(made.runs)} runs: aggregate {wall:.1f} s ({cpu:.1f} s of CPU)")
    print(f"report.html {size / 1e6:.1f} MB; {len(figures)} figures, {sum(figures) / 1e6:.1f} MB")


def _cell(plan: Plan) -> Cell:
    """The first cell with most modalities."""
    return max(plan.cells, key=lambda cell: len(cell.spec.modalities))


def _device(plan: Plan) -> torch.device:
    """The plan's device, as training sets it up."""
    from pipeline_src.training import device as devices

    device = devices.pick(plan.params.training.device)
    devices.deterministic(device, plan.params.resources.train.threads)
    return device


def _cache(plan: Plan) -> Cache:
    """The cache of the plan's `_cell`. Raises UserError if it is not there."""
    from pipeline_src.features.read import Cache

    data = _cell(plan).data
    if not data.cache_file.exists():
        raise UserError(f"{data.cache}: expected a finished cache to measure with; run snakemake first")
    return Cache(data.cache)
