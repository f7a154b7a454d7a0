"""Builds the feature cache: decodes every clip once, into shards of an Arrow file that training maps into memory.

A shard has a column per modality with the canonical type `arrow.fixed_shape_tensor`, plus id, label, split and group.
It is written in record batches of about 16 MB, so memory does not grow with its size. Clips that cannot be decoded
go to the quarantine table of the shard. A shard that is to lie in storage leaves a listing in its place, see `storage`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline_src.core import checksums, files
from pipeline_src.datasets import quarantine
from pipeline_src.features import storage
from pipeline_src.features.read import tensors
from pipeline_src.media.base import Extractor, MediaError
from pipeline_src.tasks.base import Label, Task, tasks

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Data

log = logging.getLogger(__name__)

BATCH_BYTES = 16 << 20


def extract(data: Data, index: int) -> None:
    """Write shard `index` of the dataset: an equal slice of the manifest.

    `data` is the plan's entry of the dataset. Writes the shard and its quarantine table.
    """
    stem, count = data.shards[index], len(data.shards)
    rows = files.read_part(data.manifest / "manifest.parquet", _fix(data.manifest), index, count)
    task, number = tasks[data.dataset.task], {label: i for i, label in enumerate(data.dataset.classes)}
    plain = [("id", pa.string()), ("label", _label_type(task)), ("split", pa.string()), ("group", pa.string())]
    columns = {m: pa.fixed_shape_tensor(pa.from_numpy_dtype(x.dtype), x.shape) for m, x in data.extractors.items()}
    schema = pa.schema(
        [*plain, *columns.items()],
        metadata={
            "recipe": json.dumps({m: x.params.model_dump() for m, x in data.extractors.items()}),
            "fingerprint": data.cache_fp,
            files.CHECKSUM: checksums.SEAL,
        },
    )
    row_bytes = sum(x.row_bytes for x in data.extractors.values())
    size = max(1, BATCH_BYTES // row_bytes)
    job, done = f"extract {data.name} shard {index + 1} of {count}", 0
    bad: list[dict[str, Any]] = []
    if data.storage:  # one that cannot be reached is told before hours of decoding
        storage.Storage(data.storage).size(f"{data.objects}/{stem.name}")
    # The quarantine table comes first: so a shard that exists has its table.
    with files.whole(stem.with_suffix(".arrow")) as temporary:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for start in range(0, len(rows), size):
                part = rows.iloc[start : start + size]
                arrays, kept = _decode(part, data.raw, data.extractors, bad)
                if kept:
                    part = part[part.id.isin(kept)]
                    stored = [task.stored(as_label(label), number) for label in part.label]
                    values = [part.id, stored, part.split, part.group]
                    batch = [pa.array(v, type=t) for v, (_, t) in zip(values, plain, strict=True)]
                    batch += [_tensors(arrays[m], columns[m]) for m in columns]
                    writer.write_batch(pa.record_batch(batch, schema=schema))
                done += len(part)
                log.info(f"{job}  {start + min(size, len(rows) - start)} of {len(rows)} clips, {len(bad)} quarantined")
        checksums.seal(temporary)
        files.write_table(stem.with_suffix(".quarantine.parquet"), quarantine.table(bad, "extract"))
        if data.storage:
            storage.put(temporary, data.storage, data.objects, stem.name)


def _label_type(task: type[Task]) -> pa.DataType:
    """The column's type of a task's labels."""
    type_ = pa.int32() if task.counted else pa.from_numpy_dtype(np.dtype(task.target.dtype))
    return type_ if task.target.shape == () else pa.list_(type_)


def as_label(value: Any) -> Label:
    """A label as a table gives it back."""
    return value if isinstance(value, str | float) else tuple(value)


def _table(file: Path, remove: Path) -> pd.DataFrame:
    """A table of an earlier job; `remove` is what to delete if it is damaged, so that this job runs again."""
    return files.read_table(file, _fix(remove))


def _fix(remove: Path) -> str:
    return f"delete {remove} and run snakemake again"


def _tensors(arrays: list[np.ndarray], type_: pa.DataType) -> pa.ExtensionArray:
    values = pa.array(np.ascontiguousarray(np.stack(arrays)).reshape(-1))
    lists = pa.FixedSizeListArray.from_arrays(values, type_.storage_type.list_size)
    return pa.ExtensionArray.from_storage(type_, lists)


def _decode(
    rows: pd.DataFrame, folder: Path, extractors: dict[str, Extractor], bad: list
) -> tuple[dict[str, list[np.ndarray]], set[str]]:
    """Arrays of every clip that decodes in all its modalities, and their ids; the others are appended to `bad`."""
    arrays: dict[str, list[np.ndarray]] = {m: [] for m in extractors}
    kept: set[str] = set()
    for row in rows.to_dict("records"):
        clip = {}
        for m, extractor in extractors.items():
            try:
                clip[m] = finite(_extracted(extractor, folder / row[m], row))
            except MediaError as error:
                bad.append((row["id"], m, row[m], str(error)))
                break
        else:
            kept.add(row["id"])
            for m, array in clip.items():
                arrays[m].append(array)
    return arrays, kept


def _extracted(extractor: Extractor, file: Path, row: dict[str, Any]) -> np.ndarray:
    """A clip's array: of the file, or of the part of it that the manifest names."""
    return extractor.extract_part(file, row["start"], row["end"]) if "start" in row else extractor.extract(file)


def finite(values: np.ndarray) -> np.ndarray:
    """`values`. Raises MediaError if some are infinite or no numbers: no statistics, loss or metric survives them."""
    if values.dtype.kind == "f":
        bad = values.size - int(np.isfinite(values).sum())
        if bad:
            raise MediaError(f"{bad} of {values.size} values are not finite")
    return values


def pack(data: Data) -> None:
    """Close the cache: check the quarantined fraction, gather the statistics of the training split, write cache.json.

    Statistics are the mean and deviation per channel (frames), per feature over steps that are not padding (sequence)
    or of all values (spectrograms), over `train` alone; tokens have none.
    """
    manifest = _table(data.manifest / "manifest.parquet", data.manifest)
    bad = pd.concat(
        [_table(data.manifest / "quarantine.parquet", data.manifest)]
        + [_table(stem.with_suffix(".quarantine.parquet"), stem.with_suffix(".arrow")) for stem in data.shards],
        ignore_index=True,
    )
    files.write_table(data.cache / "quarantine.parquet", bad)
    quarantine.check_fraction(data, bad, len(manifest) + int((bad.stage == "manifest").sum()))

    # A hash per column, so that it does not depend on how the rows are cut into shards and batches.
    digests = {name: hashlib.sha256() for name in ("id", "label", "split", "group", *data.extractors)}
    moments = {m: _Moments(x.layout) for m, x in data.extractors.items()}
    splits = pd.Series(dtype=int)
    for stem in data.shards:
        for batch in tensors(stem.with_suffix(".arrow")):
            split = batch["split"]
            splits = splits.add(split.value_counts(), fill_value=0)
            for name, digest in digests.items():
                values = batch[name]
                tensor = name in data.extractors
                digest.update(values.data if tensor else "".join(f"{_plain(value)}\n" for value in values).encode())
            for m in data.extractors:
                moments[m].add(batch[m][(split == "train").to_numpy()])
    files.write_sealed(
        data.cache_file,
        {
            "dataset": data.name,
            "recipe": data.recipe,
            "classes": list(data.dataset.classes),
            "splits": {split: int(n) for split, n in splits.items()},
            "quarantined": len(bad),
            "modalities": {
                m: {"layout": x.layout, "shape": list(x.shape), "dtype": np.dtype(x.dtype).name, **moments[m].result()}
                for m, x in data.extractors.items()
            },
            "shards": [f"{stem.name}.arrow" for stem in data.shards],
            "sha256": hashlib.sha256("".join(digest.hexdigest() for digest in digests.values()).encode()).hexdigest(),
        },
    )
    log.info(f"cache {data.name}  {', '.join(f'{n:.0f} {s}' for s, n in splits.items())}, {len(bad)} quarantined")


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


class _Moments:
    """Running mean and standard deviation in float64, over `axes` of the layout."""

    def __init__(self, layout: str):
        self.layout = layout
        self.axes = {"frames": (0, 1, 3, 4), "spectrogram": (0, 1, 2), "sequence": (0,)}.get(layout)
        self.count, self.sum, self.square = 0, 0.0, 0.0

    def add(self, values: np.ndarray) -> None:
        if self.layout == "sequence":
            values = values.reshape(-1, values.shape[-1])
            values = values[values.any(axis=1)]
        if len(values) and self.axes:
            values = values.astype(np.float64)
            self.count += values.size // max(
                1, np.prod([values.shape[a] for a in range(values.ndim) if a not in self.axes])
            )
            self.sum = self.sum + values.sum(self.axes)
            self.square = self.square + (values**2).sum(self.axes)

    def result(self) -> dict[str, list[float]]:
        if not self.count:
            return {"mean": [0.0], "std": [1.0]}
        mean = np.atleast_1d(self.sum / self.count)
        std = np.sqrt(np.maximum(np.atleast_1d(self.square / self.count) - mean**2, 0))
        # A constant modality keeps its scale: dividing by zero, or by the rounding of the sums, makes no sense.
        return {"mean": mean.tolist(), "std": np.where(std > 1e-8 + 1e-6 * np.abs(mean), std, 1.0).tolist()}
