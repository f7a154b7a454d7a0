"""Units of shards in storage that stay on this machine's disk, so that later epochs do not fetch them again.

Every epoch reads each row once, in another order. So what is to be read soonest is nobody's to know beyond the epoch,
and a unit that gives way to another is missed as often as the other is spared: nothing gains by it. What has come first
stays, and of a cache n times as large as the room an n-th of each epoch is read from disk, which is the most there is
(Mohan et al., Analyzing and mitigating data stalls in DNN training, PVLDB 14(5), 2021).

A cache has a folder: `rows`, a sparse file in which each unit has its place; `held`, a byte per unit, which is set once
the unit is written; `bytes`, what they take. Processes share it. The limit is kept over all caches in the folder, and a
cache that no process uses gives way. A unit is verified when a process first reads it: so what a crash of the machine
left half written is fetched again.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline_src.features import Room

log = logging.getLogger(__name__)

ASKED = 60.0  # seconds after which a full folder is looked at again: another job may have ended


class Kept:
    """What of a cache, whose units have `sizes` (N,) in bytes, lies in its folder. Threads and processes may share it.

    A unit is named by its number and by its place, the bytes of the units before it.
    """

    def __init__(self, room: Room, name: str, sizes: np.ndarray):
        self.room, self.folder = room, room.path / name
        self._lock, self._asked_at, self._broken = threading.Lock(), -ASKED, False
        count, total = len(sizes), int(sizes.sum())
        self._checked = np.zeros(count, bool)  # verified by this process
        room.path.mkdir(parents=True, exist_ok=True)
        self._gate = (room.path / "lock").open("ab")
        with self._alone():
            self.folder.mkdir(exist_ok=True)
            with (self.folder / "rows").open("ab") as opened:
                opened.truncate(total)
            self._rows: BinaryIO = (self.folder / "rows").open("r+b", buffering=0)
            with (self.folder / "held").open("ab") as opened:
                missing = max(0, count - opened.tell())
                opened.write(bytes(missing))  # no hole: a full disk is an error here, and none of memory later
            self.held = np.memmap(self.folder / "held", np.uint8, "r+", shape=(count,))
            self._used = (self.folder / "used").open("a+b")  # NFS locks what is open for reading and writing
            if _locked(self._used):  # alone: a process that was killed may have counted what it did not write
                _count(self.folder, int(sizes[self.held == 1].sum()))
            fcntl.flock(self._used, fcntl.LOCK_SH)  # for as long as the process lives

    def read(self, unit: int, place: int, size: int, digest: bytes) -> bytes | None:
        """A unit, or None if it does not lie here."""
        if not self.held[unit]:
            return None
        data = os.pread(self._rows.fileno(), size, place)
        if not self._checked[unit]:
            if hashlib.sha256(data).digest() != digest:
                log.warning(f"{self.folder}: a unit is not as it was written; fetched again")
                self.held[unit] = 0
                return None
            self._checked[unit] = True
        return data

    def fill(self, unit: int, place: int, out: np.ndarray) -> bool:
        """Read a part of a unit, bytes (n,) from its place, if it lies here and has been verified."""
        if not (self.held[unit] and self._checked[unit]):
            return False
        return os.preadv(self._rows.fileno(), [out.data], place) == len(out)

    def write(self, unit: int, place: int, data: bytes) -> None:
        """Keep a unit, which is verified, if there is room."""
        if self._broken or time.monotonic() < self._asked_at + ASKED:
            return
        with self._alone():
            if self._broken or self.held[unit]:
                return
            try:
                if not self._has_room(len(data)):
                    self._asked_at = time.monotonic()
                    return
                _count(self.folder, _counted(self.folder) + len(data))  # first: a process that is killed takes no more
                done = 0
                while done < len(data):
                    done += os.pwrite(self._rows.fileno(), memoryview(data)[done:], place + done)
                self._checked[unit] = True
                self.held[unit] = 1
            except OSError as error:  # a full or broken disk: fetched again in each epoch
                self._broken = True
                said = error.strerror or error
                log.warning(f"{self.folder}: expected to be able to write it, but got: {said}; not used any more")

    def _has_room(self, size: int) -> bool:
        """Whether so many bytes fit; caches that nobody uses give way to them."""
        sizes = {folder: _counted(folder) for folder in self.room.path.iterdir() if folder.is_dir()}
        free = self.room.bytes - sum(sizes.values())
        for folder in sorted(sizes, key=lambda folder: folder.stat().st_mtime) if free < size else ():
            if folder != self.folder and _unused(folder):
                log.info(f"{folder}  no job uses it: removed, {sizes[folder] / 1e6:,.0f} MB")
                shutil.rmtree(folder)
                free += sizes[folder]
            if free >= size:
                break
        return free >= size

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other thread or process changes which caches there are, and how large."""
        with self._lock:
            fcntl.flock(self._gate, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._gate, fcntl.LOCK_UN)


def _counted(folder: Path) -> int:
    """Bytes that a cache takes in its folder."""
    with suppress(OSError, ValueError):
        return int((folder / "bytes").read_text(encoding="ascii"))
    return 0


def _count(folder: Path, size: int) -> None:
    (folder / "bytes").write_text(str(size), encoding="ascii")


def _unused(folder: Path) -> bool:
    """Whether no process has a cache open."""
    try:
        with (folder / "used").open("r+b") as opened:
            return _locked(opened)
    except FileNotFoundError:
        return False  # none of ours


def _locked(opened: BinaryIO) -> bool:
    """Whether nobody else has a lock on a file; this process has one now."""
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def taken(room: Room) -> int:
    """Bytes that lie in the folder."""
    return sum(_counted(folder) for folder in room.path.iterdir()) if room.path.is_dir() else 0
