"""The manifest: every clip that a dataset lists is in the manifest or, with the reason, in the quarantine table."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline_src.core import files
from pipeline_src.core.errors import UserError, listed
from pipeline_src.core.registry import closest
from pipeline_src.datasets import quarantine
from pipeline_src.datasets.base import Clip, Dataset, DatasetParams, no_folder
from pipeline_src.datasets.folds import folds
from pipeline_src.datasets.listing import Listing, in_shards
from pipeline_src.features import unseen_in_val
from pipeline_src.media import cells
from pipeline_src.media.base import Extractor, MediaError
from pipeline_src.tasks.base import Label, Task, tasks

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Data

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
NEEDED = ("train", "test")  # val is cut from train where none is published
LOG_EVERY = 5000  # clips
NAME = re.compile(r"(?!\.)[\w.+=@ -]+")
POINTER = b"version https://git-lfs.github.com/spec/"


def make(data: Data, processes: int = 1) -> None:
    """Write manifest.parquet and quarantine.parquet of a dataset of the plan; up to so many processes open the files.

    The manifest has id, one column per modality (path relative to the raw folder), label, split (train, val, test),
    group, duration (seconds, of the longest modality) and checksum (of the files, in the order of the modalities); if
    clips are parts of files, also start and end (seconds).

    Raises UserError for repeated ids, paths outside of the folder, unknown labels, and a quarantined fraction above
    `max_quarantine`.
    """
    clips = listed_clips(data)
    log.info(f"manifest {data.name}  reading {len(clips)} clips")
    table, bad = look(data, clips, processes, hashed=True)
    files.write_table(data.manifest / "quarantine.parquet", bad)
    quarantine.check_fraction(data, bad, len(clips))
    if "split" in data.vary and (table.split == "val").any():
        raise UserError(
            f"study.vary: expected a dataset whose val is cut from train, but {data.name} has samples of val in its "
            "lists; remove 'split'"
        )
    manifest = with_val(table, data.dataset.params, tasks[data.dataset.task])
    files.write_table(data.manifest / "manifest.parquet", manifest)
    named = tasks[data.dataset.task].counted
    if named and (missing := unseen_in_val(manifest.label, manifest.split)):
        log.warning(f"manifest {data.name}  val has no sample of {listed(missing)}, which train has")
    counts = manifest.split.value_counts()
    log.info(f"manifest {data.name}  {', '.join(f'{n} {s}' for s, n in counts.items())}, {len(bad)} quarantined")


def listed_clips(data: Data) -> Listing:
    """The clips of the dataset's lists, checked. Raises UserError if the folder is missing or a list is wrong."""
    if not data.raw.is_dir():
        raise UserError(no_folder(data.name, data.raw))
    return checked(data.dataset.clips(data.raw), data.dataset, data.name)


def look(data: Data, clips: Listing, processes: int, hashed: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The manifest before val is cut, and the quarantine table. Every file is opened; it is read whole only if
    `hashed`, and not if the plan has just hashed it.
    """
    hashes = files.remembered(data.seen) if hashed else {}
    tables: dict[str, str] = {}  # hashes of tables that hold arrays

    def checksum(name: str) -> str:
        cell = cells.at(data.raw / name)
        if cell is None:
            return files.digest(data.raw / name, hashes.get(name)) if hashed else ""
        table = cell.table.relative_to(data.raw).as_posix()
        if hashed and table not in tables:
            tables[table] = files.digest(cell.table, hashes.get(table))
        return tables[table] if hashed else ""

    def opened(shard: range) -> list[tuple]:
        return [_look(clips[i], data.raw, data.extractors, checksum) for i in shard]

    kept, durations, checksums, bad = [], [], [], []
    for i, (duration, right, *wrong) in enumerate(chain.from_iterable(in_shards(opened, len(clips), processes))):
        if wrong:
            bad.append((clips.ids[i], *wrong))
        else:
            kept.append(i)
            durations.append(duration)
            checksums.append(right)
        if (i + 1) % LOG_EVERY == 0:
            log.info(f"manifest {data.name}  {i + 1} of {len(clips)} clips")
    return _table(clips, kept, durations, checksums), quarantine.table(bad, "manifest")


def _table(clips: Listing, kept: list[int], durations: list[float], checksums: list[str]) -> pd.DataFrame:
    """The manifest of those clips that are kept."""

    def those(values: list) -> list:
        return values if len(kept) == len(values) else [values[i] for i in kept]

    columns = {"id": those(clips.ids), **{m: those(paths) for m, paths in clips.files.items()}}
    columns["label"] = [list(label) if isinstance(label, tuple) else label for label in those(clips.labels)]
    columns |= {"split": those(clips.splits), "group": those(clips.groups)}
    columns |= {"duration": durations, "checksum": checksums}
    spans = those(clips.spans)
    if any(spans):
        columns |= {name: [span and span[k] for span in spans] for k, name in enumerate(("start", "end"))}
    return pd.DataFrame(columns)


def checked(clips: Iterable[Clip], dataset: Dataset, name: str) -> Listing:
    """The clips as a list. Raises UserError for mistakes in it, which are not a matter for the quarantine."""
    found, named, classes = Listing(dataset.modalities), tasks[dataset.task].named, set(dataset.classes)
    unnamed, leaving, parts, splits, missing = ([] for _ in range(5))
    twice: dict[str, None] = {}
    unknown: dict[str, str] = {}  # label -> the first clip that has it
    ids: set[str] = set()
    count = 0
    for clip in clips:
        count += 1
        if not NAME.fullmatch(clip.id):
            unnamed.append(repr(clip.id))
        for file in clip.files.values():
            if file.is_absolute() or ".." in file.parts:
                leaving.append(f"{clip.id} ({file})")
        if clip.id in ids:
            twice[clip.id] = None
        ids.add(clip.id)
        for label in named(clip.label):
            if label not in classes:
                unknown.setdefault(label, clip.id)
        if clip.span is not None and not 0 <= clip.span[0] < clip.span[1]:
            parts.append(f"{clip.id} {clip.span}")
        if clip.split not in SPLITS:
            splits.append(f"{clip.id} ({clip.split})")
        if clip.files.keys() == found.files.keys():
            found.add(clip)
        else:
            missing.append(clip.id)
    if not count:
        raise UserError(f"{name}: expected clips, but got none in the dataset's lists")

    def complain(bad: Collection[str], what: str) -> None:
        if bad:
            raise UserError(f"{name}: {what}: {listed([*bad])} ({len(bad)} of {count} clips)")

    complain(unnamed, "ids that cannot name a file")
    complain(leaving[:1], "paths that leave the dataset's folder")
    complain(twice, "ids that occur twice in the lists")
    if unknown:
        labels = sorted(unknown)
        hint = closest(labels[0], dataset.classes)
        first = unknown[labels[0]]
        raise UserError(f"{name}: expected labels that are classes, but got {listed(labels)} (of {first}){hint}")
    complain(parts, "parts of files that do not end after they start")
    complain(splits, f"splits other than {', '.join(SPLITS)}")
    complain(missing, f"clips without a file for each of {', '.join(dataset.modalities)}")
    for split in NEEDED:
        if split not in found.splits:
            raise UserError(f"{name}: expected clips of both splits in the dataset's lists, but got none of {split}")
    return found


def _look(clip: Clip, folder: Path, extractors: dict[str, Extractor], checksum: Callable[[str], str]) -> tuple:
    """(duration, checksums) of a clip, or (0, "", modality, file, reason) of one for the quarantine."""
    durations = []
    for m, extractor in extractors.items():
        name = os.fsencode(clip.files[m].as_posix())
        try:
            name.decode()
        except UnicodeDecodeError:
            return 0.0, "", m, name.decode(errors="backslashreplace"), "the file's name is not UTF-8: rename it"
        try:
            durations.append(extractor.probe(folder / clip.files[m]))
        except MediaError as error:
            return 0.0, "", m, clip.files[m].as_posix(), _pointer(folder / clip.files[m]) or str(error)
    paths = dict.fromkeys(clip.files[m].as_posix() for m in extractors)
    return max(durations), " ".join([checksum(path) for path in paths])


def _pointer(file: Path) -> str | None:
    """The reason if the file is the pointer of a repository that was cloned without Git LFS."""
    with suppress(OSError):
        if file.is_file() and file.stat().st_size < 1024 and file.read_bytes().startswith(POINTER):
            return "Git LFS pointer in place of the file: run `git lfs pull` in the repository"
    return None


def with_val(manifest: pd.DataFrame, params: DatasetParams, task: type[Task]) -> pd.DataFrame:
    """The rows with `val` cut from `train`, or with the published one. Raises UserError if it cannot be cut."""
    if not (manifest.split == "val").any():
        strata = manifest.assign(label=[task.stratum(_label(label)) for label in manifest.label])
        manifest["split"] = cut_val(strata, params.val_fraction, params.split_seed)
    return manifest


def _label(value: Any) -> Label:
    return tuple(value) if isinstance(value, list) else value


def cut_val(manifest: pd.DataFrame, fraction: float, seed: int) -> pd.Series:
    """The splits, with `val` cut from `train`: stratified by label, and no group on both sides.

    The fraction is met as nearly as whole folds of groups allow. Raises UserError if there are too few groups.
    """
    train = manifest[manifest.split == "train"]
    label, group = _Numbered(train.label), _Numbered(train.group)
    count = min(int(1 / fraction), int(1 / fraction) + 1, key=lambda n: abs(1 / n - fraction))
    for what, most in (("groups", len(group.names)), ("of a label", max(label.counts(), default=0))):
        if not most >= count:
            raise UserError(
                f"val_fraction: {fraction} cuts the {len(train)} training clips into {count} folds: "
                f"expected at least {count} {what}, but got {most}; raise val_fraction or add clips"
            )
    fold = folds(label.numbers, group.numbers, count, seed)

    def cost(k: int) -> tuple[int, float]:
        """Classes without a sample in val or in the rest, then the distance from the fraction that was asked for."""
        lacks = int((label.counts(fold == k) == 0).sum() + (label.counts(fold != k) == 0).sum())
        return lacks, abs((fold == k).sum() / len(train) - fraction)

    held_out = _with_every_class(label, group, fold == min(range(count), key=cost))
    splits = manifest.split.to_numpy(copy=True).astype(object)
    splits[np.flatnonzero(manifest.split == "train")[held_out]] = "val"
    return pd.Series(splits, index=manifest.index, dtype="str")


class _Numbered:
    """Names by their number in alphabetical order."""

    def __init__(self, names: pd.Series):
        self.numbers, self.names = pd.factorize(names.to_numpy(dtype=object), sort=True)

    def counts(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """How often each name occurs in these rows."""
        return np.bincount(self.numbers[rows], minlength=len(self.names))


def _with_every_class(label: _Numbered, group: _Numbered, held: np.ndarray) -> np.ndarray:
    """Which rows (N,) to hold out of those: without the groups that leave train without a class, and with the smallest
    group of each class that they lack, where train keeps every class.
    """
    for whole in np.flatnonzero(label.counts(~held) == 0):
        held &= ~np.isin(group.numbers, group.numbers[label.numbers == whole])
    sizes = group.counts()
    for missing in np.flatnonzero(label.counts(held) == 0):
        groups = pd.unique(group.numbers[label.numbers == missing]).tolist()
        for g in sorted(groups, key=lambda g: (int(sizes[g]), str(group.names[g]))):
            if label.counts(~held & (group.numbers != g)).all():
                held |= group.numbers == g
                break
    return held
