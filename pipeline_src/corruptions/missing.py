"""A missing modality: each sample loses it with probability `rate`, and the model reads zeros.

Zeros are the mean of train after normalisation, the padding of sequences and texts: what a device that is off would
give. The encoder runs on them, in training and in testing alike. Where several modalities are corrupted together, each
is lost by itself, so that some samples lose all. The view `removal` of the report is another question: there the
encoder's features are left out of the fusion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_src.core.lazy import torch
from pipeline_src.corruptions.base import Corruption, corruptions

if TYPE_CHECKING:
    from torch import Generator, Tensor


@corruptions.register("missing")
class Missing(Corruption):
    caption = "A missing modality; the rate is the probability that a sample lacks it, for which the model reads zeros."

    def __call__(self, x: Tensor, layout: str, rate: float, spread: Tensor, generator: Generator) -> Tensor:
        kept = torch.rand(len(x), generator=generator, device=generator.device) >= rate
        return x * kept.view(-1, *[1] * (x.dim() - 1)).to(x)
