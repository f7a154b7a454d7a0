"""MMCosine: multi-modal cosine loss (Xu, Feng, Zhang and Hu, ICASSP 2023, arXiv:2303.05338).

    z_m[i, c] = s <f_m,i / |f_m,i|, W_m,c / |W_m,c|>,    z = sum_m z_m,    L = CE(z, y)

W_m is modality m's part of the fusion's weight; there is no bias. No modality can gain by long features or weights. The
prediction is z, in training and evaluation alike. A removed modality has z_m = 0.

What the authors' code does otherwise (MMCosine_ICASSP23): `valid` of main_CD.py predicts with the plain fusion and its
untrained bias, main_vox2.py with the cosines; the latter is meant, and done here. Its symmetric versions of FiLM and
gated fusion are other models, so only fusions that are linear in each modality's features serve. The optional NCE term
of the supplement, off by default there, is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import Method, MethodParams, methods

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_src.methods.base import Setting
    from pipeline_src.models.fusions.base import Features
    from pipeline_src.models.multimodal import MultimodalModel


def cosines(features: Tensor, weight: Tensor, scaling: float) -> Tensor:
    """s times the cosines between features (B, D) and the rows of a weight (C, D) -> (B, C)."""
    normalize = torch.nn.functional.normalize
    return scaling * normalize(features, dim=1) @ normalize(weight, dim=1).T


class MMCosineParams(MethodParams):
    scaling: float = Field(10.0, gt=0, le=1e4, description="s; released 10, chosen by dataset; BalanceBenchmark 15")


@methods.register("mmcosine")
class MMCosine(Method):
    """Predicts by cosines, so that no modality wins by long features or weights."""

    family = "fusion weights"
    Params = MMCosineParams
    params: MMCosineParams

    @classmethod
    def refuses(cls, params: MMCosineParams, setting: Setting) -> str | None:
        return setting.lacks(linear=True)

    def unimodal(self, model: MultimodalModel, features: Features) -> dict[str, Tensor]:
        weights = model.fusion.linear_weights()
        return {m: cosines(f, weights[m], self.params.scaling) for m, f in features.items()}

    def logits(self, model: MultimodalModel, features: Features) -> Tensor:
        return torch.stack(list(self.unimodal(model, features).values())).sum(dim=0)
