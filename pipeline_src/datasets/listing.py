"""A list of clips, column by column, and the work on it cut into shards for several processes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar, overload

from pipeline_src.core.labels import Label
from pipeline_src.datasets.base import Clip

SHARD = 500  # clips; a process is started in a hundredth of the time that they take

Result = TypeVar("Result")


class Listing(Sequence[Clip]):
    """Clips that take a fifth of the memory of as many Clip: text that several have is kept once."""

    def __init__(self, modalities: Sequence[str]):
        self.ids: list[str] = []
        self.labels: list[Label] = []
        self.splits: list[str] = []
        self.groups: list[str] = []
        self.spans: list[tuple[float, float] | None] = []
        self.files: dict[str, list[str]] = {m: [] for m in modalities}  # paths, relative to the dataset's folder
        self._same: dict[Any, Any] = {}

    def add(self, clip: Clip) -> None:
        """Append a clip that has a file of each modality."""
        self.ids.append(clip.id)
        self.labels.append(clip.label if isinstance(clip.label, float) else self._once(clip.label))
        self.splits.append(self._once(clip.split))
        self.groups.append(clip.id if clip.group == clip.id else clip.group)
        self.spans.append(clip.span)
        texts: dict[str, str] = {}
        for m, column in self.files.items():
            text = clip.files[m].as_posix()
            column.append(texts.setdefault(text, text))

    def _once(self, value: Any) -> Any:
        return self._same.setdefault(value, value)

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, i: int) -> Clip: ...

    @overload
    def __getitem__(self, i: slice) -> list[Clip]: ...

    def __getitem__(self, i: int | slice) -> Clip | list[Clip]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        files = {m: Path(column[i]) for m, column in self.files.items()}
        return Clip(self.ids[i], self.labels[i], self.splits[i], self.groups[i], files, self.spans[i])


def in_shards(work: Callable[[range], Result], count: int, processes: int) -> Iterator[Result]:
    """What `work` gives for shard after shard of `count` clips, in their order, by up to so many processes on Linux.

    They are forked, so that they have the list, the dataset and its plug-ins without a copy. Raises what `work` raises,
    and ChildProcessError if one of them is killed.
    """
    shards = [range(first, min(first + SHARD, count)) for first in range(0, count, SHARD)]
    processes = min(processes, len(shards)) if sys.platform == "linux" else 1  # macOS stops forked processes
    if processes < 2:
        yield from map(work, shards)
        return
    fork = multiprocessing.get_context("fork")
    gc.freeze()  # a collection in a process would copy what it looks at
    started = []
    try:
        for i in range(processes):
            ours, theirs = fork.Pipe(duplex=False)
            process = fork.Process(target=_each, args=(work, shards[i::processes], theirs, os.getpid()), daemon=True)
            process.start()
            theirs.close()  # so that its end shows
            started.append((process, ours))
        for i in range(len(shards)):
            process, ours = started[i % processes]
            try:
                done, result = ours.recv()
            except EOFError:
                process.join()
                raise ChildProcessError(
                    f"a process that opens files ended with {process.exitcode}; start it again, with more memory or "
                    "fewer threads"
                ) from None
            if not done:
                raise result
            yield result
    finally:
        for process, ours in started:
            ours.close()
            process.terminate()
            process.join()
        gc.unfreeze()


def _each(work: Callable[[range], Any], shards: list[range], results: Connection, parent: int) -> None:
    """Send what `work` gives for each shard, or what it raises; the parent alone is told of Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(BrokenPipeError):
        for shard in shards:
            if os.getppid() != parent:  # it was killed
                return
            try:
                results.send((True, work(shard)))
            except BrokenPipeError:
                raise
            except Exception as error:
                results.send((False, _sendable(error)))
                return


def _sendable(error: Exception) -> Exception:
    """The error with its traceback as a note; one of a kind that cannot be sent, such as a plug-in's, as its text."""
    said = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(said)
    return error
