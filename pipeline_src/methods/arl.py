"""ARL: asymmetric representation learning (Wei, Luo and Luo, ICCV 2025, arXiv:2507.10203).

    a_m = sum_c mean_i |z_m|,                    as shares of their sum over m
    H_m = mean_i entropy(softmax(z_m,i)),        as shares, floored at 0.3
    k_m = (1 / H_m) / sum_j 1 / H_j
    w   = softmax_m(T a_other k_m)
    gradients that enter encoder m are multiplied by 1 + w_m
    L   = CE(z, y) + gamma_e sum_m CE(z_m, y)    gamma_e = gamma after `warmup_epochs`, 1 before

z_m are the fusion's unimodal logits. All gradients together are clipped to a norm of `clip`.

What the authors' code does otherwise (ICCV2025-ARL, main_arl_variance.py): it computes w and never uses it, so that all
encoders' gradients are multiplied by 1.5: `weights`. Its ResNet path stops with an error. A third party reports that it
could not reproduce the Kinetics-Sounds figure.

More than two modalities [extension]: a_other is the mean over the others, and `released` is 1 + 1 / 2 for each.
In metrics.jsonl, means over the steps: unimodal_loss/m, the unimodal losses with their weight, and weight/m, w_m.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import Method, MethodParams, Quantity, methods

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from pipeline_src.methods.base import Batch, Context, Output, Setting
    from pipeline_src.models.fusions.base import Features

Weights = Literal["paper", "released"]
RELEASED = 0.5  # what the weights of the released code stay at


def contributions(logits: Tensor) -> Tensor:
    """Shares a (M,) from unimodal logits (M, B, C)."""
    size = logits.abs().mean(dim=1).sum(dim=1)
    return size / size.sum()


def inverse_entropies(logits: Tensor, floor: float) -> Tensor:
    """Shares k (M,) from unimodal logits (M, B, C); a share of the entropy counts as `floor` at least."""
    log_p = logits.log_softmax(dim=2)
    entropy = -(log_p.exp() * log_p).sum(dim=2).mean(dim=1)
    inverse = 1 / (entropy / entropy.sum()).clamp(min=floor)
    return inverse / inverse.sum()


def encoder_weights(logits: Tensor, temperature: float, floor: float) -> Tensor:
    """w (M,) from unimodal logits (M, B, C)."""
    a, k = contributions(logits), inverse_entropies(logits, floor)
    others = (a.sum() - a) / (len(a) - 1)
    return torch.softmax(temperature * others * k, dim=0)


class ARLParams(MethodParams):
    weights: Weights = Field(
        "paper", description="w by the equations, or, as the released code runs, 0.5 for every modality"
    )
    temperature: float = Field(8.0, ge=0, le=1e6, description="T; released 8 on CREMA-D, 4 elsewhere")
    floor: float = Field(0.3, gt=0, lt=1, description="least share of the entropy; released 0.3")
    gamma: float = Field(
        4.0, ge=0, le=1e6, description="weight of the unimodal losses; released CREMA-D 4, Kinetics-Sounds 3, AVE 5"
    )
    warmup_epochs: int = Field(5, ge=0, le=1_000_000, description="first epochs with weight 1; released 5")
    clip: float = Field(40.0, gt=0, le=1e30, description="largest norm of all gradients together; released 40")


@methods.register("arl")
class ARL(Method):
    """Pushes the encoder whose predictions are surer and whose partner contributes more."""

    family = "gradients"
    Params = ARLParams
    params: ARLParams
    quantities = (
        Quantity("unimodal_loss", "nats", "Cross-entropy of each modality's unimodal logits, times its weight gamma."),
        Quantity("weight", "", "Weight w of a modality; its encoder's gradient is multiplied by 1 + w."),
    )

    @classmethod
    def refuses(cls, params: ARLParams, setting: Setting) -> str | None:
        return setting.lacks(modalities=2, classes=True)

    @classmethod
    def extension(cls, params: ARLParams, setting: Setting) -> str | None:
        if len(setting.modalities) > 2:
            return "ARL is defined for two modalities; here each is compared with the mean of the others"
        return None

    def on_features(self, ctx: Context, features: Features, batch: Batch) -> tuple[Mapping[str, Tensor], Tensor | None]:
        with torch.no_grad():
            logits = self.unimodal(ctx.model, features.replaced({m: f.float() for m, f in features.items()}))
            w = encoder_weights(torch.stack(list(logits.values())).float(), self.params.temperature, self.params.floor)
        if self.params.weights == "released":
            w = torch.full_like(w, RELEASED)
        for m, weight in zip(features, w.unbind(), strict=True):
            ctx.log(f"weight/{m}", weight)
        scaled = {m: f.detach() + (1 + v) * (f - f.detach()) for (m, f), v in zip(features.items(), w, strict=True)}
        return scaled, None

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        losses = super().loss(ctx, output, batch)
        gamma = self.params.gamma if ctx.epoch >= self.params.warmup_epochs else 1.0
        if gamma:
            logits = self.unimodal(ctx.model, output.features)
            losses |= {f"unimodal_loss/{m}": gamma * ctx.task.loss(z, batch.label) for m, z in logits.items()}
        return losses

    def after_backward(self, ctx: Context, output: Output, batch: Batch) -> None:
        torch.nn.utils.clip_grad_norm_(ctx.parameters().values(), self.params.clip)
