"""Segments: a class for each of T segments of a sample, such as the event in each second (audio-visual event
localisation: Tian et al., ECCV 2018, arXiv:1803.08842). Target: (N, T) int64 in the cache, (N x T,) in training.

Each segment is a row (see `Task`): its loss is cross-entropy, its confidence the probability of its true class. The
last class is the background, where no event is both heard and seen. PMR's prototypes and its loss leave it out ("only
on ground-truth segments": Fan et al., CVPR 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pipeline_src.core.errors import UserError
from pipeline_src.tasks.base import Label, Metric, Target, tasks
from pipeline_src.tasks.classification import Classification

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND = "background"  # name of the last class


@tasks.register("segments")
class Segments(Classification):
    target = Target("int64", None)
    segmented = True
    metrics = (
        Metric(
            "segment_accuracy",
            "segment accuracy",
            "%",
            "The fraction of segments whose class is predicted.",
            counts=True,
        ),
        Metric("event_accuracy", "event accuracy", "%", "The same of segments that show an event, without background."),
        *Classification.metrics[1:],
    )

    @classmethod
    def stratum(cls, label: Label) -> str:
        return next((name for name in cls.named(label) if name != BACKGROUND), BACKGROUND)

    @classmethod
    def stored(cls, label: Label, number: Mapping[str, int]) -> list[int]:
        return [number[name] for name in cls.named(label)]

    def events(self, target: Tensor) -> Tensor:
        return target != self.classes - 1

    def of_samples(self, target: Tensor, samples: int) -> Tensor:
        """The class of the first segment with an event, or the background."""
        target = target.view(samples, -1)
        first = self.events(target).int().argmax(dim=1, keepdim=True)  # 0 where there is none
        return target.gather(1, first)[:, 0]

    def by_sample(self, predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
        return super().by_sample(predicted, target).mean(axis=1)

    def evaluate(self, logits: np.ndarray, target: np.ndarray, whole: bool) -> dict[str, float]:
        values = super().evaluate(logits, target, whole)
        right, event = logits.argmax(1) == target, target != self.classes - 1
        events = {"event_accuracy": float(right[event].mean()) if event.any() else 0.0}
        return {"segment_accuracy": values.pop("accuracy"), **events, **values}


def cut_shape(name: str, layout: str, shape: tuple[int, ...], segments: int) -> tuple[int, ...]:
    """The shape of one of so many segments of a modality's input. Raises UserError if it cannot be cut."""
    length = shape[-1] if layout == "spectrogram" else shape[0]
    if layout == "tokens":
        raise UserError(f"{name}: expected an input over time, which can be cut into segments, but got words")
    if length < segments or (length % segments and layout != "spectrogram"):
        raise UserError(
            f"{name}: expected a number of steps or frames that {segments} segments divide, but got {length}; "
            "change the recipe"
        )
    return (*shape[:-1], length // segments) if layout == "spectrogram" else (length // segments, *shape[1:])


def cut(x: Tensor, layout: str, segments: int) -> Tensor:
    """An input (B, ...) as one row per segment (B x T, ...), those of a sample one after the other. Of a spectrogram
    (B, F, S), the last S mod T steps are left out.
    """
    if layout != "spectrogram":
        return x.unflatten(1, (segments, -1)).flatten(0, 1)
    steps = x.shape[2] // segments
    return x[:, :, : steps * segments].unflatten(2, (segments, steps)).movedim(2, 1).flatten(0, 1)
