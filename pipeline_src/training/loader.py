"""Batches on the device, in a given order: from a cache moved there whole, or streamed when it does not fit."""

import queue
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline_src.core.errors import UserError
from pipeline_src.features.read import Cache
from pipeline_src.methods.base import Batch
from pipeline_src.tasks.base import Target

PREFETCH = 3  # batches read ahead: one being used, one waiting, one being read


def sizes(count: int, batch_size: int, least: int = 1) -> list[int]:
    """How many samples each batch of `count` has, as `Loader.batches` describes it."""
    full, rest = divmod(count, batch_size)
    if full and rest < least:
        return [batch_size] * (full - 1) + [batch_size + rest]
    return [batch_size] * full + [rest] * (rest > 0)


def targets(label: np.ndarray, target: Target) -> np.ndarray:
    """Labels of a cache, (N,) numbers or lists, as targets (N, *shape). Raises UserError if they have another shape."""
    values = np.array(label.tolist(), dtype=target.dtype) if label.dtype == object else label.astype(target.dtype)
    if values.shape != (len(label), *target.shape):
        raise UserError(
            f"expected labels of shape {target.shape} for the task, but got {values.shape[1:]}; "
            "name the task of the dataset's labels in its class"
        )
    return values


class Loader:
    """The clips of one split, on the device in the cache's own types; `Transform` makes them the model's input.

    `resident` moves all of them there at once, so that a batch is an index; otherwise a thread reads ahead from the
    mapped file. Both give the same batches. `label` (N, ...) holds the targets as the task wants them.
    """

    def __init__(
        self,
        cache: Cache,
        split: str,
        modalities: Sequence[str],
        device: torch.device,
        resident: bool,
        target: Target = Target(),  # noqa: B008  # it cannot change
    ):
        self.cache, self.modalities, self.device = cache, modalities, device
        self.rows = cache.rows(split)
        self.label = torch.from_numpy(targets(cache.clips.label.to_numpy()[self.rows], target)).to(device)
        self.resident = None
        if resident:
            self.resident = {m: torch.from_numpy(cache.gather(m, self.rows)).to(device) for m in modalities}

    def __len__(self) -> int:
        return len(self.rows)

    def batches(
        self,
        batch_size: int,
        order: Tensor | None = None,
        first: int = 0,
        samples: Tensor | None = None,
        least: int = 1,
    ) -> Iterator[Batch]:
        """Batches of the rows `samples` (N,), repeats allowed (default: every row once, ascending), in the order of
        `order`, positions in `samples` (default: ascending). The last batch may be smaller, none is dropped; if it had
        fewer than `least` samples, they are in the batch before.

        Starts with batch number `first`, of a pass that goes on.
        """
        if order is None:
            order = torch.arange(len(self) if samples is None else len(samples))
        parts = order.split(sizes(len(order), batch_size, least))[first:]
        pairs = [(part, part if samples is None else samples[part]) for part in parts]
        yield from self._stream(pairs) if self.resident is None else self._index(pairs, self.resident)

    def _index(self, pairs: list[tuple[Tensor, Tensor]], resident: dict[str, Tensor]) -> Iterator[Batch]:
        for position, row in pairs:
            index = row.to(self.device)
            inputs = {m: x.index_select(0, index) for m, x in resident.items()}
            yield Batch(inputs, self.label[index], index, index if position is row else position.to(self.device))

    def _stream(self, pairs: list[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        ready: queue.Queue = queue.Queue(maxsize=PREFETCH)
        stop = threading.Event()
        pin = self.device.type == "cuda"

        def read() -> None:
            try:
                for position, row in pairs:
                    rows = self.rows[row.numpy()]
                    inputs = {m: torch.from_numpy(self.cache.gather(m, rows)) for m in self.modalities}
                    put((position, row, {m: x.pin_memory() for m, x in inputs.items()} if pin else inputs))
                put(None)
            except BaseException as error:
                put(error)

        def put(item: object) -> None:
            while not stop.is_set():
                try:
                    return ready.put(item, timeout=0.1)
                except queue.Full:
                    continue

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                position, row, inputs = item
                index = row.to(self.device)
                inputs = {m: x.to(self.device, non_blocking=True) for m, x in inputs.items()}
                yield Batch(inputs, self.label[index], index, index if position is row else position.to(self.device))
        finally:
            stop.set()
            thread.join()
