"""Checks a dataset before any long job: missing and broken files, clips per split and class, room on the disk.

The checks are the manifest's functions, so both give the same answer; only the hashes are left out.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline_src.core import files
from pipeline_src.core.errors import UserError, listed
from pipeline_src.datasets import fetch, manifest
from pipeline_src.datasets.base import Dataset, no_folder
from pipeline_src.datasets.listing import Listing
from pipeline_src.datasets.quarantine import check_fraction
from pipeline_src.tasks.base import tasks

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Data

log = logging.getLogger(__name__)

SHOWN = 10  # files that are shown; the quarantine table of the manifest has all


def check(data: Data) -> None:
    """Print what a dataset of the plan holds. Raises UserError, at the end, if a run would stop on it.

    Every file's container is opened and read as the manifest does, in threads; nothing is decoded.
    """
    dataset, source = data.dataset, data.dataset.folder
    print(f"{data.name}: {dataset.title or dataset.name}, in {source or data.raw}")
    if source is not None and not source.is_dir():
        raise UserError(no_folder(data.name, source))
    problems = []
    wrong = fetch.absent(dataset) if source is not None else []
    if wrong:
        print(f"  lists     {listed(wrong)}: missing, or not as published")
    if data.fetched and not (data.raw / files.FILES).exists():
        raise UserError(
            f"{data.name}: expected its files in {data.raw}, but they are not made yet; "
            f"run `python -m pipeline_src fetch {data.name}`, or snakemake"
        )
    touched = files.changes(data.raw, data.seen) if data.fetched else {}
    if touched:
        print(f"  changed   {len(touched)} files are not as they were fetched: {listed(touched)}")

    clips = manifest.listed_clips(data)
    splits = Counter(clips.splits)
    print(f"  listed    {len(clips)} clips: {', '.join(f'{n} {split}' for split, n in splits.items())}")
    log.info(f"check {data.name}  opening the files of {len(clips)} clips")
    table, bad = manifest.look(data, clips, min(32, 4 * (os.cpu_count() or 1)), hashed=False)
    print(f"  readable  {len(table)} clips")
    for reason, group in bad.groupby("reason", sort=False):
        print(f"  {reason}: {len(group)} clips")
        for row in group.head(SHOWN).itertuples():
            print(f"            {row.file} ({row.modality} of {row.id})")
        if len(group) > SHOWN:
            print(f"            and {len(group) - SHOWN} more")
    unlisted = _unlisted(data.raw, clips)
    if unlisted:
        print(f"  unlisted  {len(unlisted)} files that no list names, not used: {listed(unlisted)}")

    try:
        check_fraction(data, bad, len(clips))
        table = manifest.with_val(table, dataset.params, tasks[dataset.task])
    except UserError as error:
        problems.append(str(error))
    if len(table):
        print(_counts(table, dataset))
        problems += _empty(data.name, table, dataset)
    problems += _space(data, len(table))
    if problems:
        raise UserError("\n".join(problems))
    print(f"  ready     {len(table)} clips, {len(bad)} quarantined")


def _unlisted(folder: Path, clips: Listing) -> list[str]:
    """Files with the suffixes of clips' files that no clip names."""
    named = set().union(*clips.files.values())
    suffixes = {Path(name).suffix.lower() for name in named}
    return [
        name
        for name, _ in files.below(folder, follow=True)
        if name not in named and Path(name).suffix.lower() in suffixes
    ]


def _by_class(table: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """Columns label and split, a row for each class that the label of a clip names."""
    named = tasks[dataset.task].named
    labels = [list(dict.fromkeys(named(tuple(x) if isinstance(x, list) else x))) for x in table.label]
    return pd.DataFrame({"label": labels, "split": table.split}).explode("label").dropna()


def _counts(table: pd.DataFrame, dataset: Dataset) -> str:
    """Clips per split, one line per class; with many classes, only the fewest and the most."""
    counted = _by_class(table, dataset)
    if not dataset.classes:
        return "\n".join(f"  {split:6} {n}" for split, n in table.split.value_counts().items())
    counts = pd.crosstab(counted.label, counted.split).reindex(index=list(dataset.classes), fill_value=0)
    counts = counts[[split for split in manifest.SPLITS if split in counts]]
    total = counts.sum().rename("all").to_frame().T
    if len(counts) > 40:
        lowest, highest = counts.min().rename("fewest"), counts.max().rename("most")
        counts = pd.DataFrame([lowest, highest])
    lines = pd.concat([total, counts]).astype(int).to_string().splitlines()
    return "\n".join(f"  {line}" for line in lines)


def _empty(name: str, table: pd.DataFrame, dataset: Dataset) -> list[str]:
    """An error if classes have no readable training clip."""
    counted = _by_class(table, dataset)
    there = set(counted.label[counted.split == "train"])
    without = [c for c in dataset.classes if c not in there]
    return [f"{name}: expected training clips of every class, but got none of {listed(without)}"] if without else []


def _space(data: Data, clips: int) -> list[str]:
    """An error if the feature cache does not fit on the disk; prints its size."""
    row = sum(int(np.prod(x.shape)) * np.dtype(x.dtype).itemsize for x in data.extractors.values())
    place = next(path for path in (data.cache.absolute(), *data.cache.absolute().parents) if path.exists())
    free, done = shutil.disk_usage(place).free, data.cache_file.exists()
    print(f"  cache     {clips * row / 1e9:.2f} GB{' (made)' if done else ''}, {free / 1e9:.0f} GB free in {place}")
    if not done and clips * row > free:
        return [
            f"{data.name}: expected {clips * row:,} free bytes in {place} for the cache, but got {free:,}; make room"
        ]
    return []
