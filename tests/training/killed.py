"""Training in processes of their own, which kill themselves at a chosen call of a chosen function.

They are forked from a server that has imported PyTorch once, and has trained nothing.
"""

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch

from pipeline_src.core import files, progress
from pipeline_src.core.errors import UserError
from pipeline_src.evaluation import run as evaluation
from pipeline_src.evaluation.params import Evaluation
from pipeline_src.methods.base import Context, Method
from pipeline_src.training import checkpoint, run, writer
from pipeline_src.training import device as devices
from pipeline_src.training.interrupt import Stop, StoppedError
from pipeline_src.training.keeper import Keeper
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.synthetic import SPLITS, SyntheticCache, spec

CPU = torch.device("cpu")
FULL = "full"
SLOW = ["sklearn.linear_model", "sklearn.cluster"]  # imports of a run
CELLS = {  # name: method, its parameters, optimizer, resident
    "joint": ("joint", {}, "sgd", True),
    "ogm_ge": ("ogm_ge", {}, "adamw", False),
    "opm_ogm": ("opm_ogm", {"opm": {"execute_probability": 0.7}}, "sgd", False),
    "pmr": ("pmr", {"momentum": 0.5, "share": 0.5, "per_epochs": 2}, "adamw", True),
    "relearning": ("relearning", {"every": 1, "times": 1, "optimizer": "reset"}, "sgd", False),
}
WHERE = {  # what the process dies in front of
    "a step": (Method, "step"),
    "the backward pass": (torch.Tensor, "backward"),
    "a score": (Trainer, "score"),
    "a new epoch": (Context, "start_epoch"),
    "writing tensors": (checkpoint, "save_file"),
    "flushing to disk": (os, "fsync"),
    "renaming a file": (Path, "replace"),
    "adding a row": (files, "append_text"),
    "dropping old weights": (Keeper, "_drop_weights"),
}


def cell(name: str, folder: Path):
    """A run of a synthetic cell in `folder`, its cache, and its loaders."""
    method, params, optimizer, resident = CELLS[name]
    cache = SyntheticCache(2)
    cache.folder, cache.info = "cache", {"sha256": "feed"}
    how = Evaluation(batch_size=16, probe_c=1.0, probe_iterations=50)
    one = SimpleNamespace(
        cell=SimpleNamespace(
            spec=spec(cache, "concat", method, params, optimizer=optimizer, lr=0.01),
            code="c0de",
            fp="beef",
            data=SimpleNamespace(cache_fp="cafe"),
            evaluation=how,
            outcome=None,
        ),
        seed=0,
        requires={},
        names={"dataset": "d", "recipe": "r", "fusion": "concat", "method": name, "seed": 0},
        label=f"d/concat/{name} seed 0",
        folder=folder,
        record=folder / "record.json",
        evaluation=folder / "evaluation",
        metrics=folder / "evaluation" / "metrics.json",
    )
    return one, cache, {s: Loader(cache, s, list(cache.modalities), CPU, resident) for s in SPLITS}


def train(
    name: str, folder: Path, minutes: float, where: str | None = None, count: int = 0, by=9, apart: bool = False
) -> None:
    """Train and evaluate a cell; before call number `count` of what WHERE says, get the signal `by`, or be FULL.

    Checkpoints are written while training goes on if `apart`, as on a GPU.
    What is said on standard error is added to a file beside the folder.
    """
    sys.stderr = folder.with_suffix(".log").open("a")
    progress.show()
    devices.deterministic(CPU, threads=1)
    one, cache, loaders = cell(name, folder)
    params = SimpleNamespace(
        resources=SimpleNamespace(train=SimpleNamespace(threads=1, mem_mb=1000)),
        training=SimpleNamespace(checkpoint_minutes=minutes),
    )
    if apart:
        writer.INLINE = ()
    if where:
        arm(*WHERE[where], count, no_room if by == FULL else lambda: [os.kill(os.getpid(), by) for _ in "12"])
    try:
        with Stop() as stop:
            run._train(one, cache, loaders, CPU, params, None, stop)
    except StoppedError as error:
        sys.exit(error.status)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    evaluation._evaluate(one, cache, loaders, CPU)


def arm(owner, name: str, count: int, act: Callable[[], object]) -> None:
    """Have this process act before call number `count` of owner.name; signals come twice, as from who is impatient."""
    original, calls = getattr(owner, name), [0]

    def call(*arguments, **named):
        calls[0] += 1
        if calls[0] == count:
            act()
        return original(*arguments, **named)

    setattr(owner, name, call)


def dies_while_writing(folder: Path) -> None:
    """The system ends this process when half of a file of tensors is written."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    no_room()
    checkpoint.save(folder / "file", {"x": torch.ones(1000)}, {})


def no_room() -> None:
    """From here on the system refuses to write files of more than 900 bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def ended(target, *arguments) -> int:
    """Exit status of a function in a process of its own; below 0, the signal that ended it."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["__main__", __name__, *SLOW])
    process = server.Process(target=target, args=arguments)
    process.start()
    process.join(300)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode
