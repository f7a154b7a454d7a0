"""What a method sees of its run: a batch, and `Context`, whose primitives a step is made of. Imports no torch.

The loop fills a `Context` in; nothing here knows the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pipeline_src.core.lazy import torch
from pipeline_src.core.seeding import generator, seed_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipeline_src.models.fusions.base import Features
    from pipeline_src.models.multimodal import MultimodalModel
    from pipeline_src.tasks.base import Task


class Batch(NamedTuple):
    """Inputs {m: (B, ...)} and labels (B, ...), the task's targets, of samples of one split, all on the device.

    `index` (B,) holds the samples' rows in the split. `position` (B,) says where in the list of `Method.samples` they
    are; without such a list it is `index`.

    In a run on several GPUs `inputs` holds this process's part of the samples, and all else the whole batch; encoding
    it gives the features of the whole batch (see `models.parts`).
    """

    inputs: dict[str, Tensor]
    label: Tensor
    index: Tensor
    position: Tensor

    def rows(self, kept: Tensor) -> Batch:
        """The samples that `kept` (B,) bool selects."""
        rows = getattr(self.inputs, "rows", None)  # of a `models.parts.Part`
        inputs = rows(kept) if rows else {m: x[kept] for m, x in self.inputs.items()}
        return Batch(inputs, self.label[kept], self.index[kept], self.position[kept])


class Phase(NamedTuple):
    """One pass over the training batches; an epoch has one, named joint, unless the method says otherwise."""

    name: str = "joint"
    lr: float = 1.0  # factor on the schedule's learning rate


class Split(Protocol):
    """The samples of one split, in batches."""

    device: torch.device
    label: Tensor

    def __len__(self) -> int: ...

    def batches(self, batch_size: int, order: Tensor | None = None) -> Iterator[Batch]: ...


class Context:
    """The run, as a method's hooks see it. No hook can reach test data.

    model, optimizer  to be read and changed
    epoch, phase      current epoch, from 0, and pass
    epochs            of the whole run
    batch, batches    number of the batch within the pass, from 0, and how many the pass has
    step              optimiser steps so far
    task              what a label is: loss, confidence of the truth, whether a prediction is right
    classes           number C of classes
    segments          of a sample, each a row of its own; 0 where a sample is a row
    batch_size        samples of a training batch; the last of a pass has what is left, or one more
    seed              of the run
    rng, device_rng   the method's own generators, on the CPU and on the model's device: new in each epoch, so that no
                      method shifts the order of batches

    What costs is counted: `forwards` and `backwards` in samples through all encoders; a sample through one of M
    encoders counts 1 / M.
    """

    def __init__(
        self,
        model: MultimodalModel,
        optimizer: torch.optim.Optimizer,
        splits: Mapping[str, Split],
        transform: Callable[[dict[str, Tensor]], dict[str, Tensor]],
        autocast: Callable[[], AbstractContextManager[Any]],
        *,
        seed: int,
        epochs: int,
        batch_size: int,
        task: Task,
        segments: int = 0,
        runs: Callable[[str], MultimodalModel] | None = None,
    ):
        self.model, self.optimizer, self.autocast = model, optimizer, autocast
        self.segments = segments
        self.seed, self.epochs, self.task, self.classes = seed, epochs, task, task.classes
        self._splits, self._transform = {name: splits[name] for name in ("train", "val")}, transform
        self.batch_size, self._runs = batch_size, runs
        self._required: dict[str, MultimodalModel] = {}
        self._parameters: dict[nn.Module, dict[str, nn.Parameter]] = {}
        self.epoch = self.step = self.batch = self.batches = 0
        self.encoded = self.reached = 0  # samples x modalities, forward and backward
        self.phase: Phase | None = None
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Called by the loop."""
        self.epoch = epoch
        self.rng = self.device_rng = generator(self.seed, "method", epoch)
        device = self._splits["train"].device
        if device.type != "cpu":
            self.device_rng = torch.Generator(device).manual_seed(seed_of(self.seed, "method", epoch))
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    @property
    def forwards(self) -> float:
        return self.encoded / len(self.model.modalities)

    @property
    def backwards(self) -> float:
        return self.reached / len(self.model.modalities)

    # The parts of a step, in the order in which `Method.step` calls them.

    def zero_grad(self) -> None:
        """Set all gradients to None: what gets none is not stepped, by no decay and no momentum either."""
        self.optimizer.zero_grad(set_to_none=True)

    def encode(self, batch: Batch, only: Collection[str] | None = None, training: bool = True) -> Features:
        """Features {m: (B, D_m)} of a batch.

        With `only`, other encoders do not run, their running statistics stay and their features are zero.
        `training=False` is evaluation mode, with gradients.
        """
        return self._encode(batch.inputs, only, training)

    def encode_blank(self, batch: Batch) -> tuple[Features, dict[str, Tensor]]:
        """Features {m: (B, D_m)} of a batch and {m: (1, D_m)} of inputs of zeros, by one pass in evaluation mode, with
        gradients.
        """
        rows = max(1, self.segments)  # an encoder may read a sample's segments one after the other
        followed = getattr(batch.inputs, "followed_by_zeros", None)  # of a `models.parts.Part`
        if followed:
            inputs = followed(rows)
        else:
            inputs = {m: torch.cat([x, torch.zeros_like(x[:rows])]) for m, x in batch.inputs.items()}
        features = self._encode(inputs, None, False)
        shown = {m: f[:-rows] for m, f in features.items()}
        return features.replaced(shown), {m: f[-rows:][:1] for m, f in features.items()}

    def _encode(self, inputs: dict[str, Tensor], only: Collection[str] | None, training: bool) -> Features:
        modes = {part: part.training for part in self.model.modules()} if self.model.training != training else {}
        if modes:
            self.model.train(training)
            modes = {part: mode for part, mode in modes.items() if mode != part.training}
        with self.autocast():
            features = self.model.encode(inputs) if only is None else self.model.encode(inputs, only)
        for part, mode in modes.items():
            part.training = mode
        for m, f in features.items():
            if only is not None and m not in only:
                continue
            self.encoded += len(f)
            if f.requires_grad:
                f.register_hook(self._counter(len(f)))
        return features

    def _counter(self, samples: int) -> Callable[[Tensor], None]:
        """A hook that counts a feature's samples when a gradient enters its encoder."""

        def count(gradient: Tensor) -> None:
            self.reached += samples

        return count

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss () to what the parameters have."""
        loss.backward()

    def gradients(self, loss: Tensor, of: list[Tensor]) -> list[Tensor]:
        """Gradients of a loss () with respect to tensors, zeros where it does not reach; the graph is kept."""
        return list(torch.autograd.grad(loss, of, retain_graph=True, allow_unused=True, materialize_grads=True))

    def update(self) -> None:
        """One optimiser step."""
        self.optimizer.step()
        self.step += 1

    # What a method may do besides.

    def parameters(self, of: nn.Module | None = None) -> dict[str, nn.Parameter]:
        """Parameters of a module of the model (default: of all) by name, gathered at the first call only: a walk over
        the modules of the default network takes 0.3 % of its step. The optimiser, too, holds the same tensors always.
        """
        module = self.model if of is None else of
        if module not in self._parameters:
            self._parameters[module] = dict(module.named_parameters())
        return self._parameters[module]

    def labels(self, split: str = "train") -> Tensor:
        """Labels (N, ...) of train or val, on the device; a row per segment where samples have segments."""
        return self._splits[split].label

    def sample_labels(self, split: str = "train") -> Tensor:
        """A label for each sample (N,): its own, or of its segments that of the first one with an event."""
        return self.task.of_samples(self._splits[split].label, len(self._splits[split]))

    def collect(
        self,
        split: str = "train",
        rows: Tensor | None = None,
        model: MultimodalModel | None = None,
        read: Callable[[Features], Mapping[str, Tensor]] = dict,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """What `read` makes of features {m: (B, D_m)}, by default themselves, as tensors (N, ...) float32, and labels
        (N,), of `rows` (default: all) of train or val, on the device.

        A pass of its own over `model` (default: the run's), without augmentation and in evaluation mode.
        """
        model, loader = model or self.model, self._splits[split]
        training = model.training
        model.eval()
        parts: dict[str, list[Tensor]] = {}
        labels = []
        with torch.no_grad():
            for batch in loader.batches(2 * self.batch_size, rows):
                with self.autocast():
                    features = model.encode(self._transform(batch.inputs))
                    values = read(features)
                for name, value in values.items():
                    parts.setdefault(name, []).append(value.float())
                labels.append(batch.label)
                if model is self.model:  # a required run's model counts by itself
                    self.encoded += len(batch.label) * len(features)
        model.train(training)
        return {name: torch.cat(part) for name, part in parts.items()}, torch.cat(labels)

    def log(self, name: str, value: Tensor | float) -> None:
        """Add a value to the epoch's row of metrics.jsonl, which holds the mean; a tensor stays on the device."""
        value = value.detach() if isinstance(value, torch.Tensor) else torch.tensor(float(value))
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.counts[name] = self.counts.get(name, 0) + 1

    def logged(self) -> dict[str, float]:
        """Means of what was logged in the epoch so far."""
        return {name: float(value) / self.counts[name] for name, value in self.sums.items()}

    def save(self) -> dict[str, Tensor]:
        """Copies of the model's and the optimiser's state, for `go_back`."""
        return {name: value.detach().clone() for name, value in self.state().items()}

    def go_back(self, state: Mapping[str, Tensor]) -> None:
        """Model and optimiser as they were when `state` was saved; costs stay counted."""
        by_kind: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}}
        for name, value in state.items():
            kind, _, rest = name.partition("/")
            by_kind[kind][rest] = value
        self.model.load_state_dict(by_kind["model"])
        self.optimizer.state.clear()
        parameters = dict(self.model.named_parameters())
        for name, value in by_kind["optimizer"].items():
            slot, _, parameter = name.partition("/")
            p = parameters[parameter]  # its slots lie in memory as it does; the count of steps is on the CPU
            own = value.to("cpu", copy=True) if slot == "step" else torch.empty_like(p, dtype=value.dtype).copy_(value)
            self.optimizer.state[p][slot] = own

    def state(self) -> dict[str, Tensor]:
        """The model's and the optimiser's tensors themselves, by name."""
        state = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        names = {id(p): name for name, p in self.model.named_parameters()}
        for parameter, slots in self.optimizer.state.items():
            for slot, value in slots.items():
                if value is not None:
                    state[f"optimizer/{slot}/{names[id(parameter)]}"] = torch.as_tensor(value)
        return state

    def forget(self, module: nn.Module) -> None:
        """Drop what the optimiser keeps of a module's parameters, as if it were new."""
        for parameter in module.parameters():
            self.optimizer.state.pop(parameter, None)

    def run(self, name: str) -> MultimodalModel:
        """The model of a run that `Method.requires` names: selected weights, frozen, in evaluation mode.

        Its `encode` counts as forward passes here. The loop asks for each before the first step, as reading one takes
        a while.
        """
        if name not in self._required:
            if self._runs is None:
                raise KeyError(f"expected a run that the method requires, but got {name!r} and no runs")
            self._required[name] = self._counted(self._runs(name).requires_grad_(False).eval())
        return self._required[name]

    def _counted(self, model: MultimodalModel) -> MultimodalModel:
        encode = model.encode

        def counted(inputs: dict[str, Tensor], kept: Collection[str] | None = None) -> Features:
            with self.autocast():
                features = encode(inputs, kept)
            self.encoded += sum(len(f) for m, f in features.items() if kept is None or m in kept)
            return features

        model.encode = counted  # type: ignore[method-assign]
        return model
