"""Reads predictions.parquet as arrays, column by column and split by split.

Millions of clips have 100,000 samples in test and in val, with logits and labels of hundreds of classes: no sample and
no number of one becomes an object of Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def names(file: Path) -> list[str]:
    """The columns of a file."""
    import pyarrow.parquet as pq

    return pq.read_schema(file).names


def read(file: Path, columns: Sequence[str], split: str) -> dict[str, Any]:
    """Columns of the N samples of a split: strings as a Series (N,), numbers as an array (N,), and lists, which have
    the same length in all samples, as one (N, length).
    """
    import pyarrow.parquet as pq

    rows = pq.read_table(file, columns=list(columns), filters=[("split", "==", split)])
    return {name: _values(rows[name]) for name in columns}


def _values(column: pa.ChunkedArray) -> Any:
    import pyarrow.types as types

    if types.is_string(column.type) or types.is_large_string(column.type):
        return column.to_pandas()
    values, count = column.combine_chunks(), len(column)
    if not types.is_nested(column.type):
        return values.to_numpy(zero_copy_only=False)
    flat = values.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(count, flat.size // max(1, count))
