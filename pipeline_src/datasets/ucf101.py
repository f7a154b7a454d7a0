"""UCF-101: 13,320 clips of 101 human actions, seen as colour and as optical flow (Soomro et al., 2012).

Three official splits (`split: 1 | 2 | 3`), whose lists have rows `<class>/<file>` (test) and `<class>/<file> <number>`
(train), and `classInd.txt` with `<number> <class>`. The clips of a class come in 25 groups (g01 ... g25), cut from one
source video each; the group of a clip is class and group, and the splits keep them whole. Flow is computed from the
same file.
"""

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from pipeline_src.core.errors import UserError
from pipeline_src.datasets import lists
from pipeline_src.datasets.base import Clip, FolderParams, Published, datasets

FIX = "unpack UCF101TrainTestSplits-RecognitionTask.zip again"
CLASSES = 101
NAME = re.compile(r"v_(?P<label>\w+)_(?P<group>g\d\d)_c\d\d")


class UCF101Params(FolderParams):
    split: int = Field(ge=1, le=3, description="official split; papers on balanced learning use 1")


@datasets.register("ucf101")
class UCF101(Published):
    Params = UCF101Params
    params: UCF101Params
    modalities = ("flow", "rgb")
    title = "UCF-101"
    homepage = "https://www.crcv.ucf.edu/data/UCF101.php"
    licence = "none stated; research use"
    citation = "Soomro, Zamir and Shah, UCF101: A Dataset of 101 Human Actions Classes, arXiv:1212.0402"
    sizes: ClassVar = {"train": 9_537, "test": 3_783}  # of split 1; the others differ by 1 %
    layout = """
UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi ...    from UCF101.rar, which needs unrar or bsdtar
ucfTrainTestlist/classInd.txt, trainlist01.txt, testlist01.txt ...
                                                           from UCF101TrainTestSplits-RecognitionTask.zip, which `fetch`
                                                           unpacks if it is here; no checksum is published
"""

    @cached_property
    def classes(self) -> tuple[str, ...]:
        file = self.folder / "ucfTrainTestlist/classInd.txt"
        rows = lists.read(file, ("number", "class"), FIX, separator=" ")
        return lists.classes(rows, 1, CLASSES, FIX)

    def clips(self, folder: Path) -> Iterable[Clip]:
        rows = []
        for split, columns in (("train", ("file", "number")), ("test", ("file",))):
            file = folder / f"ucfTrainTestlist/{split}list{self.params.split:02d}.txt"
            rows += [(row, split) for row in lists.read(file, columns, FIX, separator=" ")]
        stem = {row: Path(row.cells[0].replace("\\", "/")).stem for row, _ in rows}
        lists.once([row for row, _ in rows], stem.__getitem__, FIX)
        present = lists.stems(folder, (".avi", ".mp4"))
        classes = frozenset(self.classes)
        for row, split in rows:
            name = NAME.fullmatch(stem[row])
            if name is None:
                raise UserError(f"{row.place}: expected <class>/v_<class>_gNN_cNN.avi, but got {row.cells[0]!r}; {FIX}")
            label = Path(row.cells[0].replace("\\", "/")).parent.name or name["label"]
            lists.label(row, label, classes, FIX)
            file = present.get(stem[row], Path(f"UCF-101/{label}/{stem[row]}.avi"))
            group = f"{name['label']}_{name['group']}"
            yield Clip(stem[row], label, split, group, dict.fromkeys(self.modalities, file))
