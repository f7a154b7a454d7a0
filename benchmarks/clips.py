"""A cache of made-up clips on disk, as the program's own writer lays it out, for benchmarks of reading."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline_src.core import checksums, files
from pipeline_src.features import CACHE_FILE
from pipeline_src.features.read import Cache

Modality = tuple[str, tuple[int, ...], str]  # layout, shape, type
BATCH_BYTES = 16 << 20  # of a record batch, as in features/build.py


def write(
    folder: Path,
    splits: dict[str, int],
    modalities: dict[str, Modality],
    classes: int = 6,
    made: Callable[[str, np.ndarray], np.ndarray] | None = None,
) -> Cache:
    """Clips of classes in turn, of random numbers, or with the values that `made` gives for a modality and rows."""
    rng, count = np.random.default_rng(0), sum(splits.values())
    split = np.repeat(list(splits), list(splits.values()))
    plain = [("id", pa.string()), ("label", pa.int32()), ("split", pa.string()), ("group", pa.string())]
    columns = {m: pa.fixed_shape_tensor(pa.from_numpy_dtype(np.dtype(t)), s) for m, (_, s, t) in modalities.items()}
    schema = pa.schema([*plain, *columns.items()], metadata={files.CHECKSUM: checksums.SEAL})
    size = sum(int(np.prod(s)) * np.dtype(t).itemsize for _, s, t in modalities.values())
    step = max(1, BATCH_BYTES // size)
    folder.mkdir(parents=True)
    shard = folder / "shard-0.arrow"
    with pa.OSFile(str(shard), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, count, step):
            rows = np.arange(start, min(start + step, count))
            batch = [
                pa.array([f"clip{i}" for i in rows]),
                pa.array(rows % classes, pa.int32()),
                pa.array(split[rows]),
                pa.array([f"group{i}" for i in rows]),
            ]
            for m, (_, shape, dtype) in modalities.items():
                values = _values(rng, (len(rows), *shape), np.dtype(dtype)) if made is None else made(m, rows)
                batch.append(_column(values, columns[m]))
            writer.write_batch(pa.record_batch(batch, schema=schema))
    checksums.seal(shard)
    about = {
        m: {"layout": layout, "shape": list(shape), "dtype": dtype, "mean": [127.0], "std": [74.0]}
        if dtype == "uint8"
        else {"layout": layout, "shape": list(shape), "dtype": dtype, "mean": [0.0], "std": [1.0]}
        for m, (layout, shape, dtype) in modalities.items()
    }
    index = {"classes": [f"class{i}" for i in range(classes)], "modalities": about, "shards": [shard.name]}
    files.write_sealed(folder / CACHE_FILE, {**index, "splits": splits, "sha256": "0" * 64})
    return Cache(folder)


def _values(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if dtype.kind in "iu":
        return rng.integers(1, 127 if dtype.itemsize == 1 else 50, shape, dtype)
    return rng.standard_normal(shape, np.float32).astype(dtype)


def _column(values: np.ndarray, kind: pa.DataType) -> pa.ExtensionArray:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), kind.storage_type.list_size)
    return pa.ExtensionArray.from_storage(kind, lists)


def forget(folder: Path) -> None:
    """Drop the pages of a cache's files from memory; of a file that is mapped nothing is dropped."""
    for file in folder.glob("*.arrow"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def from_disk() -> float:
    """Bytes that the disk has given this process; NaN where the system does not say."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return float("nan")
    return float(next((line.split()[1] for line in lines if line.startswith("read_bytes")), "nan"))
