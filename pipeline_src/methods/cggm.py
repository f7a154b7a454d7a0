"""CGGM: classifier-guided gradient modulation (Guo et al., NeurIPS 2024, arXiv:2411.01409 as recalled).

Each modality has a linear classifier of its own on features without their gradient, z_m = c_m(sg(f_m)).

    d_m = a_m(t) - a_m(t - 1)                  a_m(t): accuracy of z_m on batch t; 0 before the first
    k_m = (D - d_m) / (D + 1e-8)               D = sum_m d_m
    gradients of encoder m are multiplied by rho k_m, then all but the classifiers' are clipped to a norm of `clip`
    R   = (sum_m |k_m| - sum_m k_m cos_m) / M
    L   = CE(z, y) + lambda R + sum_m CE(z_m, y)      prediction: the fusion's z

Read in the authors' code (CGGM, msatrain.py, foodtrain.py). `direction` says what R does:
- released (default, as checked against the code): cos_m is of the classifier's and the fusion's output weights and
  has no gradient, so R changes nothing in training; it is left out here.
- paper: cos_m of their gradients, g_m = E_m^T f_m and E^T f_m, with E = dCE/dz. For a linear fusion these are the
  gradients of its weights W_m. How the paper differentiates it was not read; here R reaches fusion and encoders by E
  alone, and k_m is that of the batch before [extension].

Where D is near 0, k_m explodes, and where D is below 0 it turns the gradient round, as released: one step of accuracy
is 1 / B, so D is often 0. `floor` keeps |D| from it [extension], off by default. A third party measured less than joint
training on CREMA-D (50.2 against 61.6, five seeds).

Ours: the released classifiers have an optimiser of their own (5e-4); here they share the model's [extension].

In metrics.jsonl, means over the steps: unimodal_loss/m, batch_accuracy/m, coefficient/m = rho k_m, and direction,
lambda R.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import MethodParams, Output, Quantity, methods
from pipeline_src.methods.classifiers import Classifiers

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_src.methods.base import Batch, Context, Setting

TINY = 1e-8  # of the released code


def coefficients(gain: Tensor, floor: float | None = None) -> Tensor:
    """k (M,) from the gains of accuracy d (M,)."""
    total = gain.sum()
    divisor = total + TINY
    if floor is not None:
        divisor = torch.where(total < 0, -1.0, 1.0) * total.abs().clamp(min=floor)
    return (total - gain) / divisor


def direction(coefficient: Tensor, cosine: Tensor) -> Tensor:
    """R () from k and cos (M,)."""
    return (coefficient.abs().sum() - (coefficient * cosine).sum()) / len(cosine)


class CGGMParams(MethodParams):
    rho: float = Field(1.3, ge=0, le=1e6, description="factor on the encoders' gradients; released 1.3")
    direction: Literal["released", "paper"] = Field(
        "released", description="R: as released it has no gradient and changes nothing; paper: cosines of gradients"
    )
    weight: float = Field(0.2, ge=0, le=1e6, description="lambda; released 0.2 (sentiment), 0.05 (Food)")
    clip: float = Field(0.8, gt=0, le=1e30, description="largest norm of the gradients; released 0.8")
    floor: float | None = Field(
        None, gt=0, le=1, description="least |D| that is divided by [extension]; null: D + 1e-8, as released"
    )


@methods.register("cggm")
class CGGM(Classifiers):
    """Scales each encoder's gradient by how little its own classifier gained since the last batch."""

    family = "gradients"
    Params = CGGMParams
    quantities = (
        Quantity("unimodal_loss", "nats", "Cross-entropy of each modality's own classifier."),
        Quantity("batch_accuracy", "", "Accuracy of a modality's own classifier on the batch.", limits=(0.0, 1.0)),
        Quantity("coefficient", "", "Factor on an encoder's gradient.", reference=1.0, detail=True),
        Quantity("direction", "", "Direction loss R, with its weight.", of="model", detail=True),
    )

    @classmethod
    def refuses(cls, params: CGGMParams, setting: Setting) -> str | None:
        return setting.lacks(modalities=2, classes=True, no_frozen=True)

    @classmethod
    def extension(cls, params: CGGMParams, setting: Setting) -> str | None:
        if params.direction == "paper":
            return "CGGM with classifiers in the model's optimiser and a direction loss that is differentiated our way"
        return "CGGM with classifiers in the model's optimiser"

    def __init__(self, params: CGGMParams) -> None:
        super().__init__(params)
        self.accuracy: Tensor | None = None  # a of the last batch (M,)
        self.coefficient: Tensor | None = None  # k of the last batch (M,)

    def on_train_start(self, ctx: Context) -> None:
        count, device = len(ctx.model.modalities), ctx.labels("train").device
        self.accuracy, self.coefficient = torch.zeros(count, device=device), torch.zeros(count, device=device)

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        p, losses = self.params, super().loss(ctx, output, batch)
        held = output.features.replaced({m: f.detach() for m, f in output.features.items()})
        logits = self.unimodal(ctx.model, held)
        losses |= {f"unimodal_loss/{m}": ctx.task.loss(z, batch.label) for m, z in logits.items()}
        if p.direction == "paper" and p.weight:
            cosine = self._cosines(ctx, output, batch, logits)
            losses["direction"] = p.weight * direction(self.coefficient, cosine)
        with torch.no_grad():
            accuracy = torch.stack([ctx.task.right(z, batch.label).float().mean() for z in logits.values()])
            self.coefficient = coefficients(accuracy - self.accuracy, p.floor)
            self.accuracy = accuracy
        for i, m in enumerate(logits):
            ctx.log(f"batch_accuracy/{m}", accuracy[i])
            ctx.log(f"coefficient/{m}", p.rho * self.coefficient[i])
        return losses

    def _cosines(self, ctx: Context, output: Output, batch: Batch, logits: dict[str, Tensor]) -> Tensor:
        """cos (M,) of the gradients that a linear layer on f_m has from z_m and from z; differentiable by z alone."""
        with torch.autocast(output.logits.device.type, enabled=False):
            z = output.logits.float()
            error = torch.autograd.grad(ctx.task.loss(z, batch.label), z, create_graph=True)[0]
            cosines = []
            for m, own in logits.items():
                leaf, f = own.detach().float().requires_grad_(), output.features[m].detach().float()
                alone = torch.autograd.grad(ctx.task.loss(leaf, batch.label), leaf)[0]
                cosines.append(torch.cosine_similarity((alone.T @ f).flatten(), (error.T @ f).flatten(), dim=0))
        return torch.stack(cosines)

    def after_backward(self, ctx: Context, output: Output, batch: Batch) -> None:
        factors = self.params.rho * self.coefficient
        for encoder, factor in zip(ctx.model.encoders.values(), factors.unbind(), strict=True):
            torch._foreach_mul_([w.grad for w in ctx.parameters(encoder).values() if w.grad is not None], factor)
        modulated = [p for part in (ctx.model.encoders, ctx.model.fusion) for p in ctx.parameters(part).values()]
        torch.nn.utils.clip_grad_norm_(modulated, self.params.clip)

    def state_dict(self) -> dict[str, Tensor]:
        return {} if self.accuracy is None else {"accuracy": self.accuracy, "coefficient": self.coefficient}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.accuracy, self.coefficient = state.get("accuracy"), state.get("coefficient")
