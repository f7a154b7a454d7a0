"""The base of CMU-MOSI and CMU-MOSEI, whose published pickle of features becomes a file per clip and modality.

The pickle (of MultiBench, used by the papers on balanced learning) has `train`, `valid` and `test`, each with `vision`,
`audio`, `text` (N, T, D), `labels` (N, 1, 1) from -3 to 3, and `id`. Two classes: negative below 0, positive from 0;
with `task: regression`, the numbers themselves.
Values that are not finite (CMU-MOSI's audio has -inf) are counted and kept: `non_finite` of the recipe decides.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from pipeline_src.core.errors import UserError, brief, listed
from pipeline_src.datasets import lists, pickles
from pipeline_src.datasets.base import Clip, FolderParams, Published

log = logging.getLogger(__name__)

CLASSES = ("negative", "positive")
KEYS = {"audio": "audio", "text": "text", "visual": "vision"}
SPLITS = {"train": "train", "val": "valid", "test": "test"}
FIX = "get the file again"
LONGEST = 100  # characters of a video's name


class SentimentParams(FolderParams):
    task: Literal["classification", "regression"] = Field(
        "classification", description="what a label is: one of two classes, or the number from -3 to 3"
    )
    file: str = Field(pattern=r"^[^/\x00-\x1f]{1,255}$", description="name of the pickle in `folder`")


class Sentiment(Published):
    """A dataset whose published file is one pickle of features."""

    Params = SentimentParams
    params: SentimentParams
    modalities = ("audio", "text", "visual")
    licence = "CMU Multimodal SDK's terms; research use"

    @property
    def task(self) -> str:  # type: ignore[override]
        return self.params.task

    @property
    def classes(self) -> tuple[str, ...]:
        return CLASSES if self.params.task == "classification" else ()

    def fetch(self, folder: Path) -> None:
        """Write `<modality>/<id>.npy`, float32 (T, D). Raises UserError if the pickle is unsafe or not as published."""
        content = pickles.read(self.folder / self.params.file)
        file = self.folder / self.params.file
        if not isinstance(content, dict) or not set(SPLITS.values()) <= set(content):
            got = listed(content) if isinstance(content, dict) else type(content).__name__
            raise UserError(f"{file}: expected {', '.join(SPLITS.values())}, but got {got}; {FIX}")
        lists.write_clips(
            folder,
            (clip for split, key in SPLITS.items() for clip in self._split(file, content[key], key, split, folder)),
        )

    def clips(self, folder: Path) -> Iterable[Clip]:
        for clip in lists.read_clips(folder, self.modalities):
            yield clip._replace(label=float(str(clip.label))) if self.params.task == "regression" else clip

    def _split(self, file: Path, content: Any, key: str, split: str, folder: Path) -> Iterator[Clip]:
        for clip, value in _split(file, content, key, split, folder):
            yield clip._replace(label=value) if self.params.task == "regression" else clip


def _split(file: Path, content: Any, key: str, split: str, folder: Path) -> Iterator[tuple[Clip, float]]:
    """Write the arrays of a split; yields its clips with their classes, and the numbers that these are made of."""
    wanted = (*KEYS.values(), "labels", "id")
    if not isinstance(content, dict) or not set(wanted) <= set(content):
        got = listed(content) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{file}: {key}: expected {', '.join(wanted)}, but got {got}; {FIX}")
    labels, ids = _labels(content["labels"]), content["id"]
    count = len(labels) if labels.ndim else 0
    for name in KEYS.values():
        array = content[name]
        if not isinstance(array, np.ndarray) or array.ndim != 3 or len(array) != count or array.dtype.kind != "f":
            got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise UserError(f"{file}: {key}: expected {name} as floats ({count}, T, D), but got {got}; {FIX}")
    named = len(ids) if isinstance(ids, list | tuple) or (isinstance(ids, np.ndarray) and ids.ndim) else 0
    if labels.size != count or labels.dtype.kind not in "fiu" or named != count:
        raise UserError(
            f"{file}: {key}: expected a label and an id for each of {count} clips, but got labels {labels.dtype} "
            f"{labels.shape} and {named} ids; {FIX}"
        )
    labels = labels.reshape(-1)
    outside = np.flatnonzero(~(np.abs(labels) <= 3))
    if len(outside):
        raise UserError(
            f"{file}: {key}: expected labels from -3 to 3, but got {labels[outside[0]]} at row {outside[0]} and "
            f"{len(outside) - 1} more; {FIX}"
        )
    videos = [video_of(name) for name in ids]
    longest = max(videos, key=len, default="")
    if len(longest) > LONGEST:
        raise UserError(f"{file}: {key}: expected ids of at most {LONGEST} characters, but got {brief(longest)}; {FIX}")
    for m in KEYS:
        (folder / m).mkdir(exist_ok=True)
    broken = dict.fromkeys(KEYS, 0)
    for i, video in enumerate(videos):
        clip = f"{re.sub(r'[^A-Za-z0-9_=+@-]', '_', video)}-{split}-{i:05d}"
        names = {m: Path(f"{m}/{clip}.npy") for m in KEYS}
        for m, name in KEYS.items():
            values = np.array(content[name][i], np.float32)
            broken[m] += int(np.count_nonzero(~np.isfinite(values)))
            np.save(folder / names[m], values, allow_pickle=False)
        yield Clip(clip, CLASSES[int(labels[i] >= 0)], split, video, names), float(labels[i])
    for m, number in broken.items():
        if number:
            log.warning(
                f"{file.name} {key}  {number} values of {m} are not finite; `non_finite` of the recipe decides",
            )


def _labels(content: Any) -> np.ndarray:
    """The labels as an array; of objects, which is refused, where they are no table of numbers."""
    try:
        return np.asarray(content)
    except ValueError:  # rows of unequal length
        return np.empty(len(content), object)


def video_of(name: object) -> str:
    """The video of a clip: abc for `abc[3]`, `abc_3` and (abc, start, end)."""
    first = name.tolist() if isinstance(name, np.ndarray) else name
    while isinstance(first, np.ndarray | list | tuple) and np.size(first):
        first = first.tolist() if isinstance(first, np.ndarray) else first[0]
    first = first.decode("latin-1") if isinstance(first, bytes) else str(first)
    return re.sub(r"(\[\d+\]|_\d+)$", "", first) or first or "unknown"
