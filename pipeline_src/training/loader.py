"""Batches on the device, in a given order: from a cache moved there whole, or streamed when it does not fit."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline_src.core.errors import UserError
from pipeline_src.core.upload import upload
from pipeline_src.features.read import Cache
from pipeline_src.methods.base import Batch
from pipeline_src.tasks.base import Target
from pipeline_src.training.stream import Reader

ROOM = 256 << 20  # bytes of the host's memory by way of which a cache goes to the device


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

    `resident` moves all of them there, so that a batch is an index; otherwise they are read ahead (see `stream`). Both
    give the same batches. `label` (N, ...) holds the targets as the task wants them.
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
        self.reader = Reader(cache, modalities, device)
        self.resident = self.reader.whole(self.rows, ROOM) if resident else None

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
        lengths = sizes(len(order), batch_size, least)
        done, lengths = sum(lengths[:first]), lengths[first:]
        order = order[done:]
        rows = order if samples is None else samples[order]
        index = upload(rows, self.device).split(lengths)
        position = index if samples is None else upload(order, self.device).split(lengths)
        for inputs, i, p in zip(self._inputs(rows, index, lengths), index, position, strict=True):
            yield Batch(inputs, self.label[i], i, p)

    def _inputs(self, rows: Tensor, index: Sequence[Tensor], lengths: list[int]) -> Iterator[dict[str, Tensor]]:
        """Inputs of each batch, of the rows (N,) of the split, which `index` has on the device."""
        if self.resident is None:
            yield from self.reader.batches([self.rows[part.numpy()] for part in rows.cpu().split(lengths)])
            return
        for i in index:
            yield {m: x.index_select(0, i) for m, x in self.resident.items()}
