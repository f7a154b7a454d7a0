"""Reads the feature cache without copying it: shards are mapped into memory."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline_src.core import checksums, files
from pipeline_src.features import fix, read_info


def tensors(shard: Path) -> Iterator[dict[str, Any]]:
    """Record batches of a shard: pandas series for the plain columns, views (N, *shape) on the mapped file for
    tensors. Raises UserError if it is damaged.
    """
    checksums.verify(files.awaited(shard), fix(shard))
    reader = pa.ipc.open_file(pa.memory_map(str(shard)))
    for i in range(reader.num_record_batches):
        batch = reader.get_batch(i)
        yield {
            name: column.to_numpy_ndarray() if isinstance(column, pa.FixedShapeTensorArray) else column.to_pandas()
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        }


class Cache:
    """A finished cache: its index, and the rows of any modality by number.

    `clips` has id, label (index into `classes`), split and group of every row, in the order of the manifest.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.info = read_info(folder)
        self.classes: list[str] = self.info["classes"]
        self.modalities: dict[str, dict] = self.info["modalities"]

    @cached_property
    def _batches(self) -> list[dict[str, Any]]:
        return [batch for shard in self.info["shards"] for batch in tensors(self.folder / shard)]

    @cached_property
    def clips(self) -> pd.DataFrame:
        plain = ["id", "label", "split", "group"]
        return pd.concat([pd.DataFrame({c: batch[c] for c in plain}) for batch in self._batches], ignore_index=True)

    def rows(self, split: str) -> np.ndarray:
        """Numbers of the rows of a split, ascending."""
        return np.flatnonzero(self.clips.split.to_numpy() == split)

    def row_bytes(self, modalities: list[str]) -> int:
        """Bytes of one clip in these modalities."""
        parts = [self.modalities[m] for m in modalities]
        return sum(int(np.prod(part["shape"])) * np.dtype(part["dtype"]).itemsize for part in parts)

    def gather(self, modality: str, rows: np.ndarray) -> np.ndarray:
        """Copies of the given rows, in their order: (N, *shape)."""
        info = self.modalities[modality]
        out = np.empty((len(rows), *info["shape"]), dtype=info["dtype"])
        batch_of = np.searchsorted(self._starts, rows, side="right") - 1
        for batch in np.unique(batch_of):
            here = np.flatnonzero(batch_of == batch)
            out[here] = self._batches[batch][modality][rows[here] - self._starts[batch]]
        return out

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(len(batch["id"]) for batch in self._batches)])[:-1]
