"""The units of a cache's shards in storage: fetched ahead in the order of an epoch, by several threads."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline_src.core.errors import UserError
from pipeline_src.features import Room
from pipeline_src.features.local import Kept
from pipeline_src.features.storage import ClosedError, Storage, Stored

READERS = 24  # requests at a time: an answer begins after some 10 to 100 ms, and pyarrow has 25 connections
AHEAD = 256 << 20  # bytes in memory that were fetched, or are asked for, and that no batch has had yet


class Column(NamedTuple):
    """The units of a modality in a record batch."""

    storage: Storage
    key: str
    offset: int  # where in the object they begin
    place: int  # the bytes of all units before them
    row: int  # bytes of a row
    every: int  # rows of a unit
    digests: np.ndarray  # (N, 32), of each row that of its unit


class Flight:
    """A unit on its way or in memory, and how many batches still need it."""

    def __init__(self, answer: Future[bytes], size: int):
        self.answer, self.size, self.needed = answer, size, 0


class Units:
    """The units of a cache, numbered through."""

    def __init__(self) -> None:
        self.columns: list[Column] = []
        self._counts: list[int] = []
        self._storages: dict[str, Storage] = {}
        self._objects = hashlib.sha256()
        self.bytes = 0
        self.kept: Kept | None = None
        self._flights: dict[int, Flight] = {}
        self._lock = threading.Lock()
        self._failed: UserError | None = None  # of the pass under way

    def add(self, about: Stored, batch: int, modality: str, row: int, digests: np.ndarray) -> int:
        """A modality of a record batch, with rows of `row` bytes; its number."""
        storage = self._storages.setdefault(about.base, Storage(about.base))
        every = about.every[modality]
        column = Column(storage, about.key, about.offsets[modality][batch], self.bytes, row, every, digests)
        self._objects.update(f"{about.sha256} {batch} {modality} {every}\n".encode())
        self.columns.append(column)
        self._counts.append(-(-len(digests) // every))
        self.bytes += row * len(digests)
        return len(self.columns) - 1

    def close(self, name: str, room: Room | None) -> None:
        """All have been added: keep them in a folder of this machine, under the cache's name, if there is room."""
        self.starts = np.cumsum([0, *self._counts])
        self.every = np.array([column.every for column in self.columns])
        if room is not None and room.bytes:
            content = f"{name}-{self._objects.hexdigest()[:16]}"
            sizes = [_sizes(column) for column in self.columns]
            self.kept = Kept(room, content, np.concatenate(sizes))

    def number(self, column: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Numbers of the units that hold rows (N,) of columns (N,)."""
        return self.starts[column] + row // self.every[column]

    def gather(self, column: int, rows: np.ndarray, out: np.ndarray, at: np.ndarray) -> None:
        """Copy rows (N,) of a column to rows `at` of `out` (M, ...)."""
        about, flat = self.columns[column], out.reshape(len(out), -1).view(np.uint8)
        units = rows // about.every
        for index in np.unique(units).tolist():
            here = np.flatnonzero(units == index)
            unit, first = int(self.starts[column]) + index, index * about.every
            flight = self._flights.get(unit)
            if flight is None and len(here) == 1 and self.kept is not None:
                place = about.place + int(rows[here[0]]) * about.row
                if self.kept.fill(unit, place, flat[at[here[0]]]):
                    continue
            data = self._get(column, index, None) if flight is None else self._landed(flight, column, index)
            flat[at[here]] = np.frombuffer(data, np.uint8).reshape(-1, about.row)[rows[here] - first]

    def _landed(self, flight: Flight, column: int, index: int) -> bytes:
        try:
            return flight.answer.result()
        except (CancelledError, ClosedError):  # asked for by a pass that has failed, or ended since
            if self._failed is not None:
                raise self._failed from None
            return self._get(column, index, None)

    def _asked(self, column: int, index: int, closing: threading.Event) -> bytes:
        """A unit for a pass. If storage fails, the pass has: what it asked for besides is not waited for."""
        if closing.is_set():
            raise ClosedError
        try:
            return self._get(column, index, closing)
        except UserError as error:
            self._failed = error
            closing.set()
            raise

    def _get(self, column: int, index: int, closing: threading.Event | None) -> bytes:
        """A unit of a column, from this machine's disk or from storage."""
        about, unit = self.columns[column], int(self.starts[column]) + index
        first = index * about.every
        size = min(about.every, len(about.digests) - first) * about.row
        skipped, digest = first * about.row, about.digests[first].tobytes()
        data = None if self.kept is None else self.kept.read(unit, about.place + skipped, size, digest)
        if data is None:
            data = about.storage.read(about.key, about.offset + skipped, size, digest, closing)
            if self.kept is not None:
                self.kept.write(unit, about.place + skipped, data)
        return data

    @contextmanager
    def ahead(self, batches: Iterable[np.ndarray]) -> Iterator[Callable[[], None]]:
        """Fetch the units (K,) of each batch ahead, in this order, while the block lasts; what it gives is to be called
        whenever a batch has been read, one after the other.
        """
        closing, pool = threading.Event(), ThreadPoolExecutor(READERS, "fetches")
        left = ((n, unit) for n, units in enumerate(batches) for unit in units.tolist())
        waiting: deque[tuple[int, int]] = deque()  # (batch, unit) that have a flight
        pending, done, self._failed = 0, 0, None
        following = next(left, None)

        def fill() -> None:
            nonlocal pending, following
            while following is not None and pending < AHEAD:
                n, unit = following
                following = next(left, None)
                if n < done:
                    continue
                with self._lock:
                    flight = self._flights.get(unit)
                    if flight is None:
                        if self.kept is not None and self.kept.held[unit]:
                            continue
                        column = int(np.searchsorted(self.starts, unit, side="right")) - 1
                        index = unit - int(self.starts[column])
                        size = self.columns[column].row * self.columns[column].every
                        flight = self._flights[unit] = Flight(pool.submit(self._asked, column, index, closing), size)
                    flight.needed += 1
                waiting.append((n, unit))
                pending += flight.size

        def release() -> None:
            nonlocal pending
            with self._lock:
                _, unit = waiting.popleft()
                flight = self._flights[unit]
                flight.needed -= 1
                pending -= flight.size
                if not flight.needed:
                    del self._flights[unit]

        def finished() -> None:
            nonlocal done
            done += 1
            while waiting and waiting[0][0] < done:
                release()
            fill()

        try:
            fill()
            yield finished
        finally:
            closing.set()
            pool.shutdown(cancel_futures=True)
            while waiting:
                release()


def _sizes(column: Column) -> np.ndarray:
    """Bytes of each unit of a column; the last may have fewer rows."""
    rows = np.arange(0, len(column.digests), column.every)
    return column.row * np.minimum(column.every, len(column.digests) - rows)


def name(folder: Path) -> str:
    """Of a cache's folder, what tells people which it is."""
    return "-".join(folder.parts[-2:])
