"""TCMax: total correlation maximisation (ICLR 2026).

    F(j, k) = fusion(f_a,j, f_v,k)                       logits (C,) of every pair of samples in the batch of B
    L = -mean_i log [exp F(i, i)_{y_i} / sum_{j, k, c} exp F(j, k)_c] - M log B

No cross-entropy. The prediction is the fusion's: the arg max of F(i, i) over classes is that of the posterior. For a
fusion that is a sum over modalities the sum factorises, for any M:

    log sum_{j, k, c} exp F(j, k)_c = logsumexp_c sum_m logsumexp_j z_m[j, c]

Other fusions need all B^2 pairs, so that they are refused for more than two modalities.

What the authors' code does otherwise (TCMax, src/utils/losses.py): it subtracts the mean before exp, which overflows
for large logits. Its constant is -log B, the paper's (as recalled) -log(B^2 C): no gradient depends on it. Here it is
-M log B, so that the mean over pairs is compared and epochs with a smaller last batch are alike.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import Method, Quantity, methods
from pipeline_src.models.base import fusion_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from pipeline_src.methods.base import Batch, Context, MethodParams, Output, Setting


def total_correlation(chosen: Tensor, everything: Tensor, batch: int, modalities: int) -> Tensor:
    """L () from F(i, i)_{y_i} (B,) and log sum_{j, k, c} exp F(j, k)_c ()."""
    return everything - chosen.mean() - modalities * math.log(batch)


def factorised(logits: Tensor) -> Tensor:
    """log sum over all combinations and classes () of a sum of unimodal logits (M, B, C)."""
    return logits.logsumexp(dim=1).sum(dim=0).logsumexp(dim=0)


def paired(fusion: Callable[[Mapping[str, Tensor]], Tensor], features: Mapping[str, Tensor]) -> Tensor:
    """log sum over all pairs and classes () of any fusion of two modalities' features {m: (B, D_m)}."""
    (a, first), (b, second) = features.items()
    n = len(first)
    pairs = {a: first.repeat_interleave(n, dim=0), b: second.repeat(n, 1)}
    return fusion(pairs).float().flatten().logsumexp(dim=0)


@methods.register("tcmax")
class TCMax(Method):
    """Maximises the total correlation of modalities and label instead of minimising cross-entropy."""

    family = "losses"
    quantities = (Quantity("total_correlation", "nats", "Negative lower bound of the total correlation.", of="model"),)

    @classmethod
    def refuses(cls, params: MethodParams, setting: Setting) -> str | None:
        if why := setting.lacks(classes=True, no_taps=True):
            return why
        count = len(setting.modalities)
        if not setting.additive and count != 2:
            return f"expected two modalities for a fusion that is no sum, {setting.fusion!r}, but got {count}"
        return None

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        model, features = ctx.model, output.features
        if fusion_facts(model.fusion.name).additive:
            everything = factorised(torch.stack(list(self.unimodal(model, features).values())).float())
        else:
            everything = paired(model.fusion, features)
        chosen = output.logits.float().gather(1, batch.label[:, None])
        loss = total_correlation(chosen, everything, len(batch.label), len(features))
        return {"total_correlation": loss}
