"""The only training loop. Methods, unimodal baselines and joint training all run through `Trainer.epoch`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from pipeline_src.core.seeding import generator, seed_of
from pipeline_src.features.read import Cache
from pipeline_src.methods.base import Context, Phase
from pipeline_src.models.multimodal import MultimodalModel
from pipeline_src.training import device as devices
from pipeline_src.training.assemble import assemble
from pipeline_src.training.compiled import compile_encoders, next_step
from pipeline_src.training.fused import fused_for
from pipeline_src.training.loader import Loader, sizes
from pipeline_src.training.optimizer import groups, optimizer
from pipeline_src.training.spec import RunSpec
from pipeline_src.training.transform import Transform

LEAST = 2  # samples of a training batch


@dataclass
class Position:
    """Where a run is: in an epoch whose first phases and whose current phase's first batches are done.

    An epoch begins with `before_epoch`, which gives the phases, and is trained when `after_epoch` has been called.
    """

    epoch: int = -1  # from 0; none has begun
    phases: list[Phase] = field(default_factory=list)
    phase: int = 0
    batch: int = 0
    trained: bool = False
    seconds: float = 0.0  # that the epoch has taken


class Trainer:
    """One run: model, optimiser, method and data of a cell and a seed, advanced an epoch at a time.

    `loaders` are the splits on the device. All of its state is in `snapshot`, after any step; the order of batches and
    every random number follow from the seed and the epoch. `runs` gives the models of the runs that the method
    requires, on the device.
    """

    def __init__(
        self,
        spec: RunSpec,
        seed: int,
        cache: Cache,
        loaders: dict[str, Loader],
        device: torch.device,
        runs: Callable[[str], MultimodalModel] | None = None,
    ):
        self.spec, self.seed, self.device, self.loaders = spec, seed, device, loaders
        self.schedule = spec.training
        self.modalities = spec.modalities
        self.model, self.method, self.task = assemble(spec, cache.modalities, len(cache.classes), seed)
        # Channels last: what tensor cores read without a copy, and 1.6 times as fast as the other order on a CPU.
        self.model.to(device, memory_format=torch.channels_last)
        compile_encoders(self.model, self.schedule.batch_size * max(1, spec.segments), self.schedule.compile)
        self.optimizer = optimizer(groups(self.model, spec), self.schedule)
        own = {m: cache.modalities[m] for m in self.modalities}
        fused = fused_for(device, self.schedule)
        self.transform = Transform(own, spec.augmentation, self.schedule.normalize, device, spec.segments, fused)
        self.context = Context(
            self.model,
            self.optimizer,
            loaders,
            self.transform,
            lambda: devices.autocast(device, self.schedule.precision),
            seed=seed,
            epochs=self.schedule.epochs,
            batch_size=self.schedule.batch_size,
            task=self.task,
            segments=spec.segments,
            runs=runs,
        )
        self.at = Position()

    def epoch(self, epoch: int, pulse: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Train one epoch (counted from 0), or what is left of it in the state that was loaded.

        Returns what the method and the loss logged, and the seconds it took. `pulse` is called after every step, when
        the state can be kept; training ends there if it raises.
        """
        for name in self.spec.requires:  # reading a run makes the host wait, so no step is the first to ask for it
            self.context.run(name)
        at, t = self.at, self.schedule
        started = time.perf_counter() - (at.seconds if at.epoch == epoch else 0.0)
        lr = t.lr * t.lr_gamma ** (epoch // t.lr_step)
        if at.epoch != epoch:
            at = self._begin(epoch)
        while at.phase < len(at.phases):
            for _ in self._steps(lr):
                at.seconds = time.perf_counter() - started
                pulse()
            at.phase, at.batch = at.phase + 1, 0
        if not at.trained:
            self.method.after_epoch(self.context)
            devices.synchronize(self.device)
            at.trained, at.seconds = True, time.perf_counter() - started
        return {"epoch": epoch, "lr": lr, "seconds": at.seconds, **self.context.logged()}

    def _begin(self, epoch: int) -> Position:
        self.context.start_epoch(epoch)
        # Nothing here draws without a generator of its own, but a network with dropout would.
        torch.manual_seed(seed_of(self.seed, "torch", epoch))
        self.at = Position(epoch, self.method.before_epoch(self.context))
        return self.at

    def _steps(self, lr: float) -> Iterator[None]:
        """What is left of the current phase, a batch at a time."""
        at, ctx, loader = self.at, self.context, self.loaders["train"]
        size = self.schedule.batch_size
        ctx.phase = at.phases[at.phase]
        for group in self.optimizer.param_groups:
            group["lr"] = lr * ctx.phase.lr * group["factor"]
        samples = self.method.samples(ctx)
        samples = None if samples is None else samples.cpu()
        count = len(loader) if samples is None else len(samples)
        order = torch.randperm(count, generator=generator(self.seed, "order", at.epoch))
        # Batch normalisation has nothing to normalise by in a batch of one sample, and fails where a map is one pixel.
        parts = sizes(count, size, LEAST)
        ctx.batches = len(parts)
        # Drawn for the whole pass, also where it goes on in its middle: order and changes are sent to the device once.
        draw = {m: generator(self.seed, "augment", m, at.epoch, at.phase) for m in self.modalities}
        drawn = self.transform.draw(parts, draw)[at.batch :]
        self.model.train()
        with closing(loader.batches(size, order, at.batch, samples, LEAST)) as batches:
            for batch, changes in zip(batches, drawn, strict=True):
                ctx.batch = at.batch
                next_step(self.schedule.compile)
                self.method.step(ctx, batch._replace(inputs=self.transform(batch.inputs, changes)))
                at.batch += 1
                yield

    @torch.no_grad()
    def score(self, split: str, pulse: Callable[[], None] = lambda: None) -> dict[str, float]:
        """The task's primary metric on a split, without augmentation: of the method's prediction and of its unimodal
        logits. `pulse` as in `epoch`.
        """
        self.model.eval()
        name, loader = f"{split}_{self.task.primary.name}", self.loaders[split]
        logits: dict[str, list[Tensor]] = {}
        for batch in loader.batches(self.schedule.batch_size * 2):
            with self.context.autocast():
                features = self.model.encode(self.transform(batch.inputs))
                found = {name: self.method.logits(self.model, features)}
                if len(self.modalities) > 1:
                    found |= {f"{name}/{m}": z for m, z in self.method.unimodal(self.model, features).items()}
            for key, z in found.items():
                logits.setdefault(key, []).append(z)
            pulse()
        return {key: self.task.score(torch.cat(parts), loader.label) for key, parts in logits.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that must be kept to go on exactly from the end of an epoch, as named tensors."""
        ctx = self.context
        state = ctx.state() | {f"method/{k}": v for k, v in self.method.state_dict().items()}
        return state | {"counts": torch.tensor([ctx.step, ctx.encoded, ctx.reached])}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        ctx = self.context
        ctx.go_back({k: v for k, v in state.items() if k.startswith(("model/", "optimizer/"))})
        own = _by_kind(state).get("method", {})
        self.method.load_state_dict({k: v.to(self.device) for k, v in own.items()})
        ctx.step, ctx.encoded, ctx.reached = (int(n) for n in state["counts"])

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that must be kept to go on exactly after any step: named tensors, and what JSON can hold."""
        tensors = self.state_dict() | {f"sum/{k}": v for k, v in self.context.sums.items()}
        tensors |= {f"rng/{k}": g.get_state() for k, g in self._generators().items()}
        tensors |= {f"rng/{k}": of.get_rng_state() for k, of in self._global_generators().items()}
        return tensors, {**asdict(self.at), "counts": self.context.counts}

    def restore(self, tensors: dict[str, Tensor], position: dict[str, Any]) -> None:
        """Go on from a snapshot."""
        self.load_state_dict(tensors)
        part, ctx = _by_kind(tensors), self.context
        at = {k: v for k, v in position.items() if k != "counts"}
        self.at = Position(**at | {"phases": [Phase(*phase) for phase in at["phases"]]})
        ctx.start_epoch(self.at.epoch)
        ctx.sums, ctx.counts = part.get("sum", {}), dict(position["counts"])
        rng = part["rng"]  # a device that the snapshot was not made on has none in it
        for name in self._generators().keys() & rng.keys():
            self._generators()[name].set_state(rng[name])
        for name in self._global_generators().keys() & rng.keys():
            self._global_generators()[name].set_rng_state(rng[name])

    def _generators(self) -> dict[str, Generator]:
        ctx = self.context
        own = {"method": ctx.rng}
        return own if ctx.device_rng is ctx.rng else {**own, "method_device": ctx.device_rng}

    def _global_generators(self) -> dict[str, Any]:
        """The modules of PyTorch's own generators: of the CPU, and of the device."""
        cpu = {"torch": torch}
        return cpu if self.device.type == "cpu" else {**cpu, "torch_device": torch.get_device_module(self.device)}


def _by_kind(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """{"kind/name": tensor} as {kind: {name: tensor}}."""
    part: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        kind, _, name = key.partition("/")
        part.setdefault(kind, {})[name] = value
    return part
