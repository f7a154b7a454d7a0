"""Encoders in named stages, and the states between stages in one form, so that a fusion can read and exchange them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class State(NamedTuple):
    """A modality between two stages of its encoder, in the same form for every encoder.

    `x` is (B, C, *places); the places are (T, H, W) for frames, (H, W) for a spectrogram, (T,) for steps.
    `padding` (B, *places) is True at places that are padding; None if there is no padding.
    """

    x: Tensor
    padding: Tensor | None = None

    def mean(self) -> Tensor:
        """(B, C): the mean over the places that are not padding."""
        if self.padding is None:
            return self.x.flatten(2).mean(2)
        kept = (~self.padding).flatten(1).sum(1, keepdim=True)
        return torch.where(self.padding.unsqueeze(1), 0, self.x).flatten(2).sum(2) / kept.to(self.x.dtype)

    def rows(self, kept: Tensor) -> State:
        """The samples that `kept` (B,) bool selects."""
        return State(self.x[kept], None if self.padding is None else self.padding[kept])


class Stages(nn.Sequential):
    """An encoder (B, *shape) -> (B, D) as named stages, run one after the other.

    `frames` is the number T of frames if stages run on images (B * T, C, H, W), None if they run on (B, C, *places). An
    encoder whose stages pass on something else overrides `expose` and `put`.
    """

    def __init__(self, stages: Mapping[str, nn.Module] | Iterable[tuple[str, nn.Module]], frames: int | None = None):
        super().__init__(OrderedDict(stages))
        self.frames = frames

    def run(self, state: Any, names: Iterable[str]) -> Any:
        """Run the stages with these names."""
        for name in names:
            state = self._modules[name](state)
        return state

    def expose(self, state: Any) -> State:
        """What a stage gave, as a fusion sees it."""
        if self.frames is None:
            return State(state)
        return State(state.unflatten(0, (-1, self.frames)).movedim(1, 2))

    def put(self, state: Any, x: Tensor) -> Any:
        """`state` with the values `x` (B, C, *places) in place of its own, for the next stage."""
        return x if self.frames is None else x.movedim(2, 1).flatten(0, 1)


def image_channels(layout: str, shape: tuple[int, ...]) -> int:
    """Channels of the images that `pictures` gives its trunk: frames (T, C, H, W) have C, a spectrogram (F, T) one."""
    return shape[1] if layout == "frames" else 1


def pictures(layout: str, shape: tuple[int, ...], trunk: list[tuple[str, nn.Module]]) -> Stages:
    """An encoder of frames (B, T, C, H, W) or spectrograms (B, F, T) from a trunk of images (N, C, H, W) -> (N, D).

    The features of a clip are the mean over its frames; a spectrogram is one image of one channel.
    """
    if layout != "frames":
        return Stages([("images", nn.Unflatten(1, (1, shape[0]))), *trunk])
    frames = shape[0]
    mean = [("clips", nn.Unflatten(0, (-1, frames))), ("mean", nn.AvgPool2d((frames, 1))), ("flat", nn.Flatten(1))]
    return Stages([("images", nn.Flatten(0, 1)), *trunk, *mean], frames)
