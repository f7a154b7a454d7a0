"""Reads the feature cache without copying it: shards are mapped into memory.

Large rows are not taken from the map: a page that is not in memory is fetched when it is touched, with what happens to
lie around it, one after the other. They are read from the file, whole rows and nothing else, by as many threads as ask.
"""

import errno
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline_src.core import checksums, files
from pipeline_src.features import fix, read_info


def tensors(shard: Path) -> Iterator[dict[str, Any]]:
    """Record batches of a shard: pandas series for the plain columns, views (N, *shape) on the mapped file for
    tensors. Raises UserError if it is damaged.
    """
    yield from _mapped(shard)[0]


def _mapped(shard: Path) -> tuple[Iterator[dict[str, Any]], int]:
    """Its record batches, as `tensors` describes them, and the address in memory at which the file begins."""
    checksums.verify(files.awaited(shard), fix(shard))
    file = pa.memory_map(str(shard))
    start, reader = file.read_buffer(1).address, pa.ipc.open_file(file)
    return (_columns(reader.get_batch(i)) for i in range(reader.num_record_batches)), start


def _columns(batch: pa.RecordBatch) -> dict[str, Any]:
    return {
        name: column.to_numpy_ndarray() if isinstance(column, pa.FixedShapeTensorArray) else column.to_pandas()
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }


LARGE = 32 << 10  # bytes of a row from which on it is read by itself


class Part(NamedTuple):
    """A record batch, the open file that holds it, and the address in memory at which the file is mapped."""

    columns: dict[str, Any]
    file: BinaryIO
    start: int

    def offset(self, modality: str) -> int:
        """Where in the file the first row of a modality lies."""
        return self.columns[modality].ctypes.data - self.start


class Cache:
    """A finished cache: its index, and the rows of any modality by number.

    `clips` has id, label (as the task stores it: an index into `classes`, a number or a list), split and group of every
    row, in the order of the manifest.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.info = read_info(folder)
        self.classes: list[str] = self.info["classes"]
        self.modalities: dict[str, dict] = self.info["modalities"]

    @cached_property
    def _parts(self) -> list[Part]:
        parts = []
        for shard in self.info["shards"]:
            batches, start = _mapped(self.folder / shard)
            file = (self.folder / shard).open("rb", buffering=0)
            alone(file)
            parts += [Part(batch, file, start) for batch in batches]
        return parts

    @cached_property
    def clips(self) -> pd.DataFrame:
        plain = ["id", "label", "split", "group"]
        return pd.concat([pd.DataFrame({c: part.columns[c] for c in plain}) for part in self._parts], ignore_index=True)

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
        if len(rows) and out[:1].nbytes >= LARGE:
            self._read(modality, rows, out)
            return out
        batch_of = np.searchsorted(self._starts, rows, side="right") - 1
        for batch in np.unique(batch_of):
            here = np.flatnonzero(batch_of == batch)
            out[here] = self._parts[batch].columns[modality][rows[here] - self._starts[batch]]
        return out

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
        return np.cumsum([0, *(len(part.columns["id"]) for part in self._parts)])[:-1]


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
