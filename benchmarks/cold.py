"""Reading a cache that is not in memory: by page faults of the map, as training reads it, and at the disk's own rate.

A fifth of the clips is read, in random order: of a cache that is larger than memory, what the system reads besides a
row is gone before it is wanted.
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from pipeline_src.core.errors import UserError
from pipeline_src.features.read import Cache

CLIP = {"visual": ("frames", (3, 3, 224, 224), "uint8")}  # 452 kB: CREMA-D's three frames
BATCH, ROUNDS, BLOCK, THREADS, PART = 16, 5, 4 << 20, 8, 5
BATCHES, DEPTH, SERVICE = 40, 8, 0.016  # of the made-up disk; seconds
PACES = (0.5, 1.0, 2.0)  # of a step, in times that the disk takes for a batch


def cold(clips: int) -> None:
    """Print clips per second of each way, in turn, medians; then what is left of the smaller rate of disk and compute
    where a step takes half, as much as and twice the time that the disk takes for a batch.
    """
    from benchmarks.clips import forget, from_disk, write

    if not hasattr(os, "posix_fadvise"):
        raise UserError("bench cold: expected a system that can drop a file from memory (Linux); run it on one")
    with tempfile.TemporaryDirectory(dir=".") as name, contextlib.chdir(name):
        Path("data").mkdir()  # where is remembered that the cache has been verified: that reads all of it
        folder = Path("cache")
        write(folder, {"train": clips}, CLIP)
        size, count = int(np.prod(CLIP["visual"][1])), len(_rows(clips))
        print(f"{count} of {clips} clips of {size / 1e3:.0f} kB, batches of {BATCH}, medians of {ROUNDS} turns")

        def run(way: Callable[[Cache], float]) -> tuple[float, float]:
            """Seconds, and the bytes that came from the disk for each that was wanted."""
            gc.collect()  # a map that is still there keeps its pages
            cache = Cache(folder)
            assert len(cache.clips) == clips
            forget(folder)
            before = from_disk()
            seconds = way(cache)
            return seconds, (from_disk() - before) / (count * size)

        ways: dict[str, Callable[[Cache], float]] = {
            "page faults of the map": faults,
            "with the system's read-ahead": former,
            "as training reads": streamed,
            "disk, large blocks in order": whole,
            "disk, the same rows": bare,
        }
        turns: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        steps: dict[tuple[float, str], list[float]] = {}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                turns[name].append(run(way))
            disk = min(turns[name][-1][0] for name in ways if name.startswith("disk"))
            for pace in PACES:
                step = pace * disk / len(_parts(clips))
                batches = len(_parts(clips))
                slower = max(disk * (batches - 1) / batches, steps_alone(step, batches))
                for name, way in (("former", former), ("now", streamed)):
                    taken = run(partial(way, step=step))[0]
                    steps.setdefault((pace, name), []).append(slower / taken)
        seconds = {name: statistics.median(s for s, _ in of) for name, of in turns.items()}
        slow, disk = seconds["page faults of the map"], min(s for name, s in seconds.items() if name.startswith("disk"))
        print(f"{'':30}{'clips/s':>9}{'MB/s':>8}{'ratio':>8}{'of the disk':>13}{'bytes read':>12}")
        for name, s in seconds.items():
            read, rate = statistics.median(part for _, part in turns[name]), count / s
            print(f"{name:30}{rate:9.0f}{rate * size / 1e6:8.0f}{slow / s:8.2f}{disk / s:13.2f}{read:12.2f}")
        print("of the smaller rate of disk and steps, after the first batch: as training read before, and now:")
        for pace in PACES:
            before, now = (statistics.median(steps[pace, name]) for name in ("former", "now"))
            print(f"steps of {pace:g} times the disk's time for a batch: {before:.2f}, {now:.2f}")
    print("the reader alone, on a made-up disk that takes 16 ms for each of 8 rows at once, after its first batch:")
    for pace in PACES:
        print(f"such steps: {reader_alone(pace):.2f} of the smaller rate")


def faults(cache: Cache) -> float:
    """Rows taken from the map, as until version 0.1."""
    parts = cache._parts
    starts = np.cumsum([0, *(part.rows for part in parts)])[:-1]
    started = time.perf_counter()
    for rows in _parts(len(cache.clips)):
        out = np.empty((len(rows), *CLIP["visual"][1]), np.uint8)
        batch = np.searchsorted(starts, rows, side="right") - 1
        for i, (b, row) in enumerate(zip(batch, rows - starts[batch], strict=True)):
            out[i] = parts[b].columns["visual"][row]
    return time.perf_counter() - started


def streamed(cache: Cache, step: float = 0.0) -> float:
    """As training reads. With steps that take so many seconds of another processor: from the first batch on, which is
    one of hundreds in a pass of training.
    """
    import torch

    from pipeline_src.training.stream import Reader

    parts = _parts(len(cache.clips))
    started = time.perf_counter()
    for i, _ in enumerate(Reader(cache, list(CLIP), torch.device("cpu")).batches(parts)):
        if step:
            started = started if i else time.perf_counter()
            time.sleep(step)
    return time.perf_counter() - started


def former(cache: Cache, step: float = 0.0) -> float:
    """As training read before: larger pieces, fewer batches ahead, and what the system reads ahead by itself."""
    from pipeline_src.training import stream

    for part in cache._parts:
        os.posix_fadvise(part.file.fileno(), 0, 0, os.POSIX_FADV_NORMAL)
    now, stream.AHEAD, stream.LEAST = (stream.AHEAD, stream.LEAST), 4, stream.PIECE
    try:
        return streamed(cache, step)
    finally:
        stream.AHEAD, stream.LEAST = now


def steps_alone(step: float, count: int) -> float:
    """The same steps without reading: on a busy machine they, too, take longer than they should."""
    started = time.perf_counter()
    for _ in range(count):
        time.sleep(step)
    return time.perf_counter() - started


class Disk:
    """In the place of a cache: rows that take a fixed time, so many at once, and no processor."""

    def __init__(self) -> None:
        self.modalities = {"v": {"shape": [1], "dtype": "uint8"}}
        self.free = threading.Semaphore(DEPTH)

    def row_bytes(self, modalities: list[str]) -> int:
        return int(np.prod(CLIP["visual"][1]))

    def ahead(self, modalities: list[str], parts: list[np.ndarray]) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext(lambda: None)

    def gather(self, modality: str, rows: np.ndarray, out: np.ndarray) -> None:
        for _ in rows:
            with self.free:
                time.sleep(SERVICE)


def reader_alone(pace: float) -> float:
    """The part of the smaller rate of disk and steps that the reader gives on `Disk`, after the first batch."""
    import torch

    from pipeline_src.training.stream import Reader

    parts = np.array_split(np.arange(BATCHES * BATCH), BATCHES)
    batch = SERVICE * BATCH / DEPTH
    batches = Reader(Disk(), ["v"], torch.device("cpu")).batches(parts)  # type: ignore[arg-type]
    next(batches)
    started = time.perf_counter()
    time.sleep(pace * batch)
    for _ in batches:
        time.sleep(pace * batch)
    return max((BATCHES - 1) * batch, BATCHES * pace * batch) / (time.perf_counter() - started)


def bare(cache: Cache) -> float:
    """The same rows by twice as many threads as training has, each into memory of its own, in no order."""
    from pipeline_src.training.stream import READERS

    rows, count = _rows(len(cache.clips)), 2 * READERS

    def read(first: int) -> None:
        out = np.empty((1, *CLIP["visual"][1]), np.uint8)
        for row in rows[first::count]:
            cache.gather("visual", np.array([row]), out)

    started = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(read, range(count)))
    return time.perf_counter() - started


def whole(cache: Cache) -> float:
    """As many bytes in large blocks, in order, by several threads, past the page cache where the file system can."""
    (file,) = cache.folder.glob("*.arrow")
    flags = os.O_RDONLY | getattr(os, "O_DIRECT", 0)
    descriptor = -1
    with contextlib.suppress(OSError):
        descriptor = os.open(file, flags)
    if descriptor < 0:
        descriptor = os.open(file, os.O_RDONLY)
    count = -(-file.stat().st_size // PART // BLOCK)

    def read(first: int) -> None:
        with mmap.mmap(-1, BLOCK) as block:
            for i in range(first, count, THREADS):
                os.preadv(descriptor, [block], i * BLOCK)

    started = time.perf_counter()
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(read, range(THREADS)))
    finally:
        os.close(descriptor)
    return time.perf_counter() - started


def _rows(clips: int) -> np.ndarray:
    return np.random.default_rng(1).permutation(clips)[: -(-clips // PART)]


def _parts(clips: int) -> list[np.ndarray]:
    rows = _rows(clips)
    return np.array_split(rows, -(-len(rows) // BATCH))
