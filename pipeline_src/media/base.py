"""The interface of feature extractors: a file of a modality in, an array of fixed shape out."""

from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np

from pipeline_src.core.params import Affects, Section
from pipeline_src.core.registry import Registry

extractors = Registry("pipeline_src.media", "feature extractor")


class MediaError(Exception):
    """A file that cannot be used; the message is the reason that the quarantine table shows."""


class ExtractorParams(Section):
    """Parameters of one modality of a recipe; `kind` names the extractor."""

    affects = "extract"

    kind: Annotated[str, Affects("manifest")]


class Extractor:
    """Turns a media file into the model's input.

    `shape` and `dtype` are those of one clip's array; `layout` tells encoders and augmentation how to read it:
    "frames" (T, C, H, W), "spectrogram" (F, T), "sequence" (T, D), where steps of zeros are padding, or
    "tokens" (L,), indices of words, where 0 is padding.
    """

    Params: ClassVar[type[ExtractorParams]] = ExtractorParams
    layout: ClassVar[str]
    dtype: ClassVar[np.dtype]
    parts: ClassVar[bool] = False  # it can read a part of a file
    name: ClassVar[str]  # that it is registered under

    def __init__(self, params: ExtractorParams):
        self.params = params

    @property
    def shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def row_bytes(self) -> int:
        """Bytes of one clip's array."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def probe(self, file: Path) -> float:
        """Duration in seconds, as the container states it; 0 if the format has none.

        Raises MediaError if the file lacks the stream.
        """
        raise NotImplementedError

    def extract(self, file: Path) -> np.ndarray:
        """Array of `shape` and `dtype`. Raises MediaError if the file cannot be decoded whole."""
        raise NotImplementedError

    def extract_part(self, file: Path, start: float, end: float) -> np.ndarray:
        """The same of the file from `start` to `end`, in seconds, as if it were the whole; of extractors with `parts`.

        Raises MediaError as `extract` does, and if the file ends before `start`.
        """
        raise NotImplementedError
