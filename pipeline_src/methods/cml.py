"""CML: calibrating multimodal learning (Ma et al., ICML 2023, arXiv:2306.01265).

Modalities leave in a random order, S_1 (all), S_2, ..., S_M (one). A prediction should not get surer by that:

    L = 1/M sum_k CE(z(S_k), y) + lambda mean_i sum_k mask_i,k max(0, conf_i(S_k+1) - conf_i(S_k))

z(S) is the prediction with the modalities outside of S removed, conf the largest class probability. mask_i,k is 0 where
the larger set is right and the smaller one is wrong. The order is drawn once per batch. Prediction: that of all.

Read in the authors' code (QingyangZhang/CML, rank_loss) and in BalanceBenchmark, which takes the maximum after the sum
over the batch, forgets the mask and adds b / M too often. lambda is 0.1. Ours: the mean over the batch instead of the
sum, so that lambda does not depend on the batch size.

In metrics.jsonl, means over the steps: loss and calibration, the two terms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import Method, MethodParams, Quantity, methods
from pipeline_src.models.base import added

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_src.methods.base import Batch, Context, Output, Setting


def calibration(logits: Tensor, right: Tensor) -> Tensor:
    """mean_i sum_k mask max(0, rise of confidence) () from logits (K, B, C) of ever smaller sets, right (K, B) bool."""
    confidence = logits.softmax(dim=2).amax(dim=2)
    rise = (confidence[1:] - confidence[:-1]).clamp(min=0)
    return (rise * ~(right[:-1] & ~right[1:])).sum(dim=0).mean()


class CMLParams(MethodParams):
    weight: float = Field(0.1, ge=0, le=1e6, description="lambda; released 0.1")


@methods.register("cml")
class CML(Method):
    """Keeps the prediction from getting surer as modalities are taken away."""

    family = "losses"
    Params = CMLParams
    params: CMLParams
    quantities = (
        Quantity("calibration", "", "Mean rise of confidence as modalities go, with its weight.", of="model"),
    )

    @classmethod
    def refuses(cls, params: CMLParams, setting: Setting) -> str | None:
        return setting.lacks(modalities=2, classes=True, no_taps=True)

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        features, model = output.features, ctx.model
        order = torch.randperm(len(features), generator=ctx.rng).tolist()
        names = [model.modalities[i] for i in order]
        logits = [output.logits]
        for gone in range(1, len(names)):
            left = {m: torch.zeros_like(f) if m in names[:gone] else f for m, f in features.items()}
            logits.append(self.logits(model, features.replaced(left)))
        with torch.no_grad():
            right = torch.stack([ctx.task.right(z, batch.label) for z in logits])
        return {
            "loss": added(ctx.task.loss(z, batch.label) for z in logits) / len(logits),
            "calibration": self.params.weight * calibration(torch.stack(logits).float(), right),
        }
