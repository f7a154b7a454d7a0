"""Concatenation: z = [W_1 ... W_M] [f_1; ...; f_M] + b.

The unimodal logits of m are z_m = W_m f_m + b / M (Peng et al., CVPR 2022, Eq. 8); they add up to z.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import linear as affine

from pipeline_src.models.base import fusions
from pipeline_src.models.fusions.base import Fusion, linear


@fusions.register("concat", additive=True, linear=True)
class Concat(Fusion):
    def __init__(self, dims: dict[str, int], classes: int):
        super().__init__(dims, classes)
        self.joint = linear(sum(dims.values()), classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.joint(torch.cat([features[m] for m in self.dims], dim=1))

    def linear_weights(self) -> dict[str, Tensor]:
        """W_m (C, D_m) of each modality."""
        return dict(zip(self.dims, self.joint.weight.split(list(self.dims.values()), dim=1), strict=True))

    def linear_gradients(self) -> dict[str, list[Tensor]]:
        """Each modality's part of the gradients: views of the blocks of the weight's, the bias is shared."""
        gradient = self.joint.weight.grad
        if gradient is None:
            return {m: [] for m in self.dims}
        parts = gradient.split(list(self.dims.values()), dim=1)
        return {m: [part] for m, part in zip(self.dims, parts, strict=True)}

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        bias = self.joint.bias / len(self.dims)
        return {m: affine(features[m], weight, bias) for m, weight in self.linear_weights().items()}
