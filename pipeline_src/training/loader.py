"""Batches on the device, in a given order: from a cache moved there whole, or streamed when it does not fit."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from pipeline_src.core.errors import UserError
from pipeline_src.core.upload import upload
from pipeline_src.features.read import Cache
from pipeline_src.methods.base import Batch
from pipeline_src.models.parts import Part, Place, own
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
    try:
        values = (np.stack(label.tolist()) if label.dtype == object else label).astype(target.dtype, copy=False)
    except ValueError:
        raise UserError("expected lists of one length as labels, but got several; fix the dataset's labels") from None
    if values.ndim != 2 if target.shape is None else values.shape != (len(label), *target.shape):
        wanted = "lists" if target.shape is None else f"labels of shape {target.shape}"
        raise UserError(
            f"expected {wanted} for the task, but got {values.shape[1:]}; name the task of the dataset's labels in its "
            "class"
        )
    return values


class Loader:
    """The clips of one split, on the device in the cache's own types; `Transform` makes them the model's input.

    `resident` moves all of them there, so that a batch is an index; otherwise they are read ahead (see `stream`). Both
    give the same batches. `label` (N, ...) holds the targets as the task wants them.

    With `segments` T, `label` (N x T,) has a row per segment, those of a sample one after the other, and a batch of B
    samples has B x T of them; its `index` and `position` count segments as well. Inputs are cut by `Transform`.

    With a `place`, the inputs of a batch are this process's part of it; see `models.parts`.
    """

    def __init__(
        self,
        cache: Cache,
        split: str,
        modalities: Sequence[str],
        device: torch.device,
        resident: bool,
        target: Target = Target(),  # noqa: B008  # it cannot change
        segments: int = 0,
        place: Place | None = None,
    ):
        self.cache, self.modalities, self.device, self.segments = cache, modalities, device, segments
        self.place = place
        self.rows = cache.rows(split)
        label = targets(cache.clips.label.to_numpy()[self.rows], target)
        if segments and label.shape[1:] != (segments,):
            raise UserError(
                f"expected {segments} segments with a label each, but got {label.shape[1:]}; make the cache again"
            )
        self.label = torch.from_numpy(label.reshape(-1) if segments else label).to(device)
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
        with closing(self._inputs(rows, index, lengths)) as read:
            for inputs, i, p in zip(read, index, position, strict=True):
                row, place = self._segments(i), self._segments(p)
                yield Batch(inputs, self.label[row], row, place)

    def _segments(self, samples: Tensor) -> Tensor:
        """The rows (B x T,) of samples (B,)."""
        if not self.segments:
            return samples
        return (samples[:, None] * self.segments + torch.arange(self.segments, device=samples.device)).flatten()

    def _inputs(self, rows: Tensor, index: Sequence[Tensor], lengths: list[int]) -> Generator[dict[str, Tensor]]:
        """Inputs of each batch, of the rows (N,) of the split, which `index` has on the device."""
        counts = [self.place.counts(length) if self.place else None for length in lengths]
        parts = [slice(None) if of is None or self.place is None else own(of, self.place.rank) for of in counts]
        if self.resident is None:
            every = zip(rows.cpu().split(lengths), parts, strict=True)
            read = self.reader.batches([self.rows[batch.numpy()[part]] for batch, part in every])
        else:
            read = self._picked(self.resident, [i[part] for i, part in zip(index, parts, strict=True)])
        with closing(read):
            for inputs, of in zip(read, counts, strict=True):
                yield inputs if of is None or self.place is None else Part(inputs, of, self.place.rank)

    @staticmethod
    def _picked(resident: dict[str, Tensor], index: Sequence[Tensor]) -> Generator[dict[str, Tensor]]:
        for i in index:
            yield {m: x.index_select(0, i) for m, x in resident.items()}
