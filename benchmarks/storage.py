"""Reading shards that lie in storage, against the same cache on this disk.

A server of ours on this machine answers after a set delay, as one in a network does. So not what a network carries is
measured, but how well the wait for it is hidden.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from pipeline_src.features import Room, storage, units
from pipeline_src.features.read import Cache

CLIP = {"visual": ("frames", (3, 3, 224, 224), "uint8")}  # 452 kB: CREMA-D's three frames
BATCH, ROUNDS = 16, 3
DELAYS = (0.0, 0.03, 0.1)  # seconds before each answer: none, the same region, another continent


def measure(clips: int) -> None:
    """Print clips per second, medians of epochs in turn, and their part of the local cache's in the same turn."""
    from benchmarks.clips import write

    size, many = int(np.prod(CLIP["visual"][1])), units.READERS
    ways: dict[str, tuple[float | None, int]] = {  # what part of the cache the local copy may hold; requests at a time
        "one request at a time": (None, 1),
        f"{many} requests": (None, many),
        "half of it in the local copy": (0.5, many),
        "all of it in the local copy": (1.0, many),
    }
    with tempfile.TemporaryDirectory(dir=".") as name, contextlib.chdir(name):
        Path("data").mkdir()  # where is remembered that the cache has been verified
        here = write(Path("cache/here"), {"train": clips}, CLIP)
        print(
            f"{clips} clips of {size / 1e3:.0f} kB, batches of {BATCH}, medians of {ROUNDS} turns, all files in memory"
        )
        print(f"{'answers after':15}{'':32}{'clips/s':>9}{'MB/s':>8}{'of local':>10}")
        for delay in DELAYS:
            with served(delay) as address:
                folder = Path(f"cache/there-{delay}")
                shutil.copytree("cache/here", folder)
                storage.put(folder / "shard-0.arrow", address, folder.name, "shard-0")
                caches = {way: opened(folder, way, part) for way, (part, _) in ways.items()}
                for way, (part, _) in ways.items():
                    if part is not None:
                        rate(caches[way], many)  # the first epoch fills it
                turns: dict[str, list[float]] = {way: [] for way in ["this disk", *ways]}
                for _ in range(ROUNDS):
                    turns["this disk"].append(rate(here, many))
                    for way, (_, readers) in ways.items():
                        turns[way].append(rate(caches[way], readers))
            for way, rates in turns.items():
                ratio = statistics.median(a / b for a, b in zip(rates, turns["this disk"], strict=True))
                median = statistics.median(rates)
                print(f"{1e3 * delay:10.0f} ms   {way:34}{median:9.0f}{median * size / 1e6:8.0f}{ratio:10.3f}")


def opened(folder: Path, way: str, part: float | None) -> Cache:
    """The cache, with room for a part of it; none: nothing stays."""
    size = storage.listed(folder / "shard-0.arrow").bytes
    room = None if part is None else Room(f"{folder.name}-{way}".replace(" ", "-"), int(1.001 * part * size))
    return Cache(folder, room)


def rate(cache: Cache, readers: int) -> float:
    """Clips per second of an epoch in random order, as training reads it; with a single reader of its first tenth."""
    from pipeline_src.training.stream import Reader

    rows = np.random.default_rng(time.monotonic_ns()).permutation(len(cache.clips))
    rows = rows if readers > 1 else rows[: -(-len(rows) // 10)]
    before, units.READERS = units.READERS, readers
    started = time.perf_counter()
    try:
        for _ in Reader(cache, list(CLIP), torch.device("cpu")).batches(np.array_split(rows, -(-len(rows) // BATCH))):
            pass
    finally:
        units.READERS = before
    return len(rows) / (time.perf_counter() - started)


@contextlib.contextmanager
def served(delay: float) -> Iterator[str]:
    """The address of a server in a process of its own."""
    from benchmarks import s3

    os.environ |= {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    context = multiprocessing.get_context("spawn")
    port = context.Queue()
    process = context.Process(target=s3.serve, args=(port, delay), daemon=True)
    process.start()
    try:
        yield s3.address("bucket/prefix", port.get(timeout=60))
    finally:
        process.terminate()
        process.join()
