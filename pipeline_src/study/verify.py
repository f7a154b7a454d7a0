"""Reads every file of a study and of its caches whole, whatever this machine remembers, and names the damaged ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pipeline_src.core import checksums, files
from pipeline_src.core.errors import UserError
from pipeline_src.core.progress import clock
from pipeline_src.features import QUARANTINE_FILE, fix, read_info, storage
from pipeline_src.study.outputs import Data
from pipeline_src.study.plan import Plan
from pipeline_src.study.runs import RunFiles

AGAIN = "run snakemake again"
# A file, what raises a UserError if it is damaged (and may say how many bytes it read), whether it is due.
Check = tuple[Path, Callable[[], object], bool]


def verify(plan: Plan) -> str:
    """What was read and how long it took. Raises UserError with a line for each damaged file."""
    started, damaged, count, size, missing = time.monotonic(), [], 0, 0, 0
    for file, check, due in checks(plan):
        if not due and not file.exists():
            missing += 1
            continue
        try:
            read = check()
            count, size = count + 1, size + (read if isinstance(read, int) else file.stat().st_size)
        except UserError as error:
            damaged.append(str(error))
    took = f"{count + len(damaged)} files, {size / 1e6:,.1f} MB, in {clock(time.monotonic() - started)}"
    took += f"; {missing} more are not made yet" if missing else ""
    if damaged:
        raise UserError("\n".join([*damaged, f"{plan.file}: {len(damaged)} damaged files; read {took}"]))
    return f"{plan.file}: no damage in {took}"


def checks(plan: Plan) -> Iterator[Check]:
    """Every file of the study's outputs."""
    for data in plan.all("fetch"):
        yield from _raw(data)
    for data in plan.data:
        yield from _data(data)
    for run in plan.runs:
        yield from RunFiles(run).checks()
    yield from results(plan)


def _sealed(file: Path, fix: str, due: bool) -> Check:
    return file, lambda: checksums.verify(file, fix, fresh=True), due


def _named(file: Path, digest: str, fix: str) -> Check:
    return file, lambda: checksums.match(file, digest, fix, fresh=True), True


def _raw(data: Data) -> Iterator[Check]:
    if data.raw_index.exists():
        again = f"delete {data.raw} and {AGAIN}"
        yield _sealed(data.raw_index, again, due=True)
        for name, digest in _held(data.raw_index).items():
            yield _named(data.raw / name, digest, again)


def _data(data: Data) -> Iterator[Check]:
    made = (data.manifest / "manifest.parquet").exists()
    for name in ("manifest.parquet", "quarantine.parquet"):
        yield _sealed(data.manifest / name, f"delete {data.manifest} and {AGAIN}", made)
    made = data.cache_file.exists()
    for stem in data.shards:
        for file in (stem.with_suffix(".arrow"), stem.with_suffix(".quarantine.parquet")):
            yield _sealed(file, fix(stem.with_suffix(".arrow")), made)
        if (about := storage.listed(stem.with_suffix(".arrow"))) is not None:
            yield stem.with_suffix(".arrow"), partial(storage.verify, about), True
    yield data.cache_file, lambda: read_info(data.cache, fresh=True), False
    yield _sealed(data.cache / QUARANTINE_FILE, fix(data.cache / QUARANTINE_FILE), made)


def results(plan: Plan) -> Iterator[Check]:
    """The index of a study that is done, and the files whose hashes it names."""
    if not plan.index.exists():
        return
    again = f"delete {plan.index} and {AGAIN}"
    yield _sealed(plan.index, again, due=True)
    index = _held(plan.index)
    for name, digest in index.get("files", {}).items():
        yield _named(plan.results / name, digest, again)
    for run, entry in zip(plan.runs, index.get("runs", []), strict=False):
        for file in (run.record, run.metrics):
            yield _named(file, entry["files"][file.name], again)


def _held(file: Path) -> dict[str, Any]:
    """What a sealed file holds; nothing where it is damaged, which its own check says."""
    try:
        return files.read_sealed(file, "")
    except UserError:
        return {}
