"""OGM: on-the-fly gradient modulation, and OGM-GE, the same with Gaussian noise for generalisation.

Peng et al., CVPR 2022, arXiv:2203.15332 (OGM, GE); Wei et al., TPAMI 2024, arXiv:2410.11582 (the journal's scale).

    s_m   = sum_i softmax(z_m,i)[y_i]                        Eq. 8   z_m: logits (B, C) of modality m, from the fusion
    rho_m = s_m / s_j                                        Eq. 9   two modalities; for more, `others` in `discrepancy`
    k_m   = 1 - tanh(alpha rho_m)      if rho_m > 1 else 1   Eq. 10  scale: cvpr
    k_m   = 1 - alpha tanh(rho_m - 1)  if rho_m > 1 else 1   TPAMI   scale: tpami; not below 0
    g_m  <- k_m g_m + h_m,  h_m ~ N(0, sd(g_m)^2)            Algorithm 1; h_m in GE only; g_m: gradients of encoder m

alpha = 0 is joint training for OGM. It is not for OGM-GE, which adds noise to an encoder whose k is 1, too.

Two released variants strengthen the modalities that are behind, and leave those that are ahead as they are:

    k_m   = 1 + tanh(alpha / rho_m)    if rho_m < 1 else 1   scale: acc
    k_m   = factor                     if rho_m < 1 else 1   scale: star; as released, factor = 4

acc is "Acc" of PMR's Fig. 2b (Fan et al., CVPR 2023, arXiv:2211.07089), as in its code: of two modalities, 1 / rho_m is
the ratio of the other. star is OGM* of TPAMI's code, which has no alpha.

What the authors' code does otherwise (OGM-GE_CVPR2022, BML_TPAMI2024), and where it can be chosen:
- It scales convolutions' weights only, while the papers write of the encoder's parameters: `weights`.
- The paper's noise has the covariance of the gradient's own noise. The code's has one deviation per tensor, that of the
  entries of the batch's gradient before it is scaled, plus 1e-8. So is it here: the covariance is out of reach.
- It adds noise to every encoder, scaled or not: `noise`.
- The code for TPAMI keeps the scale of CVPR. The journal's scale is known here second-hand; with alpha > 1 it becomes
  negative, which would turn the gradient round, so it ends at 0.
- Its share of concatenated features has half the bias, of added ones the whole of its own: so have the fusions here.
- With FiLM and gated fusion it cannot run. Here such a fusion predicts with the other modalities removed (TPAMI, Sec.
  4.3.7).
Ours: a score counts as 1e-8 at least in a ratio, so that ratios and what is logged stay finite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_src.core.errors import UserError
from pipeline_src.core.lazy import torch
from pipeline_src.core.params import LARGE
from pipeline_src.methods import discrepancy
from pipeline_src.methods.base import Batch, Context, Method, Output, Phase, Quantity, Setting, WindowParams, methods

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Generator, Tensor, nn

NOISE_FLOOR = 1e-8  # of the released code

Scale = Literal["cvpr", "tpami", "acc", "star"]
Weights = Literal["conv", "matrix", "all"]


def coefficients(
    ratios: dict[str, Tensor], alpha: float, scale: Scale = "cvpr", factor: float = 4.0
) -> dict[str, Tensor]:
    """k_m from the ratios, {m: ()} both, finite for any ratio: in [0, 1] and 1 up to a ratio of 1 where what is ahead
    is scaled; 1 or more, and 1 from a ratio of 1 on, where what is behind is (`acc`, `star` by `factor`).
    """
    rho = torch.stack(list(ratios.values()))
    if scale in ("acc", "star"):
        ahead = (1 / rho).clamp(max=torch.finfo(rho.dtype).max)
        rise = 1 + torch.tanh(alpha * ahead) if scale == "acc" else torch.full_like(rho, factor)
        k = torch.where(rho < 1, rise, 1)
    else:
        rho = rho.clamp(max=torch.finfo(rho.dtype).max)  # alpha = 0 times an infinite ratio is to be 0
        fall = torch.tanh(alpha * rho) if scale == "cvpr" else alpha * torch.tanh(rho - 1)
        k = torch.where(rho > 1, (1 - fall).clamp(min=0), 1)
    return dict(zip(ratios, k.unbind(), strict=True))


def deviations(gradients: list[Tensor]) -> list[Tensor]:
    """Standard deviation () over the entries of each gradient (0 of a single one), and 1e-8 more."""
    # From sums, var = (sum g^2 - (sum g)^2 / n) / (n - 1): four times as fast as Tensor.std on a CPU, few kernels on a
    # GPU. What the subtraction loses is below 1e-3 of the mean, and a gradient's mean is small beside its deviation.
    counts = [g.numel() for g in gradients]
    variances = torch._foreach_norm(gradients)
    torch._foreach_mul_(variances, variances)
    means = [g.sum() for g in gradients]
    torch._foreach_mul_(means, means)
    torch._foreach_div_(means, counts)
    torch._foreach_sub_(variances, means)
    torch._foreach_div_(variances, [max(n - 1, 1) for n in counts])
    torch._foreach_clamp_min_(variances, 0.0)
    torch._foreach_sqrt_(variances)
    torch._foreach_add_(variances, NOISE_FLOOR)
    return list(variances)


def modulate_(gradients: list[Tensor], coefficient: Tensor) -> None:
    """g <- k g, in place."""
    torch._foreach_mul_(gradients, coefficient)


def add_noise_(gradients: list[Tensor], sigmas: list[Tensor], generator: Generator) -> None:
    """g <- g + h, h ~ N(0, sigma^2) for each entry, in place; one sigma () per gradient."""
    for g, sigma in zip(gradients, sigmas, strict=True):
        # Drawn flat and laid out as the gradient lies: on a CPU six times as fast as into a channels-last tensor.
        noise = torch.randn(g.numel(), generator=generator, device=g.device, dtype=g.dtype)
        g.addcmul_(noise.as_strided(g.shape, g.stride()), sigma)


class OGMParams(WindowParams):
    alpha: float = Field(
        default=0.8,
        ge=0,
        le=LARGE,
        allow_inf_nan=False,
        description="strength; 0 is joint training, but star has none. Published: CREMA-D 0.8, VGGSound 0.1 (CVPR "
        "2022, README), Kinetics-Sounds 0.8 (TPAMI 2024), CREMA-D 2.6 (TPAMI 2024, with GE, AdamW, its issue 3)",
    )
    scale: Scale = Field(
        default="cvpr",
        description="cvpr: 1 - tanh(alpha rho), the form of Eq. 10 and of both papers' code; "
        "tpami: 1 - alpha tanh(rho - 1), at least 0, which does not jump at rho = 1; acc: 1 + tanh(alpha / rho) for "
        "the modalities that are behind (Acc of PMR's Fig. 2b); star: `factor` for these (OGM* of TPAMI 2024)",
    )
    factor: float = Field(
        default=4.0,
        ge=1,
        le=LARGE,
        allow_inf_nan=False,
        description="of scale star: the gradients of a modality that is behind are multiplied by it; released 4",
    )
    weights: Weights = Field(
        default="matrix",
        description="what of an encoder is scaled. conv: weights of 4 dimensions, as released; matrix: of 2 or more, "
        "the same on a residual network and not nothing on other encoders; all: every parameter, as the paper writes",
    )
    first_epoch: int = Field(
        default=0,
        ge=0,
        description="first epoch, from 0, with modulation; published 0, 20 with alpha 0.3 (CVPR 2022), 6 (TPAMI 2024)",
    )
    last_epoch: int | None = Field(
        default=None,
        ge=0,
        description="last epoch, from 0 and included; null: the run's last. Published, of 100: 50, 80 with alpha 0.3 "
        "(CVPR 2022), 60 Kinetics-Sounds, 80 CREMA-D (TPAMI 2024)",
    )
    others: discrepancy.Others = Field(
        default="mean",
        description="more than two modalities: mean of the ratios to the others (TPAMI 2024, Eq. 6, advised by the "
        "authors for CVPR 2022's OGM, too), or ratio to the min of their scores (an extension, as BalanceBenchmark)",
    )


class OGMGEParams(OGMParams):
    noise: Literal["all", "modulated"] = Field(
        default="all",
        description="which encoders get noise. all: every one in every step, as Algorithm 1 and the released code; "
        "modulated: those whose coefficient is not 1, the only ones whose own noise has changed",
    )


@methods.register("ogm")
class OGM(Method):
    """Scales the gradients of the encoders that are ahead, or of those that are behind."""

    family = "gradients"
    Params = OGMParams
    params: OGMParams
    quantities = (
        *(discrepancy.SCORE, discrepancy.RATIO),
        Quantity("coefficient", "", "The factor that the encoder's gradient is multiplied by.", reference=1.0),
        Quantity("modulated_tensors", "tensors", "The encoder's parameter tensors that are scaled.", detail=True),
    )

    @classmethod
    def refuses(cls, params: OGMParams, setting: Setting) -> str | None:
        return setting.lacks(modalities=2, no_frozen=True) or params.beyond(setting.epochs)

    @classmethod
    def extension(cls, params: OGMParams, setting: Setting) -> str | None:
        if len(setting.modalities) > 2 and params.others == "min":
            return "OGM for more than two modalities by the ratio to the smallest of the other scores"
        if len(setting.modalities) > 2 and params.scale in ("acc", "star"):
            return "OGM that strengthens what is behind has two modalities; here each is compared with the others"
        return None

    def before_epoch(self, ctx: Context) -> list[Phase]:
        p = self.params
        for m, encoder in ctx.model.encoders.items():
            tensors = selected(ctx.parameters(encoder).values(), p.weights)
            if not tensors:
                raise UserError(
                    f"methods.{self.name}.weights: expected the encoder of {m!r} to have such weights to train, "
                    f"but got none for {p.weights!r}; choose another (conv, matrix, all)"
                )
            ctx.log(f"modulated_tensors/{m}", len(tensors) * p.within(ctx.epoch))
        return [Phase()]

    def after_backward(self, ctx: Context, output: Output, batch: Batch) -> None:
        p, active = self.params, self.params.within(ctx.epoch)
        with torch.no_grad():
            # In float32, as the fusion's weights are, whatever the precision of the pass was.
            logits = ctx.model.fusion.unimodal({m: f.float() for m, f in output.features.items()})
            score = discrepancy.scores(ctx.task, logits, batch.label)
            ratio = discrepancy.ratios(score, p.others)
            k = coefficients(ratio, p.alpha if active else 0.0, p.scale, p.factor if active else 1.0)
            for m in score:
                ctx.log(f"score/{m}", score[m])
                ctx.log(f"ratio/{m}", ratio[m])
                ctx.log(f"coefficient/{m}", k[m])
                if active:
                    weights = selected(ctx.parameters(ctx.model.encoders[m]).values(), p.weights)
                    self.update(ctx, [w.grad for w in weights if w.grad is not None], k[m])

    def update(self, ctx: Context, gradients: list[Tensor], coefficient: Tensor) -> None:
        """Change one encoder's gradients in place."""
        modulate_(gradients, coefficient)


@methods.register("ogm_ge")
class OGMGE(OGM):
    """OGM, and noise as large as the gradient was."""

    Params = OGMGEParams
    params: OGMGEParams

    def update(self, ctx: Context, gradients: list[Tensor], coefficient: Tensor) -> None:
        sigmas = deviations(gradients)  # before they are scaled
        super().update(ctx, gradients, coefficient)
        if self.params.noise == "modulated":
            torch._foreach_mul_(sigmas, (coefficient != 1).to(coefficient.dtype))
        add_noise_(gradients, sigmas, ctx.device_rng)  # no noise has to be moved to the device


def selected(parameters: Iterable[nn.Parameter], weights: Weights) -> list[nn.Parameter]:
    """Of an encoder's parameters those that are trained and whose gradient is scaled."""
    least, most = {"conv": (4, 4), "matrix": (2, torch.inf), "all": (0, torch.inf)}[weights]
    return [p for p in parameters if p.requires_grad and least <= p.dim() <= most]
