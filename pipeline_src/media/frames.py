"""A few RGB frames of a video: the visual input of the published protocols."""

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from pipeline_src.media.base import Extractor, ExtractorParams, MediaError, extractors
from pipeline_src.media.decode import decode, duration, opened, stated_duration

ROUNDING = Fraction(1, 1000)  # s; Matroska and FLV keep times to the millisecond, others exactly


class FramesParams(ExtractorParams):
    count: int = Field(ge=1, le=512, description="frames per clip")
    size: int = Field(ge=8, le=1024, description="side of the square output, pixels")
    pick: Literal["centers"] = Field(
        description="which frames: `centers`, those on display at the centre of each of `count` equal parts of the clip"
    )


@extractors.register("frames")
class Frames(Extractor):
    """uint8 (count, 3, size, size), RGB.

    The short side is scaled to `size` (bicubic, with a filter that widens as it shrinks, so that nothing aliases), then
    the centre is cropped. Pixels are taken as square; rotation tags are not applied.
    """

    Params = FramesParams
    layout = "frames"
    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.params.count, 3, self.params.size, self.params.size)

    def probe(self, file: Path) -> float:
        """Stated duration of the video, seconds. Raises MediaError if there is none to take."""
        return duration(file, "video")

    def extract(self, file: Path) -> np.ndarray:
        """Raises MediaError if the file cannot be opened or decoded, or ends before its stated duration."""
        with opened(file, "video") as (container, stream):
            times = PICKS[self.params.pick](stated_duration(container, stream), self.params.count)
            frames = _on_display(container, stream, times)
            return np.stack([_square(frame, self.params.size) for frame in frames])


def centers(seconds: Fraction, count: int) -> list[Fraction]:
    """Centres of `count` equal parts of a clip, in seconds."""
    return [seconds * Fraction(2 * part + 1, 2 * count) for part in range(count)]


PICKS = {"centers": centers}


def _on_display(container, stream, times: list[Fraction]) -> list:
    """For each of the ascending times, the last frame that begins at or before it, to the millisecond."""
    chosen, last = [], None
    start = (stream.start_time or 0) * stream.time_base
    # AVI keeps no times of display, and with B-frames FFmpeg guesses them wrong; its frames come at one even rate.
    even = container.format.name == "avi" and stream.average_rate
    number = itertools.count()

    def take(frame) -> bool:
        nonlocal last
        if frame.pts is None and not even:
            raise MediaError("cannot be decoded: frame without a time")
        begin = next(number) / even if even else frame.pts * frame.time_base - start
        while last and len(chosen) < len(times) and begin > times[len(chosen)] + ROUNDING:
            chosen.append(last)
        last = frame
        return len(chosen) == len(times)

    decode(container, stream, take)
    if last is None:
        raise MediaError("cannot be decoded: no frames")
    return chosen + [last] * (len(times) - len(chosen))  # the last frame stays on display until the end


def _square(frame, size: int) -> np.ndarray:
    """Frame scaled and centre-cropped to uint8 (3, size, size)."""
    short = min(frame.width, frame.height)
    width, height = (max(size, round(side * size / short)) for side in (frame.width, frame.height))
    pixels = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC").to_ndarray()
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[top : top + size, left : left + size].transpose(2, 0, 1)
