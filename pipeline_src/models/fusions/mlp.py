"""Several layers on all features: z = W ReLU(V [f_1; ...; f_M] + v) + b, with a hidden layer as wide as the widest f_m.

A modality's share of z cannot be split off. Its unimodal logits are the prediction with the other modalities' features
set to zero, as Wei et al. propose for several layers (TPAMI 2024, arXiv:2410.11582, Sec. 4.3.7; second-hand).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline_src.models.base import fusions
from pipeline_src.models.fusions.base import Fusion, linear


@fusions.register("mlp", additive=False)
class MLP(Fusion):
    def __init__(self, dims: dict[str, int], classes: int):
        super().__init__(dims, classes)
        hidden = max(dims.values())
        self.hidden = linear(sum(dims.values()), hidden)
        self.out = linear(hidden, classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.out(torch.relu(self.hidden(torch.cat([features[m] for m in self.dims], dim=1))))
