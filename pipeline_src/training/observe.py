"""Observers between two epochs, kept from changing anything: a run with them gives the bits of one without.

They have passes, loaders and generators of their own. Every global generator and the mode of each module are put back,
no gradient is written, no pass is counted among the run's costs, and a tensor of the model that was written to is an
error. Their time is no part of the run's.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Generator, Tensor, nn

from pipeline_src.core.errors import UserError
from pipeline_src.core.seeding import generator
from pipeline_src.methods.base import Batch
from pipeline_src.observers.base import SECONDS, Observer, Pass, observers
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer

log = logging.getLogger(__name__)


class Observers:
    """The observers of one run."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.every: dict[str, Observer] = {
            name: observers[name](params) for name, params in trainer.spec.observers.items()
        }

    def due(self, epoch: int) -> dict[str, Observer]:
        """Those that look after an epoch, from 0: after every n-th, and after the last."""
        last = epoch == self.trainer.schedule.epochs - 1
        return {name: one for name, one in self.every.items() if last or (epoch + 1) % one.params.every == 0}

    def observe(self, epoch: int, pulse: Callable[[], None] = lambda: None) -> dict[str, float]:
        """What the observers that are due say of the epoch that has ended, and the seconds they took; empty if none is.

        `pulse` is called between two observers, when the state can be kept.
        """
        due = self.due(epoch)
        if not due:
            return {}
        started = time.perf_counter()
        run = Between(self.trainer, epoch)
        row: dict[str, float] = {}
        for name, observer in due.items():
            try:
                with untouched(self.trainer, name):
                    values = observer.observe(run)
            except UserError as error:
                log.warning(f"observe {name}  no value after epoch {epoch + 1}: {error}")
                continue
            row |= {key: float(value) for key, value in values.items() if math.isfinite(value)}
            pulse()
        return row | {SECONDS.name: time.perf_counter() - started}


class Between:
    """`observers.base.Observed` of a trainer, for one epoch."""

    def __init__(self, trainer: Trainer, epoch: int):
        self.model, self.method, self.task = trainer.model, trainer.method, trainer.task
        self.epoch, self.device = epoch, trainer.device
        self.splits: tuple[str, ...] = ("train", "val", "test") if trainer.schedule.track_test else ("train", "val")
        self.autocast = trainer.context.autocast
        self._trainer, self._passes = trainer, dict[str, Pass]()

    def seen(self, split: str) -> Pass:
        if split not in self._passes:
            self._passes[split] = self._pass(split)
        return self._passes[split]

    def label(self, split: str) -> Tensor:
        return self._loader(split).label

    def samples(self, split: str) -> int:
        return len(self._loader(split))

    def _loader(self, split: str) -> Loader:
        if split not in self.splits:
            raise KeyError(f"expected one of {', '.join(self.splits)}, but got {split!r}")
        return self._trainer.loaders[split]

    def batches(self, split: str, rows: Tensor | None = None) -> Iterator[Batch]:
        for batch in self._loader(split).batches(2 * self._trainer.schedule.batch_size, rows):
            yield batch._replace(inputs=self._trainer.transform(batch.inputs))

    @torch.no_grad()
    def _pass(self, split: str) -> Pass:
        features: dict[str, list[Tensor]] = {m: [] for m in self.model.modalities}
        unimodal: dict[str, list[Tensor]] = {}
        logits = []
        for batch in self.batches(split):
            with self.autocast():
                found = self.model.encode(batch.inputs)
                logits.append(self.method.logits(self.model, found).float())
                own = self.method.unimodal(self.model, found) if len(features) > 1 else {}
            for m, f in found.items():
                features[m].append(f.float().cpu())
            for m, z in own.items():
                unimodal.setdefault(m, []).append(z.float())
        joined = {m: torch.cat(parts) for m, parts in features.items()}
        return Pass(joined, torch.cat(logits), {m: torch.cat(z) for m, z in unimodal.items()}, self.label(split))

    def generator(self, *name: object) -> Generator:
        return generator(self._trainer.seed, "observer", *name)


@contextmanager
def untouched(trainer: Trainer, name: str) -> Iterator[None]:
    """Evaluation mode; afterwards generators and modes are as before. Raises RuntimeError if a tensor of
    the model was written to.
    """
    model, state = trainer.model, random.getstate()
    numbers, modes = np.random.get_state(), {part: part.training for part in model.modules()}
    before = _marks(model)
    devices = [trainer.device] if trainer.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        model.eval()
        try:
            yield
        finally:
            for part, mode in modes.items():
                part.training = mode
            random.setstate(state)
            np.random.set_state(numbers)
    if _marks(model) != before:
        raise RuntimeError(f"observer {name!r}: expected it to change nothing, but got a model that it has written to")


def _marks(model: nn.Module) -> dict[str, tuple]:
    """Of each tensor of the model and its gradient which it is, and how often it was written to."""
    found = {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        parts = (tensor, tensor.grad) if tensor.grad is not None else (tensor,)
        found[key] = tuple((part.data_ptr(), part._version) for part in parts)
    return found
