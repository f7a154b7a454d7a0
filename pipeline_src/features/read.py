"""Reads the feature cache without copying it: shards are mapped into memory.

Large rows are not taken from the map: a page that is not in memory is fetched when it is touched, with what happens to
lie around it, one after the other. They are read from the file, whole rows and nothing else, by as many threads as ask.

A shard may lie in storage (see `storage`): then a listing is in its place, and its tensors are read from there.
"""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline_src.core import checksums, files
from pipeline_src.features import Room, fix, read_info, storage
from pipeline_src.features.units import Units, name


def tensors(shard: Path) -> Iterator[dict[str, Any]]:
    """Record batches of a shard: pandas series for the plain columns, views (N, *shape) on the mapped file for
    tensors. One that lies in storage is fetched whole. Raises UserError if it is damaged.
    """
    reader, _ = _mapped(shard)
    about = storage.stored(reader.schema)
    if about is None:
        yield from _batches(reader)
        return
    with storage.copied(about, shard) as copy:
        yield from _batches(_opened(copy)[0])


def _mapped(shard: Path) -> tuple[pa.RecordBatchFileReader, int]:
    """A shard or its listing, mapped, and the address in memory at which the file begins."""
    checksums.verify(files.awaited(shard), fix(shard))
    return _opened(shard)


def _opened(shard: Path) -> tuple[pa.RecordBatchFileReader, int]:
    file = pa.memory_map(str(shard))
    return pa.ipc.open_file(file), file.read_buffer(1).address


def _batches(reader: pa.RecordBatchFileReader) -> Iterator[dict[str, Any]]:
    return (_columns(reader.get_batch(i)) for i in range(reader.num_record_batches))


def _columns(batch: pa.RecordBatch) -> dict[str, Any]:
    return {name: _values(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def _values(column: pa.Array) -> Any:
    if isinstance(column, pa.FixedShapeTensorArray):
        return column.to_numpy_ndarray()
    if column.type == storage.DIGEST:
        width = column.type.byte_width
        return np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, width)[column.offset :][: len(column)]
    return column.to_pandas()


LARGE = 32 << 10  # bytes of a row from which on it is read by itself
PLAIN = ("id", "label", "split", "group")  # columns of the index


class Part(NamedTuple):
    """A record batch: how many rows it has, its modalities, the open file that holds it, and the address in memory at
    which the file is mapped; of a shard in storage, the number in `Units` of each modality.
    """

    rows: int
    columns: dict[str, np.ndarray]
    file: BinaryIO
    start: int
    stored: dict[str, int]

    def offset(self, modality: str) -> int:
        """Where in the file the first row of a modality lies."""
        return self.columns[modality].ctypes.data - self.start


class Cache:
    """A finished cache: its index, and the rows of any modality by number.

    `clips` has id, label (as the task stores it: an index into `classes`, a number or a list), split and group of every
    row, in the order of the manifest. What is read of shards in storage stays in `room`, as far as there is some.
    """

    def __init__(self, folder: Path, room: Room | None = None):
        self.folder, self._room = folder, room
        self.info = read_info(folder)
        self.classes: list[str] = self.info["classes"]
        self.modalities: dict[str, dict] = self.info["modalities"]

    @cached_property
    def _parts(self) -> list[Part]:
        return self._shards[0]

    @property
    def units(self) -> Units | None:
        """What lies in storage; None if nothing does."""
        return self._shards[1]

    @cached_property
    def _shards(self) -> tuple[list[Part], Units | None, list[pa.Table]]:
        """The parts, what lies in storage, and the index of each shard, which `clips` takes away."""
        parts, units, index = list[Part](), Units(), list[pa.Table]()
        for shard in self.info["shards"]:
            reader, start = _mapped(self.folder / shard)
            file, about = (self.folder / shard).open("rb", buffering=0), storage.stored(reader.schema)
            alone(file)
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
            for i, batch in enumerate(batches):
                there, columns = dict[str, int](), {m: _values(batch.column(m)) for m in self.modalities}
                if about is not None:
                    there = {m: units.add(about, i, m, self.row_bytes([m]), columns[m]) for m in self.modalities}
                parts.append(Part(len(batch), columns, file, start, there))
            index.append(pa.Table.from_batches(batches, reader.schema).select(PLAIN).replace_schema_metadata())
        if not units.columns:
            return parts, None, index
        units.close(name(self.folder), self._room)
        return parts, units, index

    @cached_property
    def clips(self) -> pd.DataFrame:
        # Of millions of clips there are some ten thousand parts, and pandas objects of each would take the most memory.
        index = self._shards[2]
        whole = pa.concat_tables(index).combine_chunks()
        index.clear()
        return whole.to_pandas()

    def rows(self, split: str) -> np.ndarray:
        """Numbers of the rows of a split, ascending."""
        return np.flatnonzero(self.clips.split.to_numpy() == split)

    def row_bytes(self, modalities: list[str]) -> int:
        """Bytes of one clip in these modalities."""
        parts = [self.modalities[m] for m in modalities]
        return sum(int(np.prod(part["shape"])) * np.dtype(part["dtype"]).itemsize for part in parts)

    def gather(self, modality: str, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Copies of the given rows, in their order: (N, *shape), in `out` if it is given. Several threads may ask."""
        info = self.modalities[modality]
        out = np.empty((len(rows), *info["shape"]), dtype=info["dtype"]) if out is None else out
        if len(rows) and out[:1].nbytes >= LARGE and self.units is None:
            self._read(modality, rows, out)
            return out
        batch_of = np.searchsorted(self._starts, rows, side="right") - 1
        for batch in np.unique(batch_of):
            here, part = np.flatnonzero(batch_of == batch), self._parts[batch]
            numbers = rows[here] - self._starts[batch]
            if self.units is not None and part.stored:
                self.units.gather(part.stored[modality], numbers, out, here)
            else:
                out[here] = part.columns[modality][numbers]
        return out

    def ahead(
        self, modalities: Sequence[str], parts: Sequence[np.ndarray]
    ) -> AbstractContextManager[Callable[[], None]]:
        """While the block lasts, what lies in storage of each part, rows (B,), is fetched ahead, in this order; what
        it gives is to be called whenever a part has been read.
        """
        if self.units is None:
            return nullcontext(lambda: None)
        return self.units.ahead(self._units_of(modalities, rows) for rows in parts)

    def _units_of(self, modalities: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """The units in storage that hold rows (B,)."""
        assert self.units is not None
        batch_of = np.searchsorted(self._starts, rows, side="right") - 1
        numbers, every = rows - self._starts[batch_of], []
        for m in modalities:
            columns = self._stored[m][batch_of]
            every.append(self.units.number(columns, numbers)[columns >= 0])
        return np.unique(np.concatenate(every))

    @cached_property
    def _stored(self) -> dict[str, np.ndarray]:
        """Numbers in `units` of each record batch's modalities, -1 for one that is on this disk."""
        return {m: np.array([part.stored.get(m, -1) for part in self._parts]) for m in self.modalities}

    def _read(self, modality: str, rows: np.ndarray, out: np.ndarray) -> None:
        """Read each row whole, from the file."""
        size, batch_of = out[:1].nbytes, np.searchsorted(self._starts, rows, side="right") - 1
        parts = [self._parts[batch] for batch in batch_of]
        number = (rows - self._starts[batch_of]).tolist()
        offsets = [part.offset(modality) + size * n for part, n in zip(parts, number, strict=True)]
        for part, offset, row in zip(parts, offsets, out.reshape(len(rows), -1).view(np.uint8), strict=True):
            _fill(row, part.file, offset)

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(part.rows for part in self._parts)])[:-1]


def alone(file: BinaryIO) -> None:
    """Read what is asked for and no more: beside rows that memory still holds, the system would read ahead."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)


def _fill(row: np.ndarray, file: BinaryIO, offset: int) -> None:
    """Read bytes (n,) from a place in a file."""
    try:
        while len(row):
            count = os.preadv(file.fileno(), [row.data], offset)
            if not count:
                raise OSError(errno.EIO, "the file ends before its last row")
            row, offset = row[count:], offset + count
    except OSError as error:
        error.filename = file.name
        raise
