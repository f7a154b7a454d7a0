"""Precomputed features, a .npy file per clip, as of CMU-MOSI and CMU-MOSEI, or a cell of a column of arrays."""

from pathlib import Path
from tokenize import TokenError
from typing import Literal

import numpy as np
from pydantic import Field

from pipeline_src.media import cells
from pipeline_src.media.base import Extractor, ExtractorParams, MediaError, extractors


class ArrayParams(ExtractorParams):
    length: int = Field(ge=1, le=100_000, description="steps that the sequence is cut or padded to; published 50")
    features: int = Field(ge=1, le=100_000, description="numbers per step; a file with another number is refused")
    keep: Literal["start", "end"] = Field(default="start", description="which steps of a longer sequence are kept")
    pad: Literal["end", "start"] = Field(
        default="end", description="side on which shorter arrays are padded with zeros"
    )
    non_finite: Literal["zero", "refuse"] = Field(
        description="infinite or undefined values become 0, as in the released code for CMU-MOSEI's -inf in the sound, "
        "or put the clip into quarantine"
    )


@extractors.register("array")
class Array(Extractor):
    """float32 (length, features): a sequence of steps. A step of nothing but zeros is padding to all that reads it."""

    Params = ArrayParams
    params: ArrayParams
    layout = "sequence"
    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        return (self.params.length, self.params.features)

    def probe(self, file: Path) -> float:
        """0: the steps' rate is not known. Raises MediaError if the file holds no array of the right shape."""
        self._load(file)
        return 0.0

    def extract(self, file: Path) -> np.ndarray:
        """Raises MediaError if the file is no array of numbers (steps, features), cut short, or not finite."""
        p = self.params
        with np.errstate(over="ignore", invalid="ignore"):
            values = self._load(file).astype(self.dtype)
        bad = ~np.isfinite(values)
        if bad.any():
            if p.non_finite == "refuse":
                raise MediaError(f"{int(bad.sum())} of {bad.size} values are not finite")
            values[bad] = 0
        values = values[: p.length] if p.keep == "start" else values[-p.length :]
        room = p.length - len(values)
        return np.pad(values, ((0, room) if p.pad == "end" else (room, 0), (0, 0)))

    def _load(self, file: Path) -> np.ndarray:
        cell = cells.at(file)
        if cell is not None:
            return self._checked(cells.read(cell))
        if not file.is_file():
            raise MediaError("missing file")
        if file.stat().st_size == 0:
            raise MediaError("empty file")
        try:
            values = np.load(file, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
            raise MediaError(f"cannot be opened: {error}") from error
        return self._checked(values)

    def _checked(self, values: object) -> np.ndarray:
        expected = f"expected numbers (steps, {self.params.features})"
        if not isinstance(values, np.ndarray):  # an archive of several
            raise MediaError(f"{expected}, but got an archive of arrays")
        if values.dtype.kind not in "fiu" or values.ndim != 2 or values.shape[1] != self.params.features:
            raise MediaError(f"{expected}, but got {values.dtype} {values.shape}")
        if not len(values):
            raise MediaError("no steps")
        return values
