"""VGGSound: about 200,000 ten-second clips of 309 sounds whose source is in the picture (Chen et al., 2020).

Its list, `vggsound.csv`, has rows `<video>,<start second>,<label>,<split>`; the 309 classes are the labels in it, in
alphabetical order. The group is the YouTube video.
"""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pipeline_src.core.errors import UserError
from pipeline_src.datasets import lists
from pipeline_src.datasets.base import Clip, Published, datasets

FIX = "download vggsound.csv again"
CLASSES = 309


@datasets.register("vggsound")
class VGGSound(Published):
    modalities = ("audio", "visual")
    title = "VGGSound"
    homepage = "https://github.com/hche11/VGGSound; videos: https://huggingface.co/datasets/Loie/VGGSound"
    licence = "annotations CC BY 4.0; videos under YouTube's terms"
    citation = "Chen et al., VGGSound: A Large-scale Audio-Visual Dataset, ICASSP 2020"
    sizes: ClassVar = {"train": 184_020, "test": 15_447}  # about, as users report
    layout = """
vggsound.csv                        from the first address, folder data
**/---g-f_I2yQ_000001.mp4 ...       <video>_<start second>.mp4, in any folders; archives are unpacked by `fetch`
"""

    @cached_property
    def _rows(self) -> list[lists.Row]:
        return lists.read(self.folder / "vggsound.csv", ("id", "start", "label", "split"), FIX)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return lists.classes(self._rows, 2, CLASSES, FIX)

    def clips(self, folder: Path) -> Iterable[Clip]:
        classes = self.classes  # checks the labels
        present = lists.stems(folder, (".mp4", ".mkv", ".webm"))
        for row in lists.once(self._rows, lambda row: f"{row.cells[0]},{row.cells[1]}", FIX):
            video, start, label, split = row.cells
            if not start.isdecimal():
                raise UserError(f"{row.place}: expected a start in whole seconds, but got {start!r}; {FIX}")
            if split not in ("train", "test"):
                raise UserError(f"{row.place}: expected train or test, but got {split!r}; {FIX}")
            clip = f"{video}_{int(start):06d}"
            file = present.get(clip, Path(f"videos/{clip}.mp4"))
            yield Clip(clip, lists.label(row, label, classes, FIX), split, video, dict.fromkeys(self.modalities, file))
