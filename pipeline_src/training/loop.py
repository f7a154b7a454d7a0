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
from pipeline_src.methods.base import Method, Phase, methods
from pipeline_src.models.fusions.base import Features
from pipeline_src.models.multimodal import Output, build
from pipeline_src.training import device as devices
from pipeline_src.training.loader import Batch, Loader
from pipeline_src.training.spec import RunSpec
from pipeline_src.training.transform import Transform


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


class Context:
    """What a method's hooks see of the run: model, optimiser, epoch (from 0), step, phase, and what follows.

    `rng` is the method's own CPU generator, `device_rng` the same on the model's device; new in each epoch, so that no
    method shifts the order of batches. `classes` is the number C of classes. No hook can reach test data.
    """

    def __init__(
        self, model, optimizer, loaders: dict[str, Loader], transform: Transform, spec: RunSpec, seed: int, classes: int
    ):
        self.model, self.optimizer, self.spec, self.seed, self.classes = model, optimizer, spec, seed, classes
        self._loaders, self._transform = {split: loaders[split] for split in ("train", "val")}, transform
        self.epoch = self.step = 0
        self.forwards = self.backwards = 0  # clips
        self.phase = None
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.rng = self.device_rng = generator(self.seed, "method", epoch)
        device = self._loaders["train"].device
        if device.type != "cpu":
            self.device_rng = Generator(device).manual_seed(seed_of(self.seed, "method", epoch))
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def labels(self, split: str = "train") -> Tensor:
        """Labels (N,) of train or val, on the device."""
        return self._loaders[split].label

    @torch.no_grad()
    def collect(self, split: str = "train", rows: Tensor | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """Features {m: (N, D_m)} float32 and labels (N,) of `rows` (default: all) of train or val, on the device.

        A pass of its own, without augmentation and in evaluation mode; its clips are counted in `forwards`.
        """
        training, loader = self.model.training, self._loaders[split]
        self.model.eval()
        parts: dict[str, list[Tensor]] = {m: [] for m in self.model.modalities}
        labels = []
        for batch in loader.batches(2 * self.spec.training.batch_size, rows):
            with devices.autocast(loader.device, self.spec.training.precision):
                features = self.model.encode(self._transform(batch.inputs))
            for m, f in features.items():
                parts[m].append(f.float())
            labels.append(batch.label)
            self.forwards += len(batch.label)
        self.model.train(training)
        return {m: torch.cat(part) for m, part in parts.items()}, torch.cat(labels)

    def log(self, name: str, value: Tensor | float) -> None:
        """Add a value to the epoch's row of metrics.jsonl, which holds the mean; a tensor stays on the device."""
        value = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.counts[name] = self.counts.get(name, 0) + 1

    def logged(self) -> dict[str, float]:
        return {name: float(value) / self.counts[name] for name, value in self.sums.items()}


class Trainer:
    """One run: model, optimiser, method and data of a cell and a seed, advanced an epoch at a time.

    `loaders` are the splits on the device. All of its state is in `snapshot`, after
    any step; the order of batches and every random number follow from the seed and the epoch.
    """

    def __init__(self, spec: RunSpec, seed: int, cache: Cache, loaders: dict[str, Loader], device: torch.device):
        self.spec, self.seed, self.device, self.loaders = spec, seed, device, loaders
        self.schedule = spec.training
        self.modalities = spec.modalities
        self.model = build(spec.encoders, spec.fusion, cache.modalities, len(cache.classes), seed)
        # Channels last: what tensor cores read without a copy, and 1.6 times as fast as the other order on a CPU.
        self.model.to(device, memory_format=torch.channels_last)
        self.optimizer = self._optimizer()
        self.method: Method = methods[spec.method](spec.params)
        own = {m: cache.modalities[m] for m in self.modalities}
        self.transform = Transform(own, spec.augmentation, self.schedule.normalize, device)
        self.context = Context(self.model, self.optimizer, loaders, self.transform, spec, seed, len(cache.classes))
        self.at = Position()
        self.augment: dict[str, Generator] = {}  # of the current phase, by modality

    def _optimizer(self) -> torch.optim.Optimizer:
        t = self.schedule
        if t.optimizer == "sgd":
            return torch.optim.SGD(self.model.parameters(), t.lr, momentum=t.momentum, weight_decay=t.weight_decay)
        return torch.optim.AdamW(self.model.parameters(), t.lr, weight_decay=t.weight_decay)

    def epoch(self, epoch: int, pulse: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Train one epoch (counted from 0), or what is left of it in the state that was loaded.

        Returns what the method and the loss logged, and the seconds it took. `pulse` is called after every step, when
        the state can be kept; training ends there if it raises.
        """
        at, t = self.at, self.schedule
        started = time.perf_counter() - (at.seconds if at.epoch == epoch else 0.0)
        lr = t.lr * t.lr_gamma ** (epoch // t.lr_step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if at.epoch != epoch:
            at = self._begin(epoch)
        order = torch.randperm(len(self.loaders["train"]), generator=generator(self.seed, "order", epoch))
        while at.phase < len(at.phases):
            for _ in self._steps(order):
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

    def _steps(self, order: Tensor) -> Iterator[None]:
        """What is left of the current phase, a step at a time."""
        at, loader = self.at, self.loaders["train"]
        self.context.phase = at.phases[at.phase]
        if at.batch == 0:
            self.augment = {m: generator(self.seed, "augment", m, at.epoch, at.phase) for m in self.modalities}
        self.model.train()
        with closing(loader.batches(self.schedule.batch_size, order, at.batch)) as batches:
            for batch in batches:
                self.step(batch._replace(inputs=self.transform(batch.inputs, self.augment)))
                at.batch += 1
                yield

    def step(self, batch: Batch) -> None:
        """One optimiser step on a batch whose inputs are ready for the model."""
        self.optimizer.zero_grad(set_to_none=True)
        with devices.autocast(self.device, self.schedule.precision):
            features = self.model.encode(batch.inputs)
        self.learn(features, batch)
        self.optimizer.step()
        self.context.step += 1
        self.context.forwards += len(batch.index)
        self.context.backwards += len(batch.index)

    def learn(self, features: Features, batch: Batch) -> None:
        """All of a step that a method can change: from the encoders' features {m: (B, D_m)} to the gradients."""
        ctx, model, method = self.context, self.model, self.method
        with devices.autocast(self.device, self.schedule.precision):
            changed, kept = method.on_features(ctx, features, batch)
            features = features.replaced(changed)
            if kept is not None:
                features = features.rows(kept)
                batch = Batch({m: x[kept] for m, x in batch.inputs.items()}, batch.label[kept], batch.index[kept])
            output = Output(features, model.fusion(features))
            losses = method.loss(ctx, output, batch)
        for name, value in losses.items():
            ctx.log(name, value)
        sum(losses.values()).backward()
        method.after_backward(ctx, output, batch)

    @torch.no_grad()
    def score(self, split: str, pulse: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Accuracy on a split, without augmentation: of the joint prediction and of every modality's logits from the
        fusion. `pulse` as in `epoch`.
        """
        self.model.eval()
        right: dict[str, Tensor] = {}
        loader = self.loaders[split]
        for batch in loader.batches(self.schedule.batch_size * 2):
            with devices.autocast(self.device, self.schedule.precision):
                output = self.model(self.transform(batch.inputs))
                logits = {"accuracy": output.logits}
                if len(self.modalities) > 1:
                    logits |= {f"accuracy/{m}": z for m, z in self.model.fusion.unimodal(output.features).items()}
            for name, z in logits.items():
                right[name] = right.get(name, 0) + (z.argmax(1) == batch.label).sum()
            pulse()
        return {f"{split}_{name}": float(n) / len(loader) for name, n in right.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that must be kept to go on exactly from the end of an epoch, as named tensors."""
        state = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        names = {id(p): n for n, p in self.model.named_parameters()}
        for parameter, slots in self.optimizer.state.items():
            for slot, value in slots.items():
                if value is not None:
                    state[f"optimizer/{slot}/{names[id(parameter)]}"] = torch.as_tensor(value)
        state |= {f"method/{k}": v for k, v in self.method.state_dict().items()}
        ctx = self.context
        return state | {"counts": torch.tensor([ctx.step, ctx.forwards, ctx.backwards])}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        part = _by_kind(state)
        self.model.load_state_dict(part["model"])
        parameters = dict(self.model.named_parameters())
        for key, value in part.get("optimizer", {}).items():
            slot, _, name = key.partition("/")
            p = parameters[name]  # its slots lie in memory as it does; the count of steps is on the CPU
            value = value if slot == "step" else torch.empty_like(p, dtype=value.dtype).copy_(value)
            self.optimizer.state[p][slot] = value
        self.method.load_state_dict({k: v.to(self.device) for k, v in part.get("method", {}).items()})
        ctx = self.context
        ctx.step, ctx.forwards, ctx.backwards = (int(n) for n in state["counts"])

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
        self.augment = {m: Generator() for m in self.modalities}
        rng = part["rng"]  # a device that the snapshot was not made on has none in it
        for name in self._generators().keys() & rng.keys():
            self._generators()[name].set_state(rng[name])
        for name in self._global_generators().keys() & rng.keys():
            self._global_generators()[name].set_rng_state(rng[name])

    def _generators(self) -> dict[str, Generator]:
        ctx = self.context
        own = {"method": ctx.rng, **{f"augment/{m}": g for m, g in self.augment.items()}}
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
