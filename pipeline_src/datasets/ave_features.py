"""AVE for event localisation, as its authors publish it: features and a label for each of ten seconds (Tian et al.,
ECCV 2018).

The HDF5 files (AVE-ECCV18, dataloader.py) hold, for 4,143 clips, `avadataset` of visual_feature.h5 (N, 10, 7, 7, 512:
VGG-19, pool5), audio_feature.h5 (N, 10, 128: VGGish) and labels.h5 (N, 10, 29: one of 28 events, or the background,
the last), and `order`, the clips of each split, of train_order.h5, val_order.h5 and test_order.h5. They name neither
videos nor events, so a clip is a group of its own. Reading HDF5 takes h5py (envs/hdf5.txt); without it, each array may
be a .npy file of the same name.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline_src.core.errors import UserError, listed
from pipeline_src.datasets import lists
from pipeline_src.datasets.base import Clip, Published, datasets
from pipeline_src.tasks.segments import BACKGROUND

log = logging.getLogger(__name__)

SECONDS, EVENTS = 10, 28
STEMS = {"audio": "audio_feature", "visual": "visual_feature"}
LABELS = "avadataset"  # key of the HDF5 files of features, too
SHAPES = {"audio": (128,), "visual": (7, 7, 512)}
SPLITS = ("train", "val", "test")
FIX = "get the file again"


@datasets.register("ave_features")
class AVEFeatures(Published):
    modalities = ("audio", "visual")
    task: ClassVar[str] = "segments"
    classes = (*(f"event-{i:02d}" for i in range(1, EVENTS + 1)), BACKGROUND)
    segments = SECONDS
    title = "AVE, features and labels by second"
    homepage = "https://github.com/YapengTian/AVE-ECCV18"
    licence = "annotations CC BY 4.0, as AudioSet's"
    citation = "Tian et al., Audio-Visual Event Localization in Unconstrained Videos, ECCV 2018"
    sizes: ClassVar = {"train": 3_339, "val": 402, "test": 402}
    layout = """
visual_feature.h5 audio_feature.h5 labels.h5               from the address above (its links to the features)
train_order.h5 val_order.h5 test_order.h5                  the same
"""

    def fetch(self, folder: Path) -> None:
        """Write `<modality>/<id>.npy`, float32 (10, numbers). Raises UserError if a file is not as published."""
        with self._array("labels", LABELS) as found:
            labels = np.asarray(found)
        if labels.ndim != 3 or labels.shape[1:] != (SECONDS, EVENTS + 1) or labels.dtype.kind not in "fiub":
            raise self._wrong("labels", f"(clips, {SECONDS}, {EVENTS + 1})", labels)
        if not ((labels > 0).sum(axis=2) == 1).all():
            raise UserError(f"{self._file('labels')}: expected one class for each second, but got others; {FIX}")
        names = np.array(self.classes)[labels.argmax(axis=2)]
        split_of: dict[int, str] = {}
        for split in SPLITS:
            with self._array(f"{split}_order", "order") as found:
                rows = np.asarray(found)
            if rows.ndim != 1 or rows.dtype.kind not in "iu" or not ((rows >= 0) & (rows < len(labels))).all():
                raise self._wrong(f"{split}_order", f"numbers of clips below {len(labels)}", rows)
            split_of |= dict.fromkeys(rows.tolist(), split)
        lists.write_clips(folder, self._written(folder, names, split_of))

    def clips(self, folder: Path) -> Iterable[Clip]:
        for clip in lists.read_clips(folder, self.modalities):
            yield clip._replace(label=tuple(str(clip.label).split()))

    def _written(self, folder: Path, names: np.ndarray, split_of: dict[int, str]) -> Iterator[Clip]:
        """Write the arrays of every clip; yields the clips, their labels with spaces between them."""
        for m, stem in STEMS.items():
            (folder / m).mkdir()
            with self._array(stem, LABELS) as array:
                if array.shape != (len(names), SECONDS, *SHAPES[m]):
                    raise self._wrong(stem, str((len(names), SECONDS, *SHAPES[m])), array)
                for row in split_of:
                    values = np.asarray(array[row], np.float32).reshape(SECONDS, -1)
                    np.save(folder / m / f"{_id(row)}.npy", values, allow_pickle=False)
        for row, split in sorted(split_of.items()):
            files = {m: Path(f"{m}/{_id(row)}.npy") for m in STEMS}
            yield Clip(_id(row), " ".join(names[row]), split, _id(row), files)
        log.info(f"fetch {self.name}  {len(split_of)} clips")

    def _file(self, stem: str) -> Path:
        """The .npy file, if there is one, else the HDF5 file."""
        array = self.folder / f"{stem}.npy"
        return array if array.is_file() else self.folder / f"{stem}.h5"

    @contextmanager
    def _array(self, stem: str, key: str) -> Iterator[Any]:
        """An array of a file, which is read as it is sliced."""
        file = self._file(stem)
        if not file.is_file():
            raise UserError(f"{file}: expected an HDF5 file, but got no file; see `counterpoise check {self.name}`")
        try:
            if file.suffix == ".npy":
                content: Any = {key: np.load(file, mmap_mode="r", allow_pickle=False)}
            else:
                content = self._hdf5().File(file, "r")
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: expected an array, but got an error: {error}; {FIX}") from None
        try:
            if key not in content:
                raise UserError(f"{file}: expected a dataset {key!r}, but got {listed(content)}; {FIX}")
            yield content[key]
        finally:
            if file.suffix == ".h5":
                content.close()

    @staticmethod
    def _hdf5() -> Any:
        try:
            import h5py
        except ImportError:
            raise UserError(
                "h5py: expected it to be installed, as the files are HDF5, but got none; pip install -r envs/hdf5.txt, "
                "or save each array as .npy under the same name"
            ) from None
        return h5py

    def _wrong(self, stem: str, expected: str, got: Any) -> UserError:
        return UserError(f"{self._file(stem)}: expected {expected}, but got {got.shape}; {FIX}")


def _id(row: int) -> str:
    return f"ave-{row:04d}"
