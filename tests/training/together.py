"""Runs in several processes on the CPU, and the same ones in one: what their losses, weights and scores are."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline_src.core.errors import UserError
from pipeline_src.models.parts import Place
from pipeline_src.tasks.base import tasks
from pipeline_src.training import device as devices
from pipeline_src.training import run
from pipeline_src.training.interrupt import Stop, StoppedError
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from pipeline_src.training.params import Augmentation
from pipeline_src.training.ranks import GRACE, Ranks, accept_signals
from tests.synthetic import SPLITS, SyntheticCache, encoder, spec, stand_ins
from tests.tasks.tasked import SEGMENTS, cache_of
from tests.training import killed

CPU = torch.device("cpu")


class Case(NamedTuple):
    """A run of `epochs`, of 4 steps each."""

    method: str
    fusion: str = "concat"
    modalities: int = 2
    params: dict[str, Any] = {}  # noqa: RUF012  # of the method
    resident: bool = True
    corrupted: bool = False
    layouts: tuple[str, ...] = ("spectrogram", "frames")
    epochs: int = 1
    task: str = "classification"
    training: dict[str, Any] = {}  # noqa: RUF012
    encoder: dict[str, Any] = {}  # noqa: RUF012  # of every modality, in the place of the layout's

    @property
    def label(self) -> str:
        return " ".join(map(str, self))


def trainer(case: Case, place: Place | None) -> Trainer:
    cache, segments = SyntheticCache(case.modalities, layouts=case.layouts), SEGMENTS.get(case.task, 0)
    if "segments" in case.encoder:  # the label is that of each step
        segments = case.encoder["segments"]
        cache.clips["label"] = [np.full(segments, label, np.int32) for label in cache.clips.label]
    elif segments:
        cache = cache_of(case.task)
    what = spec(cache, case.fusion, case.method, case.params, epochs=case.epochs, **case.training)
    what = replace(what, task=case.task, segments=segments)
    if case.encoder:
        what = replace(what, encoders=dict.fromkeys(what.encoders, encoder(**case.encoder)))
    if case.corrupted:
        corrupted = Augmentation(flip=0.5, corruption={"noise": 0.5, "patches": 0.3, "missing": 0.3})
        what = replace(what, augmentation=dict.fromkeys(what.augmentation, corrupted))
    how = (list(cache.modalities), CPU, case.resident, tasks[case.task].target, segments, place)
    loaders = {s: Loader(cache, s, *how) for s in ("train", "val")}
    return Trainer(what, 0, cache, loaders, CPU, stand_ins(what, cache))


def steps(run: Trainer) -> Iterator[float]:
    """The sum of losses so far, after each step of an epoch."""
    losses: list[float] = []
    run.epoch(run.at.epoch + 1, lambda: losses.append(float(run.context.sums["loss"])))
    yield from losses


def trained(run: Trainer, ranks: Ranks | None = None) -> dict[str, Tensor]:
    """What a run gives: losses after each step, what it logged, its scores, and all of its state."""
    run.method.on_train_start(run.context)
    losses = []
    for _ in range(run.schedule.epochs):
        losses += steps(run)
        if ranks:
            ranks.unite(run)
    scores = run.score("val")
    found = {"losses": torch.tensor(losses)}
    found |= {f"logged/{k}": torch.tensor(v) for k, v in run.context.logged().items()}
    found |= {f"score/{k}": torch.tensor(v) for k, v in scores.items()}
    return found | {k: v.detach().clone() for k, v in run.state_dict().items()}


def resumed(case: Case, ranks: Ranks) -> dict[str, Tensor]:
    """The state at the end of a run that was stopped after the second step of its last epoch, and went on in new
    trainers.
    """
    begun, last = trainer(case, ranks.place), case.epochs - 1
    begun.method.on_train_start(begun.context)
    for epoch in range(last):
        begun.epoch(epoch)
    with suppress(StopIteration):
        begun.epoch(last, iter([None]).__next__)
    tensors, position = begun.snapshot()
    again = trainer(case, ranks.place)
    again.restore({name: value.clone() for name, value in tensors.items()}, position)
    again.epoch(last)
    return again.state_dict()


def all_cases(ranks: Ranks, cases: list[Case], folder: str) -> None:
    """Train every case in these processes; the first one writes what it gives, and whether resuming gave its bits."""
    devices.deterministic(CPU, threads=1)
    results = {}
    for case in cases:
        whole = trained(trainer(case, ranks.place), ranks)
        again = resumed(case, ranks) if case.epochs > 1 else {}
        same = all(torch.equal(again[name], whole[name]) for name in again)
        results[case.label] = {**whole, "resumed_alike": torch.tensor(same)}
    if ranks.first:
        torch.save(results, Path(folder) / "results.pt")


def train_part(
    ranks: Ranks, name: str, folder: str, where: str = "", count: int = 0, victim: int = 0, what: object = None
) -> None:
    """Train a cell of `killed.CELLS`. Before call number `count` of what `killed.WHERE` says, process `victim` raises
    `what`, kills itself, or has the job get that signal.
    """
    devices.deterministic(CPU, threads=1)
    one, cache, _ = killed.cell(name, Path(folder))
    resident = killed.CELLS[name][3]
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident, place=ranks.place) for s in SPLITS}
    params = SimpleNamespace(
        resources=SimpleNamespace(train=SimpleNamespace(threads=1, mem_mb=1000)),
        training=SimpleNamespace(checkpoint_minutes=0.0),
    )

    def act() -> None:
        if isinstance(what, str):
            raise UserError(f"process {victim} {what}")
        os.kill(os.getpid() if what == signal.SIGKILL else os.getppid(), what)
        time.sleep(2)  # the process that started this one looks every 0.2 s, and the epoch is not to end before that

    if ranks.place.rank == victim and where:
        killed.arm(*killed.WHERE[where], count, act)
    with Stop() as stop:
        accept_signals()
        run._train(one, cache, loaders, CPU, params, None, stop, ranks)


def stopped_and_slow(ranks: Ranks, file: str) -> None:
    """All stop at once; the first one gets the signal again, as from a scheduler, and writes for long."""
    with Stop():
        accept_signals()
    if ranks.first:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE + 1)
        Path(file).write_text("written")
    raise StoppedError(signal.SIGTERM, "after a step")
