"""One run in several processes of a machine, one for each GPU: how they start, agree and end.

The process of the job starts them, trains nothing itself and watches over them. If one ends that should not, it ends
the others; what they leave behind is what a killed run leaves, and the run goes on from its checkpoint. They end when
it does, however it ends. What they compute together is in `models.parts`.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline_src.core import progress
from pipeline_src.core.errors import UserError
from pipeline_src.models import collective
from pipeline_src.models.collective import LostError
from pipeline_src.models.parts import Place
from pipeline_src.training import checkpoint
from pipeline_src.training.interrupt import SIGNALS, Stop, StoppedError

if TYPE_CHECKING:
    from pipeline_src.training.loop import Trainer

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
PATIENCE = timedelta(minutes=30)  # that a process waits for another one, which may be writing or observing
LOOK = 0.2  # seconds between two looks at whether the job is to stop
GRACE = 2.0  # seconds in which processes that lost each other say so, before the others are ended


class Ranks:
    """The processes of a run, as one of them sees them."""

    def __init__(self, place: Place, device: torch.device):
        self.place, self.device = place, device
        self.differed = 0  # epochs after which they had to be made equal

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and says all."""
        return self.place.rank == 0

    def agreed(self, *numbers: int) -> list[int]:
        """The first process's numbers. Waits for all processes."""
        told = torch.tensor(numbers)
        collective.broadcast(told)
        return told.tolist()

    def unite(self, trainer: Trainer) -> None:
        """At the end of an epoch: all processes have the same state, bit for bit.

        Where a GPU has no deterministic version of an operation they drift apart in the last digits, and take the first
        one's state. Raises UserError if a CPU's do: then something took a part of the batch for the whole.
        """
        state = checkpoint.on_host(trainer.state_dict())
        if len({tuple(other.tolist()) for other in collective.all_gather(_digest(state))}) == 1:
            return
        if self.device.type == "cpu":
            raise UserError(
                "training.gpus: expected the same state in every process, but got others; a plug-in takes its part of "
                "the batch for the whole (see models/parts.py); fix it, or set 1"
            )
        for name in sorted(state):
            collective.broadcast(state[name])
        trainer.load_state_dict(state)
        self.differed += 1


def _digest(state: dict[str, Tensor]) -> Tensor:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(state[name].reshape(-1).view(torch.uint8).numpy().data)
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


class Outcome(NamedTuple):
    """How a process ended, as it said itself."""

    kind: str  # done, stopped, user (a UserError), lost (another process) or failed
    text: str = ""
    by: int = 0  # the signal, if it was stopped
    error: Exception | None = None  # the system's, which the command line explains


def launch(label: str, devices: list[torch.device], stop: Stop, target: Callable[..., None], *arguments: Any) -> None:
    """Call `target(ranks, *arguments)`, a function of a module, in a process for each device, until all have ended.

    A signal that `stop` was asked by goes on to the first process. In the processes signals are blocked until
    `accept_signals`. Raises StoppedError if they were stopped, UserError if the user can fix what failed or if one was
    killed, errors of the system as they were, and RuntimeError with what any other error said.
    """
    context = multiprocessing.get_context("spawn")
    store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    processes, ends = [], []
    resource_tracker.ensure_running()  # it changes which signals are blocked
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        for rank, device in enumerate(devices):
            ours, theirs = context.Pipe(duplex=False)
            place = Place(rank, len(devices))
            process = context.Process(target=_run, args=(place, device, store.port, theirs, target, arguments))
            process.start()
            theirs.close()
            processes.append(process)
            ends.append(ours)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        _watch(processes, stop)
    finally:
        codes = [process.exitcode for process in processes]
        for process in processes:
            process.kill()
            process.join()
    _raise(label, codes, [_said(end) for end in ends], stop)


def _watch(processes: list[Any], stop: Stop) -> None:
    """Wait until all processes have ended, or one has failed and the others have had time to say what they met."""
    told = False
    while running := [process for process in processes if process.exitcode is None]:
        connection.wait([process.sentinel for process in running], LOOK)
        if stop.asked and not told:
            told = True
            with suppress(ProcessLookupError):
                os.kill(processes[0].pid, stop.asked)
        if any(process.exitcode for process in processes):
            for process in processes:
                process.join(GRACE)
            return


def _raise(label: str, codes: list[int | None], outcomes: list[Outcome | None], stop: Stop) -> None:
    """What ended the run before its end, if anything did. None of `codes` is a process that was still there then."""
    said = {outcome.kind: outcome for outcome in reversed(outcomes) if outcome is not None}
    if "stopped" in said:
        raise StoppedError(signal.Signals(said["stopped"].by), said["stopped"].text)
    if "user" in said:
        raise UserError(said["user"].text)
    if "failed" in said:
        raise said["failed"].error or RuntimeError(said["failed"].text)
    silent = {rank: code for rank, code in enumerate(codes) if code and outcomes[rank] is None}
    if silent and stop.asked:
        raise StoppedError(stop.asked, "before its first step")
    if silent or "lost" in said:
        ended = ", ".join(f"process {rank} by {_name(code)}" for rank, code in silent.items())
        raise UserError(
            f"train {label}: expected {len(codes)} processes to the end, but got an end of {ended or 'their link'}; "
            "start it again, and it goes on from its checkpoint. If memory was short, raise mem_mb of train in the "
            "resources file"
        )


def _name(code: int | None) -> str:
    with suppress(ValueError, TypeError):
        return signal.Signals(-code).name  # type: ignore[operator]
    return f"status {code}"


def _said(end: Connection) -> Outcome | None:
    with suppress(EOFError, OSError):
        if end.poll():
            return end.recv()
    return None


# In the processes.


def _run(
    place: Place,
    device: torch.device,
    port: int,
    end: Connection,
    target: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for number in SIGNALS:  # one that comes after training, or from a scheduler and from the job, ends nothing
        signal.signal(number, _ignored)
    progress.show()
    if place.rank:
        progress.PACKAGE.setLevel(logging.CRITICAL)  # the first one says it
    try:
        _join(place, device, port)
        ranks, outcome = Ranks(place, device), Outcome("done")
        try:
            target(ranks, *arguments)
        except StoppedError as error:
            outcome = Outcome("stopped", error.where, error.by)
        ranks.agreed(0)  # the first one has written all; the job ends what is left when one has ended
    except UserError as error:
        outcome = Outcome("user", str(error))
    except LostError as error:
        outcome = Outcome("lost", str(error))
    except (OSError, MemoryError) as error:
        outcome = Outcome("failed", repr(error), error=error)
    except BaseException as error:
        traceback.print_exc()
        outcome = Outcome("failed", " ".join(repr(error).split()))
    with suppress(OSError):
        end.send(outcome)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(outcome.kind != "done")  # the libraries would wait for processes that have gone


def _ignored(number: int, frame: object) -> None:
    """Not SIG_IGN, which would drop a signal that is still blocked."""


def _join(place: Place, device: torch.device, port: int) -> None:
    """Make the process one of the group, over gloo for what is on the CPU and NCCL for what is on GPUs."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    backend, more = "gloo", dict[str, Any]()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend, more = "cpu:gloo,cuda:nccl", {"device_id": device}
    store = dist.TCPStore(HOST, port, is_master=False)
    dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.processes, timeout=PATIENCE, **more)


def accept_signals() -> None:
    """From here on the process gets the signals that `launch` blocked."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
