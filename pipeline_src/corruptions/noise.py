"""Gaussian noise: x <- x + rate * sigma * eps, eps ~ N(0, 1) for every number of every sample.

sigma is the standard deviation of the modality on train (per channel of frames, per feature of a sequence, of a whole
spectrogram), so that a rate means the same for sound and pictures: at 1, noise and signal have the same power. Steps
of a sequence that are padding stay so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_src.core.lazy import torch
from pipeline_src.corruptions.base import Corruption, corruptions

if TYPE_CHECKING:
    from torch import Generator, Tensor


@corruptions.register("noise")
class Noise(Corruption):
    layouts = ("frames", "spectrogram", "sequence")
    most = 100.0
    caption = "Gaussian noise; the rate is its standard deviation, in those of the modality on train."

    def __call__(self, x: Tensor, layout: str, rate: float, spread: Tensor, generator: Generator) -> Tensor:
        noise = torch.randn(x.shape, generator=generator, device=generator.device).to(x)
        if layout == "sequence":
            noise = noise * x.ne(0).any(-1, keepdim=True)
        return x + rate * spread * noise
