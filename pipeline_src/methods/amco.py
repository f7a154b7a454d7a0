"""AMCo: adaptive mask co-optimization (Zhou et al., "Adaptive mask co-optimization for modal dependence in multimodal
learning", ICASSP 2023, DOI 10.1109/ICASSP49357.2023.10096641), as in BalanceBenchmark.

z_m are the fusion's unimodal logits, which add up to its output; a layer V of C x C follows the sum.

    s_m   = mean_i sum_c softmax([z_1, ..., z_M])_i,(m,c)    over the logits of all modalities together
    d_m   = s_m > sigma                                      m is dependent: its logits are masked in the next batch
    l     = rate e b                                         in batch b of epoch e, both from 0; rate 0.1
    p     = sin(pi/2 min(l, eps) / eps)                      eps 0.3
    k     = 0 for floor(p C) classes, drawn for each batch, else 1
    z'_m  = k z_m if d_m else z_m
    L     = CE(V sum_m z'_m, y) + sum_m CE(z'_m, y)

The paper itself was not read, only its abstract: the equations are BalanceBenchmark's. No modality is dependent at the
start of an epoch. From the fourth epoch on, all classes of a dependent modality are masked from the second batch on;
then no loss reaches its encoder. `mask_unimodal: false` [extension] keeps the unimodal losses whole, so that the
encoder goes on. V starts as the identity (ours). Prediction: V sum_m z_m; a modality alone predicts by V z_m + v / M.

In metrics.jsonl, means over the steps: unimodal_loss/m, mass/m, which is s_m, and dependent/m.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import Method, MethodParams, Quantity, methods

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipeline_src.methods.base import Batch, Context, Output, Setting
    from pipeline_src.models.fusions.base import Features
    from pipeline_src.models.multimodal import MultimodalModel


def mass(logits: Tensor) -> Tensor:
    """s (M,) of logits (M, B, C): each modality's part of one softmax over all of a sample's logits; its sum is 1."""
    modalities, batch, classes = logits.shape
    together = logits.transpose(0, 1).reshape(batch, modalities * classes).softmax(dim=1)
    return together.view(batch, modalities, classes).sum(dim=2).mean(dim=0)


def masked_classes(epoch: int, batch: int, classes: int, rate: float, eps: float) -> int:
    """floor(p C), the number of classes masked in a batch of an epoch, both from 0."""
    return int(math.sin(math.pi / 2 * min(rate * epoch * batch, eps) / eps) * classes)


class AMCoParams(MethodParams):
    sigma: float = Field(0.5, ge=0, le=1, description="of the mass, above which a modality is dependent; published 0.5")
    eps: float = Field(0.3, gt=0, le=1e6, description="l at which all classes are masked; published 0.3")
    rate: float = Field(0.1, ge=0, le=1e6, description="growth of l per batch and epoch; BalanceBenchmark 0.1")
    mask_unimodal: bool = Field(True, description="mask in the unimodal losses as well; BalanceBenchmark does")


@methods.register("amco")
class AMCo(Method):
    """Masks classes of a modality that dominates the prediction, more of them as training goes on."""

    family = "features"
    Params = AMCoParams
    params: AMCoParams
    quantities = (
        Quantity("unimodal_loss", "nats", "Cross-entropy of each modality's unimodal logits."),
        Quantity("mass", "", "Part of a modality in one softmax over the logits of all.", limits=(0, 1)),
        Quantity("dependent", "", "Part of the batches in which it was dependent.", limits=(0, 1), detail=True),
    )

    @classmethod
    def refuses(cls, params: AMCoParams, setting: Setting) -> str | None:
        return setting.lacks(modalities=2, classes=True, additive=True)

    @classmethod
    def extension(cls, params: AMCoParams, setting: Setting) -> str | None:
        return None if params.mask_unimodal else "AMCo with unimodal losses that are not masked"

    def __init__(self, params: AMCoParams) -> None:
        super().__init__(params)
        self.dependent: Tensor | None = None  # (M,) bool, of the last batch

    def modules(self, dims: dict[str, int], classes: int) -> dict[str, nn.Module]:
        last = torch.nn.Linear(classes, classes)
        torch.nn.init.eye_(last.weight)
        torch.nn.init.zeros_(last.bias)
        return {"last": last}

    def logits(self, model: MultimodalModel, features: Features) -> Tensor:
        return model.extra["last"](model.fusion(features))

    def unimodal(self, model: MultimodalModel, features: Features) -> dict[str, Tensor]:
        last, parts = model.extra["last"], model.fusion.unimodal(features)
        return {m: z @ last.weight.T + last.bias / len(parts) for m, z in parts.items()}

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        p, task = self.params, ctx.task
        parts = ctx.model.fusion.unimodal(output.features)
        logits = torch.stack(list(parts.values()))  # (M, B, C)
        if ctx.batch == 0 or self.dependent is None:
            self.dependent = torch.zeros(len(parts), dtype=torch.bool, device=logits.device)
        keep = torch.ones(ctx.classes, dtype=logits.dtype, device=logits.device)
        gone = masked_classes(ctx.epoch, ctx.batch, ctx.classes, p.rate, p.eps)
        keep[torch.randperm(ctx.classes, generator=ctx.device_rng, device=logits.device)[:gone]] = 0
        masked = logits * torch.where(self.dependent[:, None, None], keep, 1)
        losses = {"loss": task.loss(ctx.model.extra["last"](masked.sum(dim=0)), batch.label)}
        alone = masked if p.mask_unimodal else logits
        losses |= {f"unimodal_loss/{m}": task.loss(z, batch.label) for m, z in zip(parts, alone, strict=True)}
        with torch.no_grad():
            masses = mass(masked.float())
        for m, s, was in zip(parts, masses, self.dependent, strict=True):
            ctx.log(f"mass/{m}", s)
            ctx.log(f"dependent/{m}", was.float())
        self.dependent = masses > p.sigma
        return losses

    def state_dict(self) -> dict[str, Tensor]:
        return {} if self.dependent is None else {"dependent": self.dependent}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.dependent = state.get("dependent")
