"""OPM: on-the-fly prediction modulation, and OPM with OGM (Wei et al., TPAMI 2024, arXiv:2410.11582).

    Eq. 6-7  s_m, rho_m   scores and ratios of the batch, see `discrepancy`, from the logits that the fusion gives of m
    Eq. 8    q_m = q_base (1 + lambda z(rho_m)) if rho_m > 1 else 0,    z(rho) = tanh(rho - 1), or sigmoid(rho - 1)
             each sample's feature f_m is set to zero with probability q_m, independently of the others

Between encoders and fusion, modalities that are ahead are dropped from some samples, which must then be learnt from the
others. The weakest modality has rho <= 1 by either rule of `others`, so q = 0 and no sample loses every modality.
q_base = 0 is joint training.

The authors' code (BML_TPAMI2024) adds to this. The defaults are the paper's equations; the released variant is:
- probability: same. It drops with the q of the same batch; the paper with that of the batch before (q_{t+1} from
  rho_t), hence nothing in the first.
- execute_probability: 0.7. It drops in 0.7 of the batches, drawn at random; the others stay whole.
- rescale: true. Every kept feature, of every modality, is multiplied by 1 / (1 - theta), where theta = sum_m D_m q_m /
  sum_m D_m is the share of the values that is dropped on average.
- theta_loss: true. Its rescaling gives theta back as the gradient of theta, and theta depends on the features through
  the scores of the same batch. So in the batches that drop it minimises CE + theta^2 / 2, by the encoders alone: the
  fusion's weights are constants of the scores. The paper does not write of it.
- warmup_epochs: 6. It does nothing in the first six epochs; nor does its OGM (first_epoch: 6).
- ogm.noise: all. Where both run, OGM-GE is its default.

As in the code, scores are taken before anything is dropped, those for the next batch and those of OGM too, which
follows in the backward pass where both run, and q is cut at 1. Ours: a score counts as 1e-8 at least in a ratio, so
that ratios are finite. The paper's equations and Sec. 4.3.7 (scores by removal, with a fusion that is no sum over
modalities) are known here second-hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from pipeline_src.core.lazy import torch
from pipeline_src.core.params import LARGE
from pipeline_src.core.upload import upload
from pipeline_src.methods import discrepancy
from pipeline_src.methods.base import Batch, Context, Method, MethodParams, Output, Phase, Quantity, Setting, methods
from pipeline_src.methods.ogm import OGM, OGMGE, OGMGEParams, OGMParams

if TYPE_CHECKING:
    from torch import Tensor


def drop_probabilities(ratio: Tensor, q_base: float, lam: float, z: Z = "tanh") -> Tensor:
    """Eq. 8 for every modality at once: ratios (M,) -> q (M,) in [0, 1]. A ratio that is NaN drops nothing."""
    growth = torch.tanh(ratio - 1) if z == "tanh" else torch.sigmoid(ratio - 1)
    q = (q_base * (1 + lam * growth)).clamp(max=1)
    return torch.where(ratio > 1, q, 0)


def dropped_share(sizes: list[int], q: Tensor) -> Tensor:
    """theta (), the share of the values that is dropped on average: D_m of every modality, q (M,)."""
    return sum(size * q_m for size, q_m in zip(sizes, q.unbind(), strict=True)) / sum(sizes)


def drop(features: dict[str, Tensor], q: Tensor, uniform: Tensor, rescale: bool) -> dict[str, Tensor]:
    """Features {m: (B, D_m)} with a sample's m set to zero where `uniform` (B, M), from [0, 1), is below q (M,).

    `rescale` divides the rest by 1 - theta, which is above 0 as long as one q is below 1: Eq. 8 leaves one at 0.
    """
    factor = (uniform >= q).to(q.dtype)
    if rescale:
        factor = factor / (1 - dropped_share([f.shape[1] for f in features.values()], q))
    columns = factor.split(1, dim=1)  # (B, 1) each
    return {m: f * column.to(f.dtype) for (m, f), column in zip(features.items(), columns, strict=True)}


Z = Literal["tanh", "sigmoid"]


def theta_term(theta: Tensor, leaves: dict[str, Tensor], features: dict[str, Tensor]) -> Tensor:
    """theta^2 / 2 (), as a loss of the features {m: (B, D_m)} alone: theta was computed from `leaves`, their copies."""
    half = theta.square() / 2
    gradients = torch.autograd.grad(half, list(leaves.values()), materialize_grads=True)
    along = torch.stack([(f.float() * g).sum() for f, g in zip(features.values(), gradients, strict=True)]).sum()
    return half.detach() + (along - along.detach())


class OPMParams(MethodParams):
    q_base: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="drop probability at a ratio just above 1; 0 is joint training. Published: 0.5 (TPAMI 2024, script "
        "for Kinetics-Sounds; its arguments replace the 0.4 of its configuration), 0.4 (BalanceBenchmark)",
    )
    lam: float = Field(
        default=0.5,
        ge=0,
        le=LARGE,
        allow_inf_nan=False,
        description="lambda, how far the probability grows with the ratio: up to q_base (1 + lambda), cut at 1. "
        "Published: 0.5 (TPAMI 2024, script; BalanceBenchmark)",
    )
    z: Z = Field(
        default="tanh",
        description="how the probability grows with the ratio. tanh: tanh(rho - 1), from 0, as released; sigmoid: "
        "sigmoid(rho - 1), from 1/2. The paper compares the two functions (Table 15, second-hand); what its sigmoid is "
        "taken of is not known here",
    )
    probability: Literal["previous", "same"] = Field(
        default="previous",
        description="batch whose scores give the probability. previous: the one before, as the paper writes; same: the "
        "one that is dropped from, as released",
    )
    execute_probability: float = Field(
        default=1.0, ge=0, le=1, description="share of batches that drop; 1: as the paper writes; released: 0.7"
    )
    rescale: bool = Field(
        default=False, description="divide kept features by 1 - theta; false: as the paper writes; released: true"
    )
    theta_loss: bool = Field(
        default=False,
        description="also minimise theta^2 / 2 in the batches that drop, as released; it needs rescale: true and "
        "probability: same. false: as the paper writes",
    )
    warmup_epochs: int = Field(
        default=0, ge=0, description="epochs that drop nothing; 0: as the paper writes; released: 6 (Kinetics-Sounds)"
    )
    others: discrepancy.Others = Field(
        default="mean",
        description="more than two modalities: mean of the ratios to the others (TPAMI 2024, Eq. 6), or ratio to the "
        "min of their scores (an extension)",
    )

    @model_validator(mode="after")
    def _theta_is_of_the_batch(self) -> OPMParams:
        if self.theta_loss and not (self.rescale and self.probability == "same"):
            raise ValueError("expected rescale: true and probability: same with theta_loss: true")
        return self


class AddedOGMParams(OGMParams):
    noise: Literal["none", "all", "modulated"] = Field(
        default="none",
        description="which encoders get OGM-GE's noise. none: OPM and OGM; all: every one, as released (OGM-GE "
        "is the default of its arguments); modulated: those whose coefficient is not 1",
    )

    def method(self) -> OGM:
        """OGM, or OGM-GE, with these parameters."""
        values = self.model_dump()
        noise = values.pop("noise")
        return OGM(OGMParams(**values)) if noise == "none" else OGMGE(OGMGEParams(**values, noise=noise))


class OPMOGMParams(MethodParams):
    opm: OPMParams = Field(default=OPMParams(), description="of OPM")
    ogm: AddedOGMParams = Field(default=AddedOGMParams(), description="of OGM, or of OGM-GE with noise")


@methods.register("opm")
class OPM(Method):
    """Drops features of the modalities that are ahead; a batch that stays whole logs a drop probability of 0."""

    family = "features"
    Params = OPMParams
    params: OPMParams
    quantities = (
        discrepancy.SCORE,
        discrepancy.RATIO,
        Quantity(
            name="drop_probability",
            unit="",
            caption="The probability with which a sample's features of the modality are dropped.",
            limits=(0, 1),
        ),
        Quantity(
            name="theta_loss",
            unit="",
            caption="Half the square of the share of feature values that is dropped on average, a term of the loss.",
            of="model",
            detail=True,
        ),
    )

    def __init__(self, params: OPMParams) -> None:
        super().__init__(params)
        self.next_q: Tensor | None = None  # (M,), from the scores of the batch before
        self.term: Tensor | None = None  # theta^2 / 2 of the current batch

    @classmethod
    def refuses(cls, params: OPMParams, setting: Setting) -> str | None:
        if why := setting.lacks(modalities=2):
            return why
        if params.warmup_epochs >= setting.epochs:
            return f"expected warmup_epochs below training.epochs = {setting.epochs}, but got {params.warmup_epochs}"
        return None

    @classmethod
    def extension(cls, params: OPMParams, setting: Setting) -> str | None:
        if len(setting.modalities) > 2 and params.others == "min":
            return "OPM for more than two modalities by the ratio to the smallest of the other scores"
        return None

    def on_features(
        self, ctx: Context, features: dict[str, Tensor], batch: Batch
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        p, leaves = self.params, {m: f.detach().float() for m, f in features.items()}
        with torch.set_grad_enabled(p.theta_loss), torch.autocast(batch.label.device.type, enabled=False):
            # In float32, as the fusion's weights are, whatever the precision of the pass is.
            leaves = {m: f.requires_grad_(p.theta_loss) for m, f in leaves.items()}
            score = discrepancy.scores(ctx.task, ctx.model.fusion.unimodal(leaves), batch.label)
            ratio = discrepancy.ratios(score, p.others)
            found = drop_probabilities(torch.stack(list(ratio.values())), p.q_base, p.lam, p.z)
            theta = dropped_share([f.shape[1] for f in leaves.values()], found)
        found, score = found.detach(), {m: s.detach() for m, s in score.items()}
        self.term = None
        before = torch.zeros_like(found) if self.next_q is None else self.next_q.to(found.device)
        self.next_q = found
        # Decided and drawn on the CPU, so that nothing waits for the device.
        execute = ctx.epoch >= p.warmup_epochs and float(torch.rand((), generator=ctx.rng)) < p.execute_probability
        q = (found if p.probability == "same" else before) if execute else torch.zeros_like(found)
        for m, q_m in zip(features, q.unbind(), strict=True):
            ctx.log(f"score/{m}", score[m])
            ctx.log(f"ratio/{m}", ratio[m])
            ctx.log(f"drop_probability/{m}", q_m)
        if execute:
            uniform = torch.rand(len(batch.label), len(features), generator=ctx.rng)
            self.term = theta_term(theta, leaves, features) if p.theta_loss else None
            features = drop(features, q, upload(uniform, q.device), p.rescale)
        return features, None

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        losses = super().loss(ctx, output, batch)
        return losses if self.term is None else {**losses, "theta_loss": self.term}

    def state_dict(self) -> dict[str, Tensor]:
        return {} if self.next_q is None else {"next_q": self.next_q}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.next_q = state.get("next_q")


@methods.register("opm_ogm")
class OPMOGM(Method):
    """OPM in the forward pass, then OGM in the backward pass, by the same scores."""

    family = "features"
    Params = OPMOGMParams
    params: OPMOGMParams
    quantities = tuple(dict.fromkeys((*OPM.quantities, *OGM.quantities)))

    def __init__(self, params: OPMOGMParams) -> None:
        super().__init__(params)
        self.opm, self.ogm = OPM(params.opm), params.ogm.method()
        self.ogm.name = f"{self.name}.ogm"  # where its messages point to in params.yaml

    @classmethod
    def refuses(cls, params: OPMOGMParams, setting: Setting) -> str | None:
        return OPM.refuses(params.opm, setting) or OGM.refuses(params.ogm, setting)

    @classmethod
    def extension(cls, params: OPMOGMParams, setting: Setting) -> str | None:
        return OPM.extension(params.opm, setting) or OGM.extension(params.ogm, setting)

    def before_epoch(self, ctx: Context) -> list[Phase]:
        return self.ogm.before_epoch(ctx)

    def on_features(
        self, ctx: Context, features: dict[str, Tensor], batch: Batch
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        # A dropped feature says nothing of its encoder, so OGM too sees what was there before, as in the released code.
        self.whole = {m: f.detach() for m, f in features.items()}
        return self.opm.on_features(ctx, features, batch)

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        return self.opm.loss(ctx, output, batch)

    def after_backward(self, ctx: Context, output: Output, batch: Batch) -> None:
        self.ogm.after_backward(ctx, output._replace(features=self.whole), batch)

    def state_dict(self) -> dict[str, Tensor]:
        return self.opm.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.opm.load_state_dict(state)
