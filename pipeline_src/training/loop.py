"""The only training loop. Methods, unimodal baselines and joint training all run through `Trainer.epoch`."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from pipeline_src.features.read import Cache
from pipeline_src.methods.base import methods
from pipeline_src.models.multimodal import Output, build
from pipeline_src.seeding import generator
from pipeline_src.training import device as devices
from pipeline_src.training.loader import Batch, Loader
from pipeline_src.training.transform import Transform


class Context:
    """What a method's hooks see of the run: model, optimiser, epoch (from 0), step, phase, and what follows.

    `rng` is the method's own CPU generator, new in each epoch, so that no method shifts the order of batches; `classes`
    the number C of classes. No hook can reach test data.
    """

    def __init__(
        self, model, optimizer, loaders: dict[str, Loader], transform: Transform, spec: dict, seed: int, classes: int
    ):
        self.model, self.optimizer, self.spec, self.seed, self.classes = model, optimizer, spec, seed, classes
        self._loaders, self._transform = {split: loaders[split] for split in ("train", "val")}, transform
        self.epoch = self.step = 0
        self.forwards = self.backwards = 0  # clips
        self.phase = None
        self.rng = generator(seed, "method", 0)
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def start_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.rng = generator(self.seed, "method", epoch)
        self._sums, self._counts = {}, {}

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
        for batch in loader.batches(2 * self.spec["training"]["batch_size"], rows):
            with devices.autocast(loader.device, self.spec["training"]["precision"]):
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
        self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._counts[name] = self._counts.get(name, 0) + 1

    def logged(self) -> dict[str, float]:
        return {name: float(value) / self._counts[name] for name, value in self._sums.items()}


class Trainer:
    """One run: model, optimiser, method and data of a cell and a seed, advanced an epoch at a time.

    `spec` is the cell's (see `plan`), `loaders` the splits on the device. All of its state is in `state_dict`; the
    order of batches and every random number follow from the seed and the epoch.
    """

    def __init__(self, spec: dict[str, Any], seed: int, cache: Cache, loaders: dict[str, Loader], device: torch.device):
        self.spec, self.seed, self.device, self.loaders = spec, seed, device, loaders
        self.schedule = spec["training"]
        self.modalities = spec["modalities"]
        self.model = build(spec, cache.modalities, len(cache.classes), seed)
        # Channels last: what tensor cores read without a copy, and 1.6 times as fast as the other order on a CPU.
        self.model.to(device, memory_format=torch.channels_last)
        self.optimizer = self._optimizer()
        plugin = methods[spec["method"]["name"]]
        self.method = plugin(plugin.Params(**{k: v for k, v in spec["method"].items() if k != "name"}))
        own = {m: cache.modalities[m] for m in self.modalities}
        self.transform = Transform(own, spec["augmentation"], self.schedule["normalize"], device)
        self.context = Context(self.model, self.optimizer, loaders, self.transform, spec, seed, len(cache.classes))

    def _optimizer(self) -> torch.optim.Optimizer:
        t = self.schedule
        if t["optimizer"] == "sgd":
            return torch.optim.SGD(
                self.model.parameters(), t["lr"], momentum=t["momentum"], weight_decay=t["weight_decay"]
            )
        return torch.optim.AdamW(self.model.parameters(), t["lr"], weight_decay=t["weight_decay"])

    def epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch (counted from 0); returns what the method and the loss logged, and the seconds it took."""
        ctx, method, t = self.context, self.method, self.schedule
        ctx.start_epoch(epoch)
        lr = t["lr"] * t["lr_gamma"] ** (epoch // t["lr_step"])
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        started = time.perf_counter()
        order = torch.randperm(len(self.loaders["train"]), generator=generator(self.seed, "order", epoch))
        for i, phase in enumerate(method.before_epoch(ctx)):
            ctx.phase = phase
            augment = {m: generator(self.seed, "augment", m, epoch, i) for m in self.modalities}
            self.model.train()
            for batch in self.loaders["train"].batches(t["batch_size"], order):
                self.step(batch._replace(inputs=self.transform(batch.inputs, augment)))
        method.after_epoch(ctx)
        devices.synchronize(self.device)
        return {"epoch": epoch, "lr": lr, "seconds": time.perf_counter() - started, **ctx.logged()}

    def step(self, batch: Batch) -> None:
        """One optimiser step on a batch whose inputs are ready for the model."""
        self.optimizer.zero_grad(set_to_none=True)
        with devices.autocast(self.device, self.schedule["precision"]):
            features = self.model.encode(batch.inputs)
        self.learn(features, batch)
        self.optimizer.step()
        self.context.step += 1
        self.context.forwards += len(batch.index)
        self.context.backwards += len(batch.index)

    def learn(self, features: dict[str, Tensor], batch: Batch) -> None:
        """All of a step that a method can change: from the encoders' features {m: (B, D_m)} to the gradients."""
        ctx, model, method = self.context, self.model, self.method
        with devices.autocast(self.device, self.schedule["precision"]):
            features, kept = method.on_features(ctx, features, batch)
            if kept is not None:
                features = {m: f[kept] for m, f in features.items()}
                batch = Batch({m: x[kept] for m, x in batch.inputs.items()}, batch.label[kept], batch.index[kept])
            output = Output(features, model.head(features))
            losses = method.loss(ctx, output, batch)
        for name, value in losses.items():
            ctx.log(name, value)
        sum(losses.values()).backward()
        method.after_backward(ctx, output, batch)

    @torch.no_grad()
    def score(self, split: str) -> dict[str, float]:
        """Accuracy on a split, without augmentation: of the joint prediction and of every modality's logits from the
        head.
        """
        self.model.eval()
        right: dict[str, Tensor] = {}
        loader = self.loaders[split]
        for batch in loader.batches(self.schedule["batch_size"] * 2):
            with devices.autocast(self.device, self.schedule["precision"]):
                output = self.model(self.transform(batch.inputs))
                logits = {"accuracy": output.logits}
                if len(self.modalities) > 1:
                    logits |= {f"accuracy/{m}": z for m, z in self.model.head.unimodal(output.features).items()}
            for name, z in logits.items():
                right[name] = right.get(name, 0) + (z.argmax(1) == batch.label).sum()
        return {f"{split}_{name}": float(n) / len(loader) for name, n in right.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that must be kept to go on exactly, as named tensors."""
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
        part = {kind: {} for kind in ("model", "optimizer", "method")}
        for name, value in state.items():
            if name != "counts":
                kind, _, key = name.partition("/")
                part[kind][key] = value
        self.model.load_state_dict(part["model"])
        parameters = dict(self.model.named_parameters())
        for key, value in part["optimizer"].items():
            slot, _, name = key.partition("/")
            p = parameters[name]
            self.optimizer.state[p][slot] = value.to(p.device if value.dim() else value.device)
        self.method.load_state_dict(part["method"])
        ctx = self.context
        ctx.step, ctx.forwards, ctx.backwards = (int(n) for n in state["counts"])
