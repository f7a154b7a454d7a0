"""FOOD-101 of UPMC: about 90,000 web pictures of 101 dishes, each with the title of its page (Wang et al., 2015).

Its lists have rows `<picture>,<title>,<class>` without a header; pictures are in `images/<split>/<class>/`. The fetch
stage writes each title to a file and links the folder of pictures.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pipeline_src.core.errors import UserError
from pipeline_src.datasets import lists
from pipeline_src.datasets.base import Clip, Published, datasets

FIX = "get the file again"
CLASSES = 101
COLUMNS = ("image", "title", "class")


@datasets.register("food101")
class Food101(Published):
    modalities = ("image", "text")
    title = "UPMC FOOD-101"
    homepage = "https://www.kaggle.com/datasets/gianmarco96/upmcfood101"
    licence = "none stated; research use"
    citation = "Wang et al., Recipe Recognition with Large Multimodal Food Dataset, ICME Workshops 2015"
    sizes: ClassVar = {"train": 68_000, "test": 22_700}  # about
    layout = """
images/train/apple_pie/apple_pie_0.jpg ...    from upmcfood101.zip of the address above (needs an account), which
images/test/apple_pie/apple_pie_10.jpg ...    `fetch` unpacks if it is here
texts/train_titles.csv, texts/test_titles.csv
"""

    @cached_property
    def _rows(self) -> list[tuple[lists.Row, str]]:
        rows = [
            (row, split)
            for split in ("train", "test")
            for row in lists.read(self.folder / f"texts/{split}_titles.csv", COLUMNS, FIX, optional=COLUMNS[1])
        ]
        lists.once([row for row, _ in rows], lambda row: row.cells[0], FIX)
        return rows

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return lists.classes([row for row, _ in self._rows], 2, CLASSES, FIX)

    def fetch(self, folder: Path) -> None:
        """Write `text/<picture>.txt`, and link the pictures. Raises UserError if a list is missing or wrong."""
        images = self.folder / "images"
        (folder / "images").symlink_to(images.resolve(), target_is_directory=True)
        lists.write_clips(folder, self._write(folder))

    def _write(self, folder: Path) -> Iterator[Clip]:
        classes = self.classes  # checks the labels
        for row, split in self._rows:
            picture, title, label = row.cells
            lists.label(row, label, classes, FIX)
            if not (re.fullmatch(r"[\w-][\w.-]*", picture) and re.fullmatch(r"[\w-]+", label)):
                raise UserError(
                    f"{row.place}: expected the name of a picture and a class, but got {picture!r}, {label!r}; {FIX}"
                )
            clip = Path(picture).stem
            text = Path(f"text/{label}/{clip}.txt")
            (folder / text).parent.mkdir(parents=True, exist_ok=True)
            (folder / text).write_text(title, encoding="utf-8")
            files = {"image": Path(f"images/{split}/{label}/{picture}"), "text": text}
            yield Clip(clip, label, split, clip, files)

    def clips(self, folder: Path) -> Iterable[Clip]:
        return lists.read_clips(folder, self.modalities)
