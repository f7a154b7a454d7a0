"""AVE: ten-second videos of 28 events that are both seen and heard (Tian et al., 2018); a subset of AudioSet.

Split: the published one, with its val: 3,339 train, 402 val, 402 test rows `<category>&<video>&<quality>&<start>&
<end>`. 27 videos of train and 1 of val occur twice in their list, with other events or times, and 18 in two splits.

`span` says what a clip is of its video, `repeats` what becomes of a video that a list has twice:

whole, keep   today's default: every row is a clip of the whole video, so 28 inputs have two labels
event, drop   as released by PMR (Modal-Imbalance-PMR, data/AVE/video_preprocessing.py and dataset/AVEDataset.py): the
              seconds from start to end, and of a video that a list has twice the first row. What is cut out of such a
              video there is the event of its last row in the annotations, whichever row gives the label; here a clip
              is the event of its own row
"""

import logging
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from pipeline_src.core.errors import UserError
from pipeline_src.datasets import lists
from pipeline_src.datasets.base import Clip, DatasetParams, FolderParams, Published, datasets, github

log = logging.getLogger(__name__)

PMR = ("fanyunfeng-bit/Modal-Imbalance-PMR", "3615e48983555089b0e693380087617c3797a641")
FIX = "fetch the lists again"
CLASSES = 28
COLUMNS = ("category", "video", "quality", "start", "end")


class AVEParams(FolderParams):
    span: Literal["whole", "event"] = Field(
        default="whole", description="what a clip is: the whole video, or the event's seconds, as PMR's are cut"
    )
    repeats: Literal["keep", "drop"] = Field(
        default="keep",
        description="a video that a list has twice. keep: both rows are clips; drop: the first, as PMR's loader does",
    )


@datasets.register("ave")
class AVE(Published):
    Params: ClassVar[type[DatasetParams]] = AVEParams
    params: AVEParams
    modalities = ("audio", "visual")
    title = "AVE"
    homepage = "https://sites.google.com/view/audiovisualresearch"
    licence = "annotations CC BY 4.0, as AudioSet's; videos under YouTube's terms"
    citation = "Tian et al., Audio-Visual Event Localization in Unconstrained Videos, ECCV 2018"
    layout = """
AVE/---1_cCGK4M.mp4 ...    from AVE_Dataset.zip of the address above, which `fetch` unpacks if it is here
lists/                     fetched
"""
    downloads = tuple(
        github(*PMR, f"data/AVE/{name}", f"lists/{name}", sha256, size)
        for name, sha256, size in (
            ("trainSet.txt", "4f6c37aff56d4a3407f8beff47ca59dcefb8e94b3e02bbc34b0c89b5cdad6945", 116_313),
            ("valSet.txt", "76c3c51b67aacbbacd5708e17aab491638a5e9032f786adad1a13be55d9cb3ca", 13_991),
            ("testSet.txt", "e73c25a509bb38a691c1e08064af66d0512554f2fbc883cddd6d2a51ede8449d", 13_983),
        )
    )

    @property
    def sizes(self) -> dict[str, int]:
        keep = self.params.repeats == "keep"
        return {"train": 3_339 if keep else 3_312, "val": 402 if keep else 401, "test": 402}

    @property
    def spans(self) -> bool:
        return self.params.span == "event"

    @cached_property
    def _rows(self) -> list[tuple[lists.Row, str]]:
        return [
            (row, split)
            for split in ("train", "val", "test")
            for row in lists.read(self.folder / f"lists/{split}Set.txt", COLUMNS, FIX, separator="&")
        ]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return lists.classes([row for row, _ in self._rows], 0, CLASSES, FIX)

    def clips(self, folder: Path) -> Iterable[Clip]:
        classes = self.classes  # checks the labels
        present = lists.stems(folder, (".mp4", ".mkv", ".webm"))
        times: Counter[str] = Counter()
        sides: dict[str, set[str]] = {}
        for row, split in self._rows:
            label, video = row.cells[:2]
            if self.params.repeats == "drop" and split in sides.get(video, ()):
                continue
            times[video] += 1
            sides.setdefault(video, set()).add(split)
            clip = video if times[video] == 1 else f"{video}.{times[video]}"
            file = present.get(video, Path(f"AVE/{video}.mp4"))
            files = dict.fromkeys(self.modalities, file)
            yield self.placed(Clip(clip, lists.label(row, label, classes, FIX), split, video, files), row)
        shared = sum(len(splits) > 1 for splits in sides.values())
        if shared:
            log.info(f"AVE  {shared} videos occur in more than one split, as published")

    def placed(self, clip: Clip, row: lists.Row) -> Clip:
        """The clip with what the seconds of its event make of it."""
        return clip._replace(span=_span(row)) if self.spans else clip


def _span(row: lists.Row) -> tuple[float, float]:
    """The seconds of a row's event. Raises UserError if they are none."""
    start, end = row.cells[3:]
    if not (start.isdecimal() and end.isdecimal() and int(start) < int(end)):
        what = f"expected a start and a later end in whole seconds, but got {start!r} and {end!r}"
        raise UserError(f"{row.place}: {what}; {FIX}")
    return float(start), float(end)
