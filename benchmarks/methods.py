"""What a method costs beside joint training: time of a step, passes per sample, memory.

Every method runs as the training loop runs it, on random samples. Methods that require other runs get untrained models
of another seed in their place: these cost what trained ones cost.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline_src.core.errors import UserError
from pipeline_src.methods.base import Setting
from pipeline_src.methods.base import methods as registry
from pipeline_src.models.base import fusion_refuses, fusions
from pipeline_src.study.plan import Plan
from pipeline_src.training.params import Augmentation
from pipeline_src.training.spec import RunSpec

if TYPE_CHECKING:
    import torch

    from pipeline_src.models.multimodal import MultimodalModel
    from pipeline_src.training.loop import Trainer

EPOCHS = 100
ACTIVE = range(20, 30)  # epochs that are measured: every method acts in one of them with its defaults
BATCHES = 4  # of an epoch
PUBLISHED_TRAINING = {"epochs": EPOCHS, "normalize": "none", "lr_step": 70}


class Passes(NamedTuple):
    """Samples through all encoders, per sample of an epoch's training data; joint training has 1 and 1.

    What is done before the first epoch counts in `before`, per sample and once.
    """

    forwards: float
    backwards: float
    before: float


class Noise:
    """A cache of random samples: BATCHES batches for train, and a quarter as many samples for val."""

    units = None  # nothing lies in storage

    def __init__(self, modalities: dict[str, dict[str, Any]], classes: int, batch: int):
        import numpy as np
        import pandas as pd

        self.classes, count = list(map(str, range(classes))), BATCHES * batch * 5 // 4
        splits = np.repeat(["train", "val"], [BATCHES * batch, count - BATCHES * batch])
        self.clips = pd.DataFrame({"label": np.arange(count) % classes, "split": splits})
        self.modalities = {m: {"mean": [0.0], "std": [1.0], **about} for m, about in modalities.items()}
        rng, self.values = np.random.default_rng(0), {}
        for m, about in modalities.items():
            shape, dtype = (count, *about["shape"]), np.dtype(about["dtype"])
            whole = dtype.kind in "iu"
            self.values[m] = (rng.integers(1, 50, shape) if whole else rng.normal(size=shape)).astype(dtype)

    def rows(self, split: str):
        return (self.clips.split == split).to_numpy().nonzero()[0]

    def gather(self, modality: str, rows):
        return self.values[modality][rows]


class Ratio(NamedTuple):
    """Time of a step over that of joint training's of the same turn: median, and half the distance of the quarters."""

    middle: float
    spread: float


def methods(plan: Plan, only: list[str] | None = None, epochs: int = len(ACTIVE), batch: int | None = None) -> None:
    """Print what every method costs, or `only` these, with the network, the batch size and the shapes of the plan's
    first cell with most modalities, each with the first fusion that it takes. `batch` replaces the plan's batch size.

    step     time of a step over that of joint training's step of the same turn with the same fusion: the median of
             4 turns in each of so many epochs of random samples, 10 of which have every method act, and half the
             distance of the quarters; who comes first alternates, and the first turn is not counted. A method with
             several updates a batch has one step here. On a CPU it is CPU time, which waits for no other job
    epoch    time of what it does between the passes of an epoch, over the time of joint training's steps on as many
             samples, the mean of the epochs
    passes   forward and backward, per sample and epoch; see `Passes`
    memory   the most that a step's tensors take at once, beyond those that were there before it, over joint
             training's: on CUDA the allocator's peak, on a CPU from the profiler's record of what was allocated and
             freed
    """
    import sklearn.cluster  # noqa: F401  what a method imports at its first use is no cost of its epochs

    if unknown := set(only or ()) - set(registry):
        raise UserError(
            f"--only: expected methods, but got {', '.join(sorted(unknown))}; `counterpoise explain` has all"
        )
    spec, cache, device = joint_on_noise(plan, batch)
    print("| method | fusion | step | epoch | forward | backward | before | memory |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    base: dict[str, int] = {}
    for name in only or ["joint", *(name for name in registry if name != "joint")]:
        fusion = first_fusion(name, spec)
        if fusion is None:
            print(f"| {name} | none of the fusions serves it with these encoders |", flush=True)
            continue
        plain = replace(spec, fusion=fusion)
        own = replace(plain, method=name, params=registry[name].Params())
        runs = trainer(own, cache, device), trainer(plain, cache, device)
        step, between, counted = measured(*runs, ACTIVE[:epochs])
        if fusion not in base:
            base[fusion] = memory(trainer(plain, cache, device))
        peak = memory(trainer(own, cache, device)) / base[fusion]
        times = f"{step.middle:.3f} ± {step.spread:.3f} | {between:.3f}"
        counts = " | ".join(f"{count:.2f}" for count in counted)
        print(f"| {name} | {fusion} | {times} | {counts} | {peak:.2f} |", flush=True)


def joint_on_noise(plan: Plan, batch: int | None = None) -> tuple[RunSpec, Noise, torch.device]:
    """Joint training of the plan's first cell with most modalities, on random samples in batches of `batch` (default:
    the plan's), on a CPU in float32; prints where and how it runs.
    """
    import numpy as np
    import torch

    from pipeline_src.training import device as devices

    cell = max(plan.cells, key=lambda cell: len(cell.spec.modalities))
    device = devices.pick(plan.params.training.device)
    torch.set_num_threads(min(plan.params.resources.train.threads, len(os.sched_getaffinity(0))))
    shapes = {
        m: {"layout": e.layout, "shape": list(e.shape), "dtype": np.dtype(e.dtype).name}
        for m, e in cell.data.extractors.items()
    }
    given = cell.spec.training
    size, precision = batch or given.batch_size, "fp32" if device.type == "cpu" else given.precision
    cache = Noise(shapes, len(cell.data.dataset.classes), size)
    training = given.model_copy(update={**PUBLISHED_TRAINING, "batch_size": size, "precision": precision})
    spec = replace(cell.spec, method="joint", params=registry["joint"].Params(), training=training, requires={})
    where = f"{device}, {torch.get_num_threads()} threads, {precision}, batch {size}"
    print(f"{where}, " + ", ".join(f"{m} {tuple(e.shape)}" for m, e in cell.data.extractors.items()))
    return spec, cache, device


def first_fusion(name: str, spec: RunSpec) -> str | None:
    """A fusion that the method takes with the spec's modalities and encoders: the spec's own if it does."""
    return next((f for f in (spec.fusion, *fusions) if takes(name, f, spec.encoders)), None)


def takes(name: str, fusion: str, encoders) -> bool:
    """Whether the method, with its defaults, takes a fusion with these encoders {m: params}."""
    return refused(name, fusion, encoders) is None


def refused(name: str, fusion: str, encoders) -> str | None:
    """Why the method, with its defaults, does not take a fusion with these encoders {m: params}, or None."""
    plugin = registry[name]
    return fusion_refuses(fusion, encoders) or plugin.refuses(plugin.Params(), Setting(tuple(encoders), fusion, EPOCHS))


def trainer(spec: RunSpec, cache: Noise, device: torch.device) -> Trainer:
    """A run of the spec on the cache, with the models of another seed for the runs that its method requires."""
    from pipeline_src.training.loader import Loader
    from pipeline_src.training.loop import Trainer

    spec = replace(spec, augmentation=dict.fromkeys(spec.modalities, Augmentation()))
    loaders = {split: Loader(cache, split, spec.modalities, device, True) for split in ("train", "val")}
    return Trainer(spec, 0, cache, loaders, device, stand_ins(spec, cache, device))


def stand_ins(spec: RunSpec, cache: Noise, device: torch.device) -> Callable[[str], MultimodalModel]:
    """Untrained models in the place of the runs that the spec's method requires."""
    import torch

    from pipeline_src.training.assemble import assemble

    asked = Setting(spec.modalities, spec.fusion, spec.training.epochs)
    required = registry[spec.method].requires(spec.params, asked)

    def model(name: str) -> MultimodalModel:
        m = required[name].modality
        other = replace(spec, method="joint", params=registry["joint"].Params())
        if m is not None:
            other = replace(other, modalities=(m,), encoders={m: spec.encoders[m]}, fusion="concat")
        made = assemble(other, cache.modalities, len(cache.classes), seed=7).model
        return made.to(device, memory_format=torch.channels_last)  # as a run's are

    return model


def measured(own: Trainer, joint: Trainer, epochs: range = ACTIVE) -> tuple[Ratio, float, Passes]:
    """Of a method: time of a step over joint training's, time of the rest of an epoch over joint training's steps on as
    many samples, and its passes.
    """
    ours, theirs = _Clock(own), _Clock(joint)
    steps = _endless(joint)

    def turn() -> None:
        """Two steps of joint training after every other one of the method, so that each comes first as often."""
        for _ in range(2 * (len(ours.steps) % 2)):
            next(steps)

    counted = passes(own, turn, epochs)
    ratios = [a / b for a, b in zip(ours.steps, theirs.steps, strict=False)][1:]  # the optimiser's state is made first
    low, middle, high = statistics.quantiles(ratios, n=4)
    rest = sum(ours.between) / len(epochs)
    return Ratio(middle, (high - low) / 2), rest / (BATCHES * statistics.median(theirs.steps)), counted


def passes(own: Trainer, after_step: Callable[[], object] = lambda: None, epochs: range = ACTIVE) -> Passes:
    """The passes of a method in these epochs of a run that has not begun."""
    ctx, count = own.context, len(own.loaders["train"])
    own.method.on_train_start(ctx)
    start = ctx.forwards, ctx.backwards
    for epoch in epochs:
        for _ in _epoch(own, epoch):
            after_step()
    each = count * len(epochs)
    return Passes((ctx.forwards - start[0]) / each, (ctx.backwards - start[1]) / each, start[0] / count)


def memory(own: Trainer) -> int:
    """Bytes that the tensors of an epoch's first step take at most, beyond what was there before it."""
    import torch

    device, peaks, step = own.device, [], own.method.step
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")

    def watched(ctx, batch) -> None:
        ctx.zero_grad()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            step(ctx, batch)
            return peaks.append(torch.cuda.max_memory_allocated(device) - before)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as record:
            step(ctx, batch)
        events = record.profiler.kineto_results.events()
        changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
        total = peak = 0
        for _, size in changes:
            total += size
            peak = max(peak, total)
        return peaks.append(peak)

    own.method.on_train_start(own.context)
    own.epoch(ACTIVE[-1])  # the optimiser has its state
    own.method.step = watched  # type: ignore[method-assign]
    next(_epoch(own, ACTIVE[-1] + 1))
    own.method.step = step  # type: ignore[method-assign]
    return peaks[0]


class _Clock:
    """Seconds of a trainer's steps, and of what its method does between the passes: CPU time on a CPU."""

    def __init__(self, of: Trainer):
        self.steps: list[float] = []
        self.between: list[float] = []
        self.device = of.device
        for hook in ("before_epoch", "samples", "after_epoch"):
            setattr(of.method, hook, self._timed(getattr(of.method, hook), self.between))
        of.method.step = self._timed(of.method.step, self.steps)  # type: ignore[method-assign]

    def _timed(self, call: Callable, seconds: list[float]) -> Callable:
        from pipeline_src.training import device as devices

        clock = time.process_time if self.device.type == "cpu" else time.perf_counter

        def timed(*arguments):
            devices.synchronize(self.device)
            started = clock()
            value = call(*arguments)
            devices.synchronize(self.device)
            seconds.append(clock() - started)
            return value

        return timed


def _endless(of: Trainer) -> Iterator[None]:
    epoch = 0
    while True:
        yield from _epoch(of, epoch)
        epoch += 1


def _epoch(of: Trainer, epoch: int) -> Iterator[None]:
    at, rate = of._begin(epoch), of.schedule.lr
    while at.phase < len(at.phases):
        yield from of._steps(rate)
        at.phase, at.batch = at.phase + 1, 0
    of.method.after_epoch(of.context)
    at.trained = True
