"""Arrays in a column of a Parquet table. A cell has a name like that of a file: `<table>.parquet/<column>/<row>`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline_src.media.base import MediaError

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = 4  # that a process keeps in memory


class Cell(NamedTuple):
    table: Path
    column: str
    row: int  # from 0

    @property
    def name(self) -> Path:
        return self.table / self.column / str(self.row)


def at(file: Path) -> Cell | None:
    """The cell that a name stands for; None if it is the name of a file."""
    table = file.parent.parent
    if table.suffix != ".parquet" or not file.name.isdecimal() or not table.is_file():
        return None
    return Cell(table, file.parent.name, int(file.name))


def is_array(type_: pa.DataType) -> bool:
    """Whether a column of this type holds arrays."""
    import pyarrow as pa

    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return isinstance(type_, pa.FixedShapeTensorType) or any(check(type_) for check in lists)


def read(cell: Cell) -> np.ndarray:
    """A cell's array (steps, features); a list of numbers is one step. Raises MediaError if it holds none."""
    state = cell.table.stat()
    column = _column(cell.table, cell.column, state.st_size, state.st_mtime_ns)
    if cell.row >= len(column) or not column[cell.row].is_valid:
        raise MediaError("missing value")
    try:
        values = np.asarray(column[cell.row].as_py())
        values = values.astype(np.float64) if values.dtype == object else values  # with nulls, which are not finite
    except (ValueError, TypeError) as error:  # steps of several lengths
        raise MediaError(f"no array: {error}") from error
    return values[None] if values.ndim == 1 else values


@lru_cache(COLUMNS)
def _column(table: Path, column: str, size: int, time: int) -> pa.ChunkedArray:
    """A column of a table of that size and time, whole."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        found = pyarrow.parquet.read_table(table, columns=[column]).column(column)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise MediaError(f"cannot be opened: {error}") from error
    if isinstance(found.type, pa.FixedShapeTensorType):  # rows as nested lists
        nested = [pa.array(part.to_numpy_ndarray().tolist()) for part in found.chunks]
        return pa.chunked_array(nested)
    return found
