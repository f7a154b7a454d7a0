"""Optical flow that was computed before and stored as pictures, as for UCF-101: a folder of u, a folder of v.

The layout is `<any>/u/<clip>/frame000001.jpg`, with v beside u; a clip's file is any of its u pictures, and stands for
all of them.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np
from pydantic import Field

from pipeline_src.media import pictures
from pipeline_src.media.base import Extractor, MediaError, extractors
from pipeline_src.media.picks import PickParams
from pipeline_src.media.pictures import FIT, FORMATS, Fit

SUFFIXES = {f".{name.lower()}" for name in (*FORMATS, "JPG")}


class FlowPicturesParams(PickParams):
    size: int = Field(ge=8, le=1024, description="side of the square output, pixels")
    fit: Fit = Field(description=FIT)


@extractors.register("flow_pictures")
class FlowPictures(Extractor):
    """uint8 (count, 2, size, size): the bytes of the u and v pictures at the picked moments.

    The k-th of n pictures stands for the part of the clip from k / n to (k + 1) / n, so a duration is not needed, and
    `first` counts its `fps` in pictures per picture: 1 takes the first ones.
    """

    Params = FlowPicturesParams
    params: FlowPicturesParams
    layout = "frames"
    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.params.count, 2, self.params.size, self.params.size)

    def probe(self, file: Path) -> float:
        """0: the pictures' rate is not known. Raises MediaError if u and v do not have the same pictures."""
        _pairs(file)
        pictures.check(file)
        return 0.0

    def extract(self, file: Path) -> np.ndarray:
        """Raises MediaError if u and v do not have the same pictures, or if a picture cannot be read."""
        pairs = _pairs(file)
        count = Fraction(len(pairs))
        chosen = [pairs[min(int(time), len(pairs) - 1)] for time in self.params.times(count)]
        return np.stack([np.stack([self._square(component) for component in pair]) for pair in chosen])

    def _square(self, file: Path) -> np.ndarray:
        return np.asarray(pictures.square(pictures.read(file, "L"), self.params.size, self.params.fit))


def _pairs(file: Path) -> list[tuple[Path, Path]]:
    """The clip's (u, v) pictures in the order of their names."""
    if not file.is_file():
        raise MediaError("missing file")
    if file.parent.parent.name != "u":
        raise MediaError("expected a picture below u/<clip>/, with its pair below v/<clip>/")
    other = file.parent.parent.parent / "v" / file.parent.name
    u, v = (
        {entry.name: entry for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES} if folder.is_dir() else {}
        for folder in (file.parent, other)
    )
    if not u:
        raise MediaError("no pictures")
    if u.keys() != v.keys():
        lacking = sorted(u.keys() ^ v.keys())
        raise MediaError(f"u and v differ: {lacking[0]} and {len(lacking) - 1} more have no pair")
    return [(u[name], v[name]) for name in sorted(u)]
