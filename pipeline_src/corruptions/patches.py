"""Masked patches: a fraction `rate` of the patches of each sample is set to 0, the mean of train after normalisation.

Pictures and spectrograms are cut into patches of `size` x `size` pixels (the last of a row or column may be smaller);
the frames of a clip share the mask. A patch of a sequence or a text is a step, which becomes padding. OPM and OGM
(TPAMI 2024, Fig. 6) mask patches of 10 x 10 pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.corruptions.base import Corruption, CorruptionParams, corruptions

if TYPE_CHECKING:
    from torch import Generator, Tensor


class PatchesParams(CorruptionParams):
    size: int = Field(default=10, ge=1, le=10_000, description="pixels of a side; published 10 (TPAMI 2024, code)")


@corruptions.register("patches")
class Patches(Corruption):
    Params = PatchesParams
    params: PatchesParams
    caption = "Masked patches; the rate is the fraction of a sample's patches that are set to the mean of train."

    def __call__(self, x: Tensor, layout: str, rate: float, spread: Tensor, generator: Generator) -> Tensor:
        if layout in ("sequence", "tokens"):
            kept = _kept(len(x), (x.shape[1],), rate, generator)
            return x * kept.view(*kept.shape, *[1] * (x.dim() - 2)).to(x)
        height, width = x.shape[-2:]
        size = self.params.size
        kept = _kept(len(x), (-(-height // size), -(-width // size)), rate, generator)
        kept = kept.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, :height, :width]
        return x * kept.view(len(x), *[1] * (x.dim() - 3), height, width).to(x)


def _kept(count: int, grid: tuple[int, ...], rate: float, generator: Generator) -> Tensor:
    """Which patches (count, *grid) of each sample stay; round(rate * patches) do not."""
    scores = torch.rand((count, *grid), generator=generator, device=generator.device).flatten(1)
    masked = round(rate * scores.shape[1])
    rank = scores.argsort(1).argsort(1)
    return (rank >= masked).view(count, *grid)
