"""The manifest: every clip that a dataset lists is in the manifest or, with the reason, in the quarantine table."""

from __future__ import annotations

import concurrent.futures
import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline_src.core import files
from pipeline_src.core.errors import UserError, listed
from pipeline_src.core.registry import closest
from pipeline_src.datasets import quarantine
from pipeline_src.datasets.base import Clip, Dataset, DatasetParams, no_folder
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
POINTER = b"version https://git-lfs.github.com/spec/"


def make(data: Data, threads: int = 1) -> None:
    """Write manifest.parquet and quarantine.parquet of a dataset of the plan.

    The manifest has id, one column per modality (path relative to the raw folder), label, split (train, val, test),
    group, duration (seconds, of the longest modality) and checksum (of the files, in the order of the modalities); if
    clips are parts of files, also start and end (seconds).

    Raises UserError for repeated ids, paths outside of the folder, unknown labels, and a quarantined fraction above
    `max_quarantine`.
    """
    clips = listed_clips(data)
    log.info(f"manifest {data.name}  reading {len(clips)} clips")
    rows, bad = look(data, clips, threads, hashed=True)
    files.write_table(data.manifest / "quarantine.parquet", bad)
    quarantine.check_fraction(data, bad, len(clips))
    table = pd.DataFrame(rows)
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


def listed_clips(data: Data) -> list[Clip]:
    """The clips of the dataset's lists, checked. Raises UserError if the folder is missing or a list is wrong."""
    if not data.raw.is_dir():
        raise UserError(no_folder(data.name, data.raw))
    clips = list(data.dataset.clips(data.raw))
    check(clips, data.dataset, data.name)
    return clips


def look(data: Data, clips: list[Clip], threads: int, hashed: bool) -> tuple[list[dict], pd.DataFrame]:
    """Rows of the manifest, and the quarantine table. Every file is opened; it is read whole only if `hashed`, and
    not if the plan has just hashed it.
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

    looks = []
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for result in pool.map(lambda clip: _look(clip, data.raw, data.extractors, checksum), clips):
            looks.append(result)
            if len(looks) % LOG_EVERY == 0:
                log.info(f"manifest {data.name}  {len(looks)} of {len(clips)} clips")
    bad = quarantine.table([reason for _, reason in looks if reason], "manifest")
    return [row for row, reason in looks if not reason], bad


def check(clips: list[Clip], dataset: Dataset, name: str) -> None:
    """Raises UserError for mistakes in the list of clips, which are not a matter for the quarantine."""
    if not clips:
        raise UserError(f"{name}: expected clips, but got none in the dataset's lists")

    def complain(bad: list, what: str) -> None:
        if bad:
            raise UserError(f"{name}: {what}: {listed(bad)} ({len(bad)} of {len(clips)} clips)")

    complain([repr(c.id) for c in clips if not re.fullmatch(r"(?!\.)[\w.+=@ -]+", c.id)], "ids that cannot name a file")
    for clip in clips:
        for file in clip.files.values():
            path = PurePosixPath(Path(file).as_posix())
            if path.is_absolute() or ".." in path.parts:
                complain([f"{clip.id} ({file})"], "paths that leave the dataset's folder")
    seen: dict[str, int] = {}
    for clip in clips:
        seen[clip.id] = seen.get(clip.id, 0) + 1
    complain([clip for clip, n in seen.items() if n > 1], "ids that occur twice in the lists")
    named = tasks[dataset.task].named
    labels = sorted({name for c in clips for name in named(c.label)} - set(dataset.classes))
    if labels:
        hint = closest(labels[0], dataset.classes)
        first = next(c.id for c in clips if labels[0] in named(c.label))
        raise UserError(f"{name}: expected labels that are classes, but got {listed(labels)} (of {first}){hint}")
    parts = [f"{c.id} {c.span}" for c in clips if c.span is not None and not 0 <= c.span[0] < c.span[1]]
    complain(parts, "parts of files that do not end after they start")
    splits = [f"{c.id} ({c.split})" for c in clips if c.split not in SPLITS]
    complain(splits, f"splits other than {', '.join(SPLITS)}")
    missing = [c.id for c in clips if set(c.files) != set(dataset.modalities)]
    complain(missing, f"clips without a file for each of {', '.join(dataset.modalities)}")
    for split in NEEDED:
        if all(clip.split != split for clip in clips):
            raise UserError(f"{name}: expected clips of both splits in the dataset's lists, but got none of {split}")


def _look(
    clip: Clip, folder: Path, extractors: dict[str, Extractor], checksum: Callable[[str], str]
) -> tuple[dict | None, tuple | None]:
    """A row of the manifest, or a row of the quarantine table."""
    durations = []
    for m, extractor in extractors.items():
        name = os.fsencode(clip.files[m].as_posix())
        try:
            name.decode()
        except UnicodeDecodeError:
            return None, (clip.id, m, name.decode(errors="backslashreplace"), "the file's name is not UTF-8: rename it")
        try:
            durations.append(extractor.probe(folder / clip.files[m]))
        except MediaError as error:
            return None, (clip.id, m, clip.files[m].as_posix(), _pointer(folder / clip.files[m]) or str(error))
    paths = {m: clip.files[m].as_posix() for m in extractors}
    checksums = {path: checksum(path) for path in dict.fromkeys(paths.values())}
    return {
        "id": clip.id,
        **paths,
        "label": list(clip.label) if isinstance(clip.label, tuple) else clip.label,
        "split": clip.split,
        "group": clip.group,
        "duration": max(durations),
        "checksum": " ".join(checksums.values()),
        **({} if clip.span is None else {"start": clip.span[0], "end": clip.span[1]}),
    }, None


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
    from sklearn.model_selection import StratifiedGroupKFold

    train = manifest[manifest.split == "train"]
    folds = min(int(1 / fraction), int(1 / fraction) + 1, key=lambda n: abs(1 / n - fraction))
    for what, most in (("groups", train.group.nunique()), ("of a label", train.label.value_counts().max())):
        if not most >= folds:
            raise UserError(
                f"val_fraction: {fraction} cuts the {len(train)} training clips into {folds} folds: "
                f"expected at least {folds} {what}, but got {most}; raise val_fraction or add clips"
            )
    cut = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(train, train.label, train.group)
    labels = train.label.to_numpy()

    def cost(fold: np.ndarray) -> tuple[int, float]:
        """Classes without a sample in val or in the rest, then the distance from the fraction that was asked for."""
        lacks = len(set(labels) - set(labels[fold])) + len(set(labels) - set(np.delete(labels, fold)))
        return lacks, abs(len(fold) / len(train) - fraction)

    held_out = _with_every_class(train, min((fold for _, fold in cut), key=cost))
    splits = manifest.split.to_numpy(copy=True).astype(object)
    splits[np.flatnonzero(manifest.split == "train")[held_out]] = "val"
    return pd.Series(splits, index=manifest.index, dtype="str")


def _with_every_class(train: pd.DataFrame, held_out: np.ndarray) -> np.ndarray:
    """The rows to hold out: without the groups that leave train without a class, and with the smallest group of each
    class that they lack, where train keeps every class.
    """
    held = np.zeros(len(train), bool)
    held[held_out] = True
    label, group = train.label.to_numpy(), train.group.to_numpy()
    for whole in sorted(set(label) - set(label[~held])):
        held &= ~np.isin(group, group[label == whole])
    for missing in sorted(set(label) - set(label[held])):
        groups = pd.Series(group[label == missing]).unique()
        for name in sorted(groups, key=lambda name: (int((group == name).sum()), str(name))):
            rest = label[~held & (group != name)]
            if set(rest) == set(label):
                held |= group == name
                break
    return np.flatnonzero(held)
