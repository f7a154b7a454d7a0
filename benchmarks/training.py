"""Benchmarks: ratios against a baseline that is measured in the same process, turn by turn."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from pipeline_src.core.errors import UserError
from pipeline_src.methods.base import Setting
from pipeline_src.methods.base import methods as registry
from pipeline_src.models.base import encoders
from pipeline_src.study.plan import Cell, Plan
from pipeline_src.training.params import Augmentation
from pipeline_src.training.spec import RunSpec

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


def methods(plan: Plan) -> None:
    """Time of every method's step over joint training's, on ResNet-18-size encoders and random clips.

    Batch 64, one frame of 224 x 224 and a spectrogram of 257 x 188 (OGM-GE's CREMA-D), 6, 31 and 309 classes. All that
    a step does but for the encoders' passes is milliseconds in seconds, so that part is what is timed, method by method
    in turn, on the features and gradients of a real step; the encoders' passes are counted, and count at their measured
    time. The ratio is of whole steps. What a method does once per epoch is given for the clips stated, over joint
    training's time for them. Methods that require other runs are left out.
    """
    import torch

    from pipeline_src.training import device as devices
    from pipeline_src.training.assemble import add_modules
    from pipeline_src.training.loader import Loader
    from pipeline_src.training.loop import Trainer

    device = devices.pick(plan.params.training.device)
    torch.set_num_threads(os.cpu_count() or 1)
    names = ["joint", *(name for name in registry if name != "joint")]
    print(f"{device}, {torch.get_num_threads()} threads, batch {BATCH}, medians", flush=True)
    print(f"{'classes':>8}  {'method':12}{'step s':>9}{'/ joint':>9}{'once s':>9}{'/ epoch':>9}  of {2 * BATCH} clips")

    def timed(call, *arguments) -> float:
        devices.synchronize(device)
        started = time.perf_counter()
        call(*arguments)
        devices.synchronize(device)
        return time.perf_counter() - started

    for classes in (6, 31, 309):
        cache = _Noise(classes)
        loaders = {split: Loader(cache, split, list(cache.modalities), device, True) for split in ("train", "val")}
        trainer = Trainer(_resnet18(plan, cache), 0, cache, loaders, device)
        ctx = trainer.context
        batch = next(loaders["train"].batches(BATCH))
        batch = batch._replace(inputs=trainer.transform(batch.inputs))
        trainer.model.train()
        joint = trainer.method
        step = statistics.median(timed(joint.step, ctx, batch) for _ in range(STEPS))
        forward = statistics.median(timed(ctx.encode, batch) for _ in range(STEPS))
        with torch.no_grad(), ctx.autocast():
            features = trainer.model.encode(batch.inputs)

        plugins, extras, once, tails, passes = {}, {}, {}, {}, {}
        setting = Setting(tuple(cache.modalities), "concat", EPOCHS)
        for name in names:
            plugin = registry[name]
            if plugin.requires(plugin.Params(), setting) or plugin.refuses(plugin.Params(), setting):
                continue
            method = plugins[name] = plugin(plugin.Params())
            trainer.model.extra = extras[name] = torch.nn.ModuleDict()
            add_modules(trainer.model, method, classes, 0)
            trainer.model.extra.to(device)
            method.on_train_start(ctx)
            ctx.start_epoch(ACTIVE)
            once[name], tails[name] = timed(method.before_epoch, ctx), []
            trainer.model.train()
        encode, zero_grad, update = trainer.model.encode, ctx.zero_grad, ctx.update
        ctx.zero_grad = ctx.update = lambda: None  # the gradients of the real step stay
        for _ in range(TAILS):
            for name, method in plugins.items():
                fresh = features.replaced({m: f.detach().requires_grad_() for m, f in features.items()})
                trainer.model.encode = lambda inputs, kept=None, f=fresh: f
                trainer.model.extra = extras[name]
                before = ctx.forwards, ctx.backwards
                tails[name].append(timed(method.step, ctx, batch))
                passes[name] = (ctx.forwards - before[0]) / BATCH, (ctx.backwards - before[1]) / BATCH
        trainer.model.encode, ctx.zero_grad, ctx.update = encode, zero_grad, update
        tail = {name: statistics.median(values[1:]) for name, values in tails.items()}
        backward = step - tail["joint"] - forward  # and the optimiser's step
        for name, (forwards, backwards) in passes.items():
            whole = tail[name] + forwards * forward + backwards * backward
            ratios = whole / step, once[name] / (2 * step)
            print(f"{classes:8}  {name:12}{whole:9.3f}{ratios[0]:9.3f}{once[name]:9.3f}{ratios[1]:9.3f}", flush=True)


BATCH, STEPS, TAILS = 64, 3, 12
EPOCHS = 100
ACTIVE = 21  # an epoch in which every method acts with its defaults; D&R diagnoses at its start


def _resnet18(plan: Plan, cache: _Noise) -> RunSpec:
    """ResNet-18 for both modalities, concatenated, joint training, no augmentation; the plan's device."""
    published = {
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "optimizer": "sgd",
        "lr": 1e-3,
        "lr_step": 70,
        "normalize": "none",
    }
    return RunSpec(
        modalities=tuple(cache.modalities),
        encoders=dict.fromkeys(cache.modalities, encoders["resnet"].Params(width=64, depth=[2, 2, 2, 2])),
        fusion="concat",
        method="joint",
        params=registry["joint"].Params(),
        training=plan.params.training.model_copy(update=published),
        augmentation=dict.fromkeys(cache.modalities, Augmentation()),
    )


class _Noise:
    """A cache of random clips, two batches for train and one for val, in the shapes of OGM-GE's CREMA-D."""

    def __init__(self, classes: int):
        import numpy as np
        import pandas as pd

        self.classes, count = list(map(str, range(classes))), 3 * BATCH
        splits = np.repeat(["train", "val"], [2 * BATCH, BATCH])
        self.clips = pd.DataFrame({"label": np.arange(count) % classes, "split": splits})
        rng = np.random.default_rng(0)
        self.values = {
            "audio": rng.normal(size=(count, 257, 188)).astype("float16"),
            "visual": rng.integers(0, 256, (count, 1, 3, 224, 224)).astype("uint8"),
        }
        layouts = {"audio": "spectrogram", "visual": "frames"}
        self.modalities = {
            m: {"layout": layouts[m], "shape": x.shape[1:], "dtype": x.dtype.name, "mean": [0.0], "std": [1.0]}
            for m, x in self.values.items()
        }

    def rows(self, split: str):
        return (self.clips.split == split).to_numpy().nonzero()[0]

    def gather(self, modality: str, rows):
        return self.values[modality][rows]


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
