"""MMPareto: Pareto integration of multimodal and unimodal gradients (Wei and Hu, ICML 2024, arXiv:2405.17730).

Each modality has a linear classifier of its own, z_m = c_m(f_m). Of each encoder, g is the gradient of the joint loss
CE(z, y) and u that of the modality's own loss CE(z_m, y), as vectors over the encoder's parameters.

    k      = 1/2                                          if cos(g, u) > 0
    k      = argmin_{k in [0, 1]} |k g + (1 - k) u|       else: the min-norm point between g and u
    h_p    = 2 k g_p + 2 (1 - k) u_p                      for every parameter tensor p of the encoder
    grad_p = gamma h_p max(1, |g_p + u_p| / |h_p|)        gamma = 1.5

Fusion and classifiers keep the gradient of the sum of all losses. With k = 1/2 the result is gamma (g + u), so the
method also trains encoders at gamma times the learning rate. Prediction: the fusion's z.

What the authors' code does otherwise (MMPareto_ICML2024), and where it can be chosen:
- It rescales tensor by tensor; the paper (as recalled) rescales the whole gradient of an encoder: `norm`.
- Its solver returns k = 0.999 or 0.001 where the min-norm point is an end of the segment. So it does here.
- Its inner products count every gradient twice, which changes no quotient. |h_p| = 0 is 0 / 0 there; here |h_p| counts
  as 1e-12 at least.
- It makes four backward passes. A unimodal loss reaches its own encoder only, so two give the same gradients. A fusion
  that writes hidden states is refused, as a unimodal loss would reach the other encoders there.

In metrics.jsonl, means over the steps: unimodal_loss/m, cosine/m of g and u, and weight/m, k.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import MethodParams, Quantity, methods
from pipeline_src.methods.classifiers import Classifiers
from pipeline_src.models.base import added

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipeline_src.methods.base import Batch, Context, Output, Setting

NORM_FLOOR = 1e-12
END = 0.001  # of the released solver: an end of the segment is not reached

Norm = Literal["tensor", "encoder"]


def min_norm(gg: Tensor, uu: Tensor, gu: Tensor) -> Tensor:
    """k () of the shortest k g + (1 - k) u, from the inner products <g, g>, <u, u> and <g, u>, each ()."""
    inside = (uu - gu) / (gg + uu - 2 * gu).clamp(min=NORM_FLOOR)
    return torch.where(gu >= gg, 1 - END, torch.where(gu >= uu, END, inside))


def inner(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """<a, b> ()."""
    return torch.stack([x.sum() for x in torch._foreach_mul(a, b)]).sum()


def share(g: list[Tensor], u: list[Tensor]) -> tuple[Tensor, Tensor]:
    """k () and the cosine () of an encoder's two gradients, lists of tensors of the same shapes."""
    gg, uu, gu = (inner(a, b) for a, b in ((g, g), (u, u), (g, u)))
    cosine = gu / (gg.sqrt() * uu.sqrt()).clamp(min=NORM_FLOOR)
    return torch.where(cosine > 0, 0.5, min_norm(gg, uu, gu)), cosine


def mix(g: list[Tensor], u: list[Tensor], k: Tensor, gamma: float, norm: Norm = "tensor") -> list[Tensor]:
    """The gradients that replace g + u: each as long as the sum at least, times gamma."""
    sums = torch.stack(torch._foreach_norm(torch._foreach_add(g, u)))
    h = torch._foreach_mul(g, 2 * k)
    torch._foreach_add_(h, torch._foreach_mul(u, 2 * (1 - k)))
    lengths = torch.stack(torch._foreach_norm(h))
    if norm == "encoder":
        lengths, sums = (x.norm().expand_as(x) for x in (lengths, sums))
    factors = gamma * (sums / lengths.clamp(min=NORM_FLOOR)).clamp(min=1)
    torch._foreach_mul_(h, list(factors.unbind()))
    return list(h)


class MMParetoParams(MethodParams):
    gamma: float = Field(1.5, gt=0, le=1e6, description="factor on the encoders' gradients; released 1.5")
    norm: Norm = Field(
        "tensor",
        description="what keeps at least the length of g + u: each tensor, as released, or the encoder's whole "
        "gradient, as the paper is recalled to write",
    )


@methods.register("mmpareto")
class MMPareto(Classifiers):
    """Adds unimodal losses and, where their gradient conflicts with the joint one, steps between the two."""

    family = "gradients"
    Params = MMParetoParams
    params: MMParetoParams
    quantities = (
        Quantity("unimodal_loss", "nats", "Cross-entropy of each modality's own classifier."),
        Quantity(
            "cosine",
            "",
            "Cosine of the joint and the unimodal gradient of an encoder; below 0 they conflict.",
            reference=0.0,
            limits=(-1.0, 1.0),
        ),
        Quantity(
            "weight", "", "Weight k of the joint gradient in an encoder's step.", reference=0.5, limits=(0.0, 1.0)
        ),
    )

    @classmethod
    def refuses(cls, params: MMParetoParams, setting: Setting) -> str | None:
        return setting.lacks(no_writes=True, no_frozen=True)

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        return super().loss(ctx, output, batch) | self.unimodal_losses(ctx, output, batch)

    def backward(self, ctx: Context, losses: dict[str, Tensor], output: Output, batch: Batch) -> None:
        parameters = [(name, p) for name, p in ctx.parameters().items() if p.requires_grad]
        gradients = ctx.gradients(losses["loss"], [p for _, p in parameters])
        ctx.backward(added(value for name, value in losses.items() if name != "loss"))
        both: dict[str, list[tuple[nn.Parameter, Tensor]]] = {m: [] for m in ctx.model.encoders}
        for (name, p), g in zip(parameters, gradients, strict=True):
            part, _, rest = name.partition(".")
            if p.grad is None:
                p.grad = g
            elif part == "encoders":
                both[rest.partition(".")[0]].append((p, g))
            else:
                p.grad += g
        with torch.no_grad():
            for m, pairs in both.items():
                g, u = [g for _, g in pairs], [p.grad for p, _ in pairs if p.grad is not None]
                k, cosine = share(g, u)
                for (p, _), h in zip(pairs, mix(g, u, k, self.params.gamma, self.params.norm), strict=True):
                    p.grad = h
                ctx.log(f"cosine/{m}", cosine)
                ctx.log(f"weight/{m}", k)
