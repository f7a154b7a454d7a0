"""Benchmarks: ratios against a baseline that is measured in the same process, turn by turn."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from pipeline_src.core.errors import UserError
from pipeline_src.study.outputs import Cell
from pipeline_src.study.plan import Plan

ROUNDS = 5
STARTED = "COUNTERPOISE_STARTED"


def loader(plan: Plan) -> None:
    """Time of an epoch over the time of the same steps on batches that are already what the model reads.

    Printed for a cache on the device and for a streamed one, with the parts: reading batches, and making them the
    model's input (augmentation, normalisation). Needs the feature cache of the first cell with several modalities.
    """
    import torch

    from pipeline_src.core.seeding import generator
    from pipeline_src.training import device as devices
    from pipeline_src.training.loader import Loader
    from pipeline_src.training.loop import Trainer

    cell, device, cache = _cell(plan), *_ready(plan)
    size, modalities = cell.spec.training.batch_size, cell.spec.modalities
    print(f"{cell.data.name}/{cell.fusion}/{cell.method} on {device}, {torch.get_num_threads()} threads, batch {size}")
    print(f"medians of {ROUNDS} epochs; read and prepare as shares of the steps")
    print(f"{'cache':12}{'epoch s':>10}{'steps s':>10}{'ratio':>8}{'read':>8}{'prepare':>9}")

    def timed(call):
        devices.synchronize(device)
        started = time.perf_counter()
        value = call()
        devices.synchronize(device)
        return value, time.perf_counter() - started

    for name, resident in (("on device", True), ("streamed", False)):
        loaders = {split: Loader(cache, split, modalities, device, resident) for split in ("train", "val")}
        trainer = Trainer(cell.spec, 0, cache, loaders, device)
        augment = {m: generator(0, "bench", m) for m in modalities}

        def prepare(batch, trainer=trainer, augment=augment):
            return batch._replace(inputs=trainer.transform(batch.inputs, augment))

        ready = [prepare(batch) for batch in loaders["train"].batches(size)]
        trainer.epoch(0)
        rows = []
        for _ in range(ROUNDS):
            trainer.model.train()
            spent = dict.fromkeys(("read", "prepare", "step", "ready"), 0.0)
            batches = loaders["train"].batches(size)
            # Both sides take each step in turn, so that a slow minute of the machine slows them alike.
            for same in ready:
                batch, read = timed(lambda batches=batches: next(batches))
                batch, prepared = timed(lambda batch=batch: prepare(batch))
                _, step = timed(lambda batch=batch, trainer=trainer: trainer.method.step(trainer.context, batch))
                _, bare = timed(lambda same=same, trainer=trainer: trainer.method.step(trainer.context, same))
                for part, seconds in zip(spent, (read, prepared, step, bare), strict=True):
                    spent[part] += seconds
            batches.close()
            rows.append((spent["read"] + spent["prepare"] + spent["step"], *spent.values()))
        epoch, read, prepared, _, bare = (statistics.median(column) for column in zip(*rows, strict=True))
        ratio = statistics.median(row[0] / row[-1] for row in rows)
        print(f"{name:12}{epoch:10.3f}{bare:10.3f}{ratio:8.3f}{read / bare:8.3f}{prepared / bare:9.3f}", flush=True)


def start(plan: Plan) -> None:
    """The fixed cost of a run, from the start of the process to the end of its first step, and where it goes."""
    for label in ("cold", "warm"):
        print(f"{label}: seconds since the start of the process")
        command = [sys.executable, "-m", "benchmarks", "first_step", "--params", str(plan.file)]
        subprocess.run(command, env={**os.environ, STARTED: repr(time.time())}, check=True)


def first_step(plan: Plan) -> None:
    """What `start` runs in a process of its own."""
    started = float(os.environ.get(STARTED, time.time()))

    def mark(what: str) -> None:
        print(f"{time.time() - started:8.2f}  {what}", flush=True)

    cell = _cell(plan)
    mark("plan read")
    from pipeline_src.training.loop import Trainer
    from pipeline_src.training.run import make_loaders

    mark("imports")
    device, cache = _ready(plan)
    loaders = make_loaders(cache, cell.spec.modalities, device, plan.params)
    mark("cache on the device")
    trainer = Trainer(cell.spec, 0, cache, loaders, device)
    mark("model")
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


def _ready(plan: Plan) -> tuple:
    from pipeline_src.features.read import Cache
    from pipeline_src.training import device as devices

    cell = _cell(plan)
    if not cell.data.cache_file.exists():
        raise UserError(f"{cell.data.cache}: expected a finished cache to measure with; run snakemake first")
    device = devices.pick(plan.params.training.device)
    devices.deterministic(device, plan.params.resources.train.threads)
    return device, Cache(cell.data.cache)
