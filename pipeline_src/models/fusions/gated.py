"""Gated fusion: one modality gates the others (Kiela et al., AAAI 2018, arXiv:1802.02892).

    z = W [sigmoid(U f_m + u) * (offset + V f + v)] + b   f_m: features of the gating modality; f = [f_j, j != m]

`gated`: the first modality is the gate; `gated_reversed`: the last one is. For two modalities these are the two
directions of OGM-GE's gated option; for more, one gate serves all others together [extension]. The gate is as wide as
the widest modality. With one modality there is nothing to gate: the fusion is a linear classifier, as concatenation is.

Unimodal logits are the prediction with the other modalities' features set to zero:

    gating m alone     W [sigmoid(U f_m + u) * (offset + v)] + b, the open gates themselves
    gated j alone      W [sigmoid(u) * (offset + V_j f_j + v)] + b, linear in f_j, the gates half open near u = 0

`model.fusion.offset` is 1 by default, which keeps the first informative. OGM-GE and PMR release gates with offset 0:
with the zero biases that training starts from, removing the gated modality then makes the product zero and the gate's
prediction the constant b. The functions that the fusion can learn are the same with either, as v can include it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline_src.models.base import fusions
from pipeline_src.models.fusions.base import Fusion, linear


@fusions.register("gated", additive=False)
class Gated(Fusion):
    """Gated fusion: the first modality gates the others (Kiela et al., AAAI 2018)."""

    gating = 0  # position of the modality that is the gate

    def __init__(self, dims: dict[str, int], classes: int):
        super().__init__(dims, classes)
        self.by = list(dims)[self.gating]
        self.gated = [m for m in dims if m != self.by]
        width = max(dims.values())
        if self.gated:
            self.gate = linear(dims[self.by], width)
            self.content = linear(sum(dims[m] for m in self.gated), width)
        self.out = linear(width, classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        f = features[self.by]
        if self.gated:
            content = self.content(torch.cat([features[m] for m in self.gated], dim=1))
            f = torch.sigmoid(self.gate(f)) * (self.params.offset + content)
        return self.out(f)


@fusions.register("gated_reversed", additive=False)
class GatedReversed(Gated):
    """Gated fusion in which the last modality gates the others."""

    gating = -1
