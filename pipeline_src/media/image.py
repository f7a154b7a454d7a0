"""One picture file: the visual input of datasets of stills."""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from pipeline_src.media import pictures
from pipeline_src.media.base import Extractor, ExtractorParams, extractors
from pipeline_src.media.pictures import FIT, Fit


class ImageParams(ExtractorParams):
    size: int = Field(ge=8, le=1024, description="side of the square output, pixels")
    color: Literal["rgb", "grey"] = Field(description="`rgb` has three channels, `grey` has one (ITU-R 601-2 luma)")
    fit: Fit = Field(description=FIT)


@extractors.register("image")
class Image(Extractor):
    """uint8 (1, C, size, size), C = 3 (RGB) or 1 (grey), scaled as torchvision's Resize scales a picture."""

    Params = ImageParams
    params: ImageParams
    layout = "frames"
    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (1, 3 if self.params.color == "rgb" else 1, self.params.size, self.params.size)

    def probe(self, file: Path) -> float:
        """0: a picture has no duration. Raises MediaError if the file is no picture."""
        pictures.check(file)
        return 0.0

    def extract(self, file: Path) -> np.ndarray:
        """Raises MediaError if the file is missing, no picture, cut short, or has more than 8 bits a channel."""
        picture = pictures.read(file, "RGB" if self.params.color == "rgb" else "L")
        pixels = np.asarray(pictures.square(picture, self.params.size, self.params.fit))
        return pixels.reshape(self.params.size, self.params.size, -1).transpose(2, 0, 1)[None]
