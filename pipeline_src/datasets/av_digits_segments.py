"""Spoken and written digits with a label per segment: audio-visual event localisation on the embedded dataset.

A clip is cut into T segments of equal length. In some in a row, one or more, a digit is shown while it is said, once in
each: they have its class. In any other segment the digit is only shown or only said, with the probability `partial`, or
neither: these are background. So neither modality alone tells where an event is.

Where events are is drawn from the seed and the clip by itself; writers, voices and all that makes a clip hard are as
in `av_digits`. Noise, ground and bars are there in every segment.
"""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from pipeline_src.core.errors import UserError
from pipeline_src.core.labels import Label
from pipeline_src.datasets import lists
from pipeline_src.datasets.av_digits import FIX, SAMPLE_RATE, AVDigits, AVDigitsParams, Plan, _digits, drawn
from pipeline_src.datasets.base import datasets
from pipeline_src.datasets.written import write_clip
from pipeline_src.tasks.segments import BACKGROUND

PLACES = 1  # of the generator that draws where events are


class AVDigitsSegmentsParams(AVDigitsParams):
    segments: int = Field(ge=2, le=100, description="parts of equal length that a clip is cut into, each with a label")
    partial: float = Field(
        0.25, ge=0, le=1, description="fraction of the other segments where the digit is heard or seen, but not both"
    )


@datasets.register("av_digits_segments")
class AVDigitsSegments(AVDigits):
    Params = AVDigitsSegmentsParams
    params: AVDigitsSegmentsParams
    classes: ClassVar[tuple[str, ...]] = (*AVDigits.classes, BACKGROUND)
    task: ClassVar[str] = "segments"

    @property
    def segments(self) -> int:
        return self.params.segments

    @property
    def maker(self) -> Callable[..., None]:
        return make

    def labelled(self, plan: Plan) -> str:
        """The classes of the segments, with spaces between them."""
        heard, seen = events(self.params, plan.row)
        return " ".join(plan.label if both else BACKGROUND for both in heard & seen)

    def label(self, row: lists.Row, text: str) -> Label:
        names = tuple(lists.label(row, name, self.classes, FIX) for name in text.split())
        if len(names) != self.segments:
            raise UserError(f"{row.place}: expected {self.segments} labels, but got {len(names)}; {FIX}")
        return names


def events(params: AVDigitsSegmentsParams, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether a clip's digit is heard and whether it is seen in each segment, (T,) bool each."""
    rng, count = np.random.default_rng([params.seed, row, PLACES]), params.segments
    length = int(rng.integers(1, count + 1))
    start = int(rng.integers(0, count - length + 1))
    event = (np.arange(count) >= start) & (np.arange(count) < start + length)
    partial, heard = rng.random(count) < params.partial, rng.random(count) < 0.5
    return event | (partial & heard), event | (partial & ~heard)


def sounded(word: np.ndarray, samples: int, heard: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Word at a random place of every segment where it is heard (T,), in white noise: float32 (samples,), its peak at
    0.7. `snr_db` as of `av_digits.mixed`.
    """
    word = word / np.sqrt(np.mean(np.square(word, dtype=np.float64)))
    wave = rng.normal(0, 10 ** (-snr_db / 20), samples)
    length = samples // len(heard)
    for segment in np.flatnonzero(heard):
        start = segment * length + rng.integers(0, length - len(word) + 1)
        wave[start : start + len(word)] += word
    return (0.7 * wave / np.abs(wave).max()).astype(np.float32)


def make(file: Path, plan: Plan, word: np.ndarray, params: AVDigitsSegmentsParams) -> None:
    """Draw, mix and write one clip; depends on nothing but its arguments."""
    images, labels, writer = _digits()
    rng = np.random.default_rng([params.seed, plan.row])
    others = images[(writer == writer[plan.row]) & (labels != labels[plan.row])]
    heard, seen = events(params, plan.row)
    frames = max(1, round(params.seconds * params.fps))
    of_frame = seen[np.arange(frames) * params.segments // frames]
    picture = drawn(images[plan.row], others, params, rng, of_frame)
    samples = round(params.seconds * SAMPLE_RATE)
    low, high = params.snr_db
    wave = sounded(word, samples, heard, rng.uniform(low, high), rng)
    write_clip(file, picture, params.fps, wave, SAMPLE_RATE)
