"""MBSD: multi-modal mutual self-distillation (WSDM 2023, DOI 10.1145/3539597.3570423), as in BalanceBenchmark.

    p_m,i = softmax(z_m,i)[y_i],  w_i = |p_a,i - p_v,i| where either modality is right, else 0
    L = CE(z, y) + sum_m CE(z_m, y) + mean_i w_i [mean_c (z_a,i - z_v,i)^2 + KL(p(z_s,i) | p(z_w,i))]

z_m are the fusion's unimodal logits, s and w the modality with the larger and the smaller p_i. The paper itself was not
read: the equations are BalanceBenchmark's, corrected where its code takes `kl_div` of probabilities instead of their
logarithms, and of the true class alone. Its comparison of probabilities for three modalities, of logits for two, is
logits for both here; more than two are compared by pairs [extension]. Prediction: the fusion's z.

In metrics.jsonl, means over the steps: unimodal_loss/m and distillation.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import Method, Quantity, methods

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_src.methods.base import Batch, Context, MethodParams, Output, Setting


def distillation(first: Tensor, second: Tensor, truth: Tensor, right: Tensor) -> Tensor:
    """The last term () of two modalities' logits (B, C); truth (2, B) are p_a and p_v, right (B,): either is right."""
    weight = (truth[0] - truth[1]).abs() * right
    apart = (first - second).square().mean(dim=1)
    log_p, log_q = first.log_softmax(dim=1), second.log_softmax(dim=1)
    ahead = (truth[0] >= truth[1])[:, None]
    strong, weak = torch.where(ahead, log_p, log_q), torch.where(ahead, log_q, log_p)
    divergence = (strong.exp() * (strong - weak)).sum(dim=1)
    return (weight.detach() * (apart + divergence)).mean()


@methods.register("mbsd")
class MBSD(Method):
    """Lets the modality that is surer of the truth teach the other, sample by sample."""

    family = "losses"
    quantities = (
        Quantity("unimodal_loss", "nats", "Cross-entropy of each modality's unimodal logits."),
        Quantity("distillation", "", "Distance between the modalities' predictions, weighted by sample.", of="model"),
    )

    @classmethod
    def refuses(cls, params: MethodParams, setting: Setting) -> str | None:
        return setting.lacks(modalities=2, classes=True)

    @classmethod
    def extension(cls, params: MethodParams, setting: Setting) -> str | None:
        return "MBSD for more than two modalities, by pairs" if len(setting.modalities) > 2 else None

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        losses, task = super().loss(ctx, output, batch), ctx.task
        logits = {m: z.float() for m, z in self.unimodal(ctx.model, output.features).items()}
        losses |= {f"unimodal_loss/{m}": task.loss(z, batch.label) for m, z in logits.items()}
        with torch.no_grad():
            truth = {m: task.confidence(z, batch.label) for m, z in logits.items()}
            right = {m: task.right(z, batch.label) for m, z in logits.items()}
        terms = [
            distillation(logits[a], logits[b], torch.stack([truth[a], truth[b]]), right[a] | right[b])
            for a, b in itertools.combinations(logits, 2)
        ]
        return losses | {"distillation": torch.stack(terms).mean()}
