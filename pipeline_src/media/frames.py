"""A few RGB frames of a video: the visual input of the published protocols."""

from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from pipeline_src.media.base import Extractor, MediaError, extractors
from pipeline_src.media.decode import duration
from pipeline_src.media.display import on_display
from pipeline_src.media.picks import PickParams
from pipeline_src.media.pictures import FIT, Fit, centre, extent


class FramesParams(PickParams):
    size: int = Field(ge=8, le=1024, description="side of the square output, pixels")
    fit: Fit = Field(default="crop", description=FIT)
    interpolation: Literal["bicubic", "bilinear"] = Field(
        default="bicubic",
        description="of the scaling, with a filter that widens as it shrinks, so that nothing aliases; torchvision's "
        "Resize, and so most released code, is bilinear",
    )


@extractors.register("frames")
class Frames(Extractor):
    """uint8 (count, 3, size, size), RGB: the frames on display at the picked moments.

    Pixels are taken as square; rotation tags are not applied. Of a clip that is shorter than `first` asks for, the last
    frame is repeated.
    """

    Params = FramesParams
    params: FramesParams
    layout = "frames"
    dtype = np.dtype(np.uint8)
    parts = True

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.params.count, 3, self.params.size, self.params.size)

    def probe(self, file: Path) -> float:
        """Stated duration of the video, seconds. Raises MediaError if there is none to take."""
        return duration(file, "video")

    def extract(self, file: Path) -> np.ndarray:
        """Raises MediaError if the file cannot be opened or decoded, or ends before its stated duration."""

        def times(seconds: Fraction, rate: Fraction) -> list[Fraction]:
            return self.params.times(seconds)

        return np.stack([self._square(frame) for frame in on_display(file, times)])

    def extract_part(self, file: Path, start: float, end: float) -> np.ndarray:
        def times(seconds: Fraction, rate: Fraction) -> list[Fraction]:
            if (first := Fraction(start)) >= seconds:
                raise MediaError(f"too short: expected pictures after {start:g} s")
            length = min(Fraction(end), seconds) - first
            return [first + min(time, length) for time in self.params.times(length)]

        return np.stack([self._square(frame) for frame in on_display(file, times)])

    def _square(self, frame: Any) -> np.ndarray:
        """Frame scaled and cropped to uint8 (3, size, size)."""
        size, how = self.params.size, self.params.interpolation.upper()
        width, height = extent(frame.width, frame.height, size, self.params.fit)
        pixels = frame.reformat(width=width, height=height, format="rgb24", interpolation=how).to_ndarray()
        left, top = centre(width, height, size)
        return pixels[top : top + size, left : left + size].transpose(2, 0, 1)
