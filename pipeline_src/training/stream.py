"""Rows of a cache, batch by batch, read ahead by several threads.

On a GPU they are read straight into pinned buffers, which are used again and again, and copied on a stream of their own
while the last batch trains; the training thread waits for nothing but a read that is not there yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline_src.features.read import Cache
from pipeline_src.training import device as devices

READERS = 4  # threads: a disk wants several requests at a time
AHEAD = READERS + 2  # batches that are read, being read or being copied


class Buffers:
    """Pinned memory for a batch of up to `rows` samples, and the event that ends its last copy."""

    def __init__(self, cache: Cache, modalities: Sequence[str], rows: int, event: Any):
        self.rows, self.event = rows, event
        self.tensors = {m: _empty(cache, m, rows, pin_memory=True) for m in modalities}


class Reader:
    """Reads the modalities of a cache to a device."""

    def __init__(self, cache: Cache, modalities: Sequence[str], device: torch.device):
        self.cache, self.modalities, self.device = cache, modalities, device
        self.backend: Any = devices.streams(device)
        self.side = self.backend.Stream(device) if self.backend else None
        self._free: list[Buffers] = []

    def batches(self, parts: Sequence[np.ndarray]) -> Iterator[dict[str, Tensor]]:
        """Inputs {m: (B, ...)} on the device of each part, rows (B,) of the cache, in their order."""
        if not len(parts):
            return
        with ThreadPoolExecutor(READERS, "reads") as pool:
            try:
                yield from self._pinned(parts, pool) if self.backend else self._plain(parts, pool)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def whole(self, rows: np.ndarray, room: int) -> dict[str, Tensor]:
        """All rows (N,) as tensors (N, ...) on the device, by way of at most `room` bytes of the host's memory."""
        if self.device.type == "cpu":
            return {m: torch.from_numpy(self.cache.gather(m, rows)) for m in self.modalities}
        step = max(1, room // (AHEAD * self.cache.row_bytes(list(self.modalities))))
        parts = [rows[first : first + step] for first in range(0, len(rows), step)]
        found = {m: _empty(self.cache, m, len(rows), device=self.device) for m in self.modalities}
        for i, inputs in enumerate(self.batches(parts)):
            for m, x in inputs.items():
                found[m][i * step : i * step + len(x)] = x
        self._free.clear()
        return found

    def _plain(self, parts: Sequence[np.ndarray], pool: ThreadPoolExecutor) -> Iterator[dict[str, Tensor]]:
        """In memory of their own, as what reads them may keep them."""

        def read(rows: np.ndarray) -> dict[str, Tensor]:
            return {m: torch.from_numpy(self.cache.gather(m, rows)) for m in self.modalities}

        left = iter(parts)
        asked = deque(pool.submit(read, rows) for rows in islice(left, AHEAD))
        while asked:
            inputs = asked.popleft().result()
            asked.extend(pool.submit(read, rows) for rows in islice(left, 1))
            yield {m: x.to(self.device) for m, x in inputs.items()}

    def _pinned(self, parts: Sequence[np.ndarray], pool: ThreadPoolExecutor) -> Iterator[dict[str, Tensor]]:
        def read(rows: np.ndarray, into: Buffers) -> tuple[Buffers, int]:
            into.event.synchronize()  # its last copy
            for m, buffer in into.tensors.items():
                self.cache.gather(m, rows, buffer.numpy()[: len(rows)])
            return into, len(rows)

        left = iter(parts)
        buffers = [self._buffers(max(map(len, parts))) for _ in range(min(AHEAD, len(parts)))]
        asked: deque[Future] = deque(
            pool.submit(read, *pair) for pair in zip(islice(left, AHEAD), buffers, strict=True)
        )
        try:
            while asked:
                filled, count = asked.popleft().result()
                inputs = self._copied(filled, count)
                asked.extend(pool.submit(read, rows, filled) for rows in islice(left, 1))
                yield inputs
        finally:
            wait([pending for pending in asked if not pending.cancel()])
            self._free.extend(buffers)

    def _buffers(self, rows: int) -> Buffers:
        """A free one that is large enough; a smaller one is given up."""
        if self._free and (last := self._free.pop()).rows >= rows:
            return last
        return Buffers(self.cache, self.modalities, rows, self.backend.Event())

    def _copied(self, filled: Buffers, count: int) -> dict[str, Tensor]:
        """Its first `count` rows on the device, there before what the current stream does next."""
        with self.backend.stream(self.side):
            inputs = {m: x[:count].to(self.device, non_blocking=True) for m, x in filled.tensors.items()}
            filled.event.record(self.side)
        current = self.backend.current_stream(self.device)
        current.wait_event(filled.event)
        for x in inputs.values():
            x.record_stream(current)
        return inputs


def _empty(cache: Cache, modality: str, rows: int, **where: Any) -> Tensor:
    info = cache.modalities[modality]
    dtype = torch.from_numpy(np.empty(0, info["dtype"])).dtype
    return torch.empty((rows, *info["shape"]), dtype=dtype, **where)
