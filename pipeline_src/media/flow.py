"""Optical flow between neighbouring frames: the motion input of UCF-101.

TV-L1 (Zach, Pock and Bischof, DAGM 2007) as OpenCV computes it, with its default parameters. Simonyan and Zisserman
(NIPS 2014, arXiv:1406.2199) store flow as pictures; the pre-computed UCF-101 flow that later papers read cuts
displacements to +-20 pixels and stretches them over a byte, and so does this extractor. `flow_pictures` reads those.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from pipeline_src.media.base import Extractor, extractors
from pipeline_src.media.decode import duration
from pipeline_src.media.display import on_display
from pipeline_src.media.picks import PickParams
from pipeline_src.media.pictures import FIT, Fit, extent, square


class FlowParams(PickParams):
    size: int = Field(ge=8, le=1024, description="side of the square output, pixels")
    fit: Fit = Field(description=FIT)
    side: int | None = Field(
        default=None,
        ge=16,
        le=4096,
        description="short side that frames are scaled to before the flow is computed, and which displacements are "
        "pixels of; null: as they are",
    )
    gap: int = Field(default=1, ge=1, le=100, description="frames, at the mean rate, between the two pictures")
    bound: float = Field(
        default=20.0, gt=0, le=1000, description="pixels; displacements are cut to +- this, which becomes 0 and 255"
    )


@extractors.register("flow")
class Flow(Extractor):
    """uint8 (count, 2, size, size): displacement to the right (u) and down (v) from each picked frame to the next.

    No motion is 128. The flow is computed at the frames' own size (or `side`), then its pictures are brought to `size`;
    the displacements keep their scale, as where stored flow pictures are resized.
    """

    Params = FlowParams
    params: FlowParams
    layout = "frames"
    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.params.count, 2, self.params.size, self.params.size)

    def probe(self, file: Path) -> float:
        """Stated duration of the video, seconds. Raises MediaError if there is none to take."""
        return duration(file, "video")

    def extract(self, file: Path) -> np.ndarray:
        """Raises MediaError if the file cannot be opened or decoded, or ends before its stated duration."""

        def times(seconds: Fraction, rate: Fraction) -> list[Fraction]:
            gap = self.params.gap / rate
            # The last frame has no successor, so the last pair ends there.
            firsts = [max(Fraction(0), min(time, seconds - 2 * gap)) for time in self.params.times(seconds)]
            return [time for first in firsts for time in (first, first + gap)]

        greys = [self._grey(frame) for frame in on_display(file, times)]
        return np.stack([self._pair(*pair) for pair in zip(greys[::2], greys[1::2], strict=True)])

    def _grey(self, frame: Any) -> np.ndarray:
        width, height = frame.width, frame.height
        if self.params.side:
            width, height = extent(width, height, self.params.side, "crop")
        return frame.reformat(width=width, height=height, format="gray", interpolation="BICUBIC").to_ndarray()

    def _pair(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        from PIL import Image

        pictures = [Image.fromarray(as_bytes(component, self.params.bound)) for component in tv_l1(before, after)]
        return np.stack([np.asarray(square(picture, self.params.size, self.params.fit)) for picture in pictures])


def tv_l1(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Displacement in pixels from one grey picture uint8 (H, W) to another: float32 (2, H, W), right and down."""
    import cv2

    cv2.setNumThreads(1)  # the pipeline's parallelism is one process per shard
    return cv2.optflow.createOptFlow_DualTVL1().calc(before, after, None).transpose(2, 0, 1)


def as_bytes(displacement: np.ndarray, bound: float) -> np.ndarray:
    """Displacements cut to +- bound and stretched over 0 to 255, 0 becoming 128: uint8."""
    return np.rint((displacement.clip(-bound, bound) / bound + 1) * 127.5).astype(np.uint8)
