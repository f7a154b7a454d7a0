"""AVE for event localisation from its videos: the class of each of ten seconds, the event from its start to its end,
else background (Tian et al., ECCV 2018). Lists, splits and files are those of `ave`.
"""

from functools import cached_property
from typing import ClassVar, Literal

from pydantic import Field

from pipeline_src.datasets import lists
from pipeline_src.datasets.ave import AVE, AVEParams, _span
from pipeline_src.datasets.base import Clip, datasets
from pipeline_src.tasks.segments import BACKGROUND

SECONDS = 10


class AVESegmentsParams(AVEParams):
    span: Literal["whole"] = Field(default="whole", description="a clip is the whole video")


@datasets.register("ave_segments")
class AVESegments(AVE):
    Params = AVESegmentsParams
    task: ClassVar[str] = "segments"
    segments = SECONDS

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return (*super().classes, BACKGROUND)

    def placed(self, clip: Clip, row: lists.Row) -> Clip:
        start, end = _span(row)
        name = str(clip.label)
        return clip._replace(label=tuple(name if start <= t < end else BACKGROUND for t in range(SECONDS)))
