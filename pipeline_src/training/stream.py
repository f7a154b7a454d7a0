"""Rows of a cache, batch by batch, read ahead by several threads.

On a GPU they are read straight into pinned buffers, which are used again and again, and copied on a stream of their own
while the last batch trains; the training thread waits for nothing but a read that is not there yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline_src.features.read import Cache
from pipeline_src.training import device as devices

READERS = 8  # threads: a disk gives its rate to several requests at a time
AHEAD = 6  # batches that are read, being read or being copied
PIECE = 2 << 20  # bytes of a batch that a thread reads at a time, or one row
LEAST = 256 << 10  # and at least, so that every thread reads of the first batch


class Buffers:
    """Memory for a batch of up to `rows` samples, {m: (rows, ...)}, and what ends its last copy."""

    def __init__(self, cache: Cache, modalities: Sequence[str], rows: int, event: Any = None):
        self.rows, self.event = rows, event
        self.tensors = {m: _empty(cache, m, rows, pin_memory=event is not None) for m in modalities}


class Reader:
    """Reads the modalities of a cache to a device."""

    def __init__(self, cache: Cache, modalities: Sequence[str], device: torch.device):
        self.cache, self.modalities, self.device = cache, modalities, device
        self.backend: Any = devices.streams(device)
        self.side = self.backend.Stream(device) if self.backend else None
        self._free: list[Buffers] = []

    def batches(self, parts: Sequence[np.ndarray]) -> Generator[dict[str, Tensor]]:
        """Inputs {m: (B, ...)} on the device of each part, rows (B,) of the cache, in their order."""
        if not len(parts):
            return
        most, left = max(map(len, parts)), iter(parts)
        with self.cache.ahead(self.modalities, parts) as done, self._threads() as pool:
            asked: deque[tuple[int, Buffers, list[Future]]] = deque()
            try:
                for rows in islice(left, AHEAD):
                    asked.append(self._asked(pool, rows, self._buffers(most)))
                while asked:
                    count, buffers, pieces = asked[0]
                    for piece in pieces:
                        piece.result()
                    done()
                    inputs = self._sent(buffers, count)
                    asked.popleft()
                    self._keep(buffers)
                    asked.extend(self._asked(pool, rows, self._buffers(most)) for rows in islice(left, 1))
                    yield inputs
            finally:
                for _, buffers, pieces in asked:
                    wait([piece for piece in pieces if not piece.cancel()])
                    self._keep(buffers)

    def whole(self, rows: np.ndarray, room: int) -> dict[str, Tensor]:
        """All rows (N,) as tensors (N, ...) on the device, by way of at most `room` bytes of the host's memory."""
        if self.device.type == "cpu" and self.cache.units is None:
            return {m: torch.from_numpy(self.cache.gather(m, rows)) for m in self.modalities}
        step = max(1, room // (AHEAD * self.cache.row_bytes(list(self.modalities))))
        parts = [rows[first : first + step] for first in range(0, len(rows), step)]
        found = {m: _empty(self.cache, m, len(rows), device=self.device) for m in self.modalities}
        for i, inputs in enumerate(self.batches(parts)):
            for m, x in inputs.items():
                found[m][i * step : i * step + len(x)] = x
        self._free.clear()
        return found

    def _threads(self) -> ThreadPoolExecutor:
        """Threads that read. They wait for events, too: one that had not set its device would do so on the first GPU,
        and take memory there.
        """
        begin = partial(self.backend.set_device, self.side.device) if self.side else None
        return ThreadPoolExecutor(READERS, "reads", begin)

    def _buffers(self, rows: int) -> Buffers:
        """On a GPU a free one that is large enough, and a smaller one is given up; else a new one, as what is read may
        be kept.
        """
        if not self.backend:
            return Buffers(self.cache, self.modalities, rows)
        if self._free and (last := self._free.pop(0)).rows >= rows:
            return last
        return Buffers(self.cache, self.modalities, rows, self.backend.Event())

    def _keep(self, buffers: Buffers) -> None:
        if self.backend:
            self._free.append(buffers)

    def _asked(self, pool: ThreadPoolExecutor, rows: np.ndarray, buffers: Buffers) -> tuple[int, Buffers, list[Future]]:
        """Have the rows read into the buffers, a piece by each thread that is free."""
        size = self.cache.row_bytes(list(self.modalities))
        step = max(1, LEAST // size, min(PIECE // size, -(-len(rows) // READERS)))

        def read(first: int) -> None:
            if buffers.event is not None:
                buffers.event.synchronize()  # its last copy
            piece = rows[first : first + step]
            for m, x in buffers.tensors.items():
                self.cache.gather(m, piece, x.numpy()[first : first + len(piece)])

        return len(rows), buffers, [pool.submit(read, first) for first in range(0, len(rows), step)]

    def _sent(self, buffers: Buffers, count: int) -> dict[str, Tensor]:
        """The first `count` rows on the device, there before what the current stream does next."""
        if not self.backend:
            return {m: x[:count].to(self.device) for m, x in buffers.tensors.items()}
        with self.backend.stream(self.side):
            inputs = {m: x[:count].to(self.device, non_blocking=True) for m, x in buffers.tensors.items()}
            buffers.event.record(self.side)
        current = self.backend.current_stream(self.device)
        current.wait_event(buffers.event)
        for x in inputs.values():
            x.record_stream(current)
        return inputs


def _empty(cache: Cache, modality: str, rows: int, **where: Any) -> Tensor:
    info = cache.modalities[modality]
    dtype = torch.from_numpy(np.empty(0, info["dtype"])).dtype
    return torch.empty((rows, *info["shape"]), dtype=dtype, **where)
