"""ReconBoost: boosting by modality (Hua et al., "ReconBoost: boosting can achieve modality reconcilement", ICML 2024,
arXiv:2405.09321).

Stage s = 0, 1, ... is the turn of modality m = s mod M, and has two parts, each begun by a new optimiser:

    boost     L = mean_i [-(w1 - w2 p(Z)_{i,y_i}) log p(z_m)_{i,y_i}] / C + alpha mean_{i,c} (p(z_m) - p(Z))^2
              of encoder m and the fusion;  Z = nu sum_{j != m} z_j, without gradient
    rectify   L = CE(nu z, y),  z = sum_m z_m,  of everything and the rate nu (), which is 1 at first

z_m are the fusion's terms. Prediction: nu z. The division by C sets the scale against weight decay and is kept.

What the authors' code (huacong/ReconBoost) does, and where it can be chosen:
- Both arguments of the agreement, the term with alpha, are detached: it has a value and no gradient, `agreement:
  released`. With `paper` p(z_m) has its gradient (recalled).
- The other encoders run in training mode while m is boosted, so that their running statistics move; `still` keeps them.
- Its encoders start from unimodal runs: `pretrained`, which takes the baselines' of the same seed. Not the default, as
  all methods here start from the same weights.
- Parts of 4 epochs, 1,001 stages, and a learning rate divided by 10 every 30 stages. Here an epoch is a pass of one
  part, of one epoch each by default, and the schedule is the study's. After E epochs that is E / (boost + rectify)
  stages of the published thousand.
- One classifier 512-256-C, ReLU between, for all modalities: fusion `shared_mlp`. Any other sum over modalities, with
  classifiers of their own as well, is [extension]; weights of other modalities in `concat` decay while m is boosted.

In metrics.jsonl, means over the steps: boosting/m and agreement/m with its weight, of m in its turn; loss; rate (nu).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import (
    Batch,
    Context,
    Method,
    MethodParams,
    Phase,
    Quantity,
    Requirement,
    Setting,
    methods,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipeline_src.models.fusions.base import Features
    from pipeline_src.models.multimodal import MultimodalModel

Agreement = Literal["released", "paper"]


def rate(model: MultimodalModel) -> Tensor:
    """nu ()."""
    return cast("Tensor", model.extra["rate"].nu)


def boosting(losses: Tensor, confidence: Tensor, first: float, second: float, classes: int) -> Tensor:
    """Boosting loss (B,) of -log p(z_m) (B,) of the truth, and p(Z) (B,) of the truth by the other modalities."""
    return (first - second * confidence) * losses / classes


def agreement(logits: Tensor, others: Tensor, kind: Agreement = "released") -> Tensor:
    """mean (p(z_m) - p(Z))^2 () of logits (B, C)."""
    p = logits.float().softmax(dim=1)
    return ((p.detach() if kind == "released" else p) - others.detach().float().softmax(dim=1)).square().mean()


def turn(epoch: int, boost: int, rectify: int) -> tuple[int, bool, bool]:
    """Of an epoch, from 0: its stage, whether it boosts, and whether it begins a part."""
    stage, within = divmod(epoch, boost + rectify)
    return stage, within < boost, within in (0, boost)


class ReconBoostParams(MethodParams):
    boost: int = Field(1, ge=1, le=10_000, description="epochs of a stage that train one encoder; released 4")
    rectify: int = Field(1, ge=1, le=10_000, description="epochs of a stage that train everything; released 4")
    first_weight: float = Field(5.0, gt=0, le=1e6, description="w1; released 5")
    second_weight: float = Field(1.0, ge=0, le=1e6, description="w2; released 1, AVE 4")
    alpha: float = Field(0.5, ge=0, le=1e6, description="of the agreement; released 0.5")
    agreement: Agreement = Field(
        "released", description="released: a value without gradient; paper: with that of the modality in turn"
    )
    still: bool = Field(
        False, description="others in evaluation mode while a modality is boosted; released: in training mode"
    )
    pretrained: bool = Field(
        False, description="start from the encoders of the unimodal baselines, as released, which are then required"
    )


@methods.register("reconboost")
class ReconBoost(Method):
    """Trains one modality after another on what the others get wrong, and all together in between."""

    family = "alternation"
    Params = ReconBoostParams
    params: ReconBoostParams
    quantities = (
        Quantity("boosting", "nats", "Boosting loss of the modality in turn, divided by the number of classes."),
        Quantity("agreement", "", "Distance of a modality's prediction to the others', with its weight."),
        Quantity("rate", "", "Rate nu that multiplies the sum of the logits.", of="model", reference=1.0),
    )

    @classmethod
    def refuses(cls, params: ReconBoostParams, setting: Setting) -> str | None:
        if why := setting.lacks(modalities=2, classes=True, additive=True):
            return why
        least = len(setting.modalities) * (params.boost + params.rectify)
        if setting.epochs < least:
            return f"expected training.epochs of at least {least}, a stage of each modality, but got {setting.epochs}"
        return None

    @classmethod
    def extension(cls, params: ReconBoostParams, setting: Setting) -> str | None:
        if setting.fusion in ("shared", "shared_mlp"):
            return None
        return "ReconBoost is defined for one classifier of all modalities"

    @classmethod
    def requires(cls, params: ReconBoostParams, setting: Setting) -> dict[str, Requirement]:
        return {m: Requirement(m) for m in setting.modalities} if params.pretrained else {}

    def modules(self, dims: dict[str, int], classes: int) -> dict[str, nn.Module]:
        holder = torch.nn.Module()
        holder.nu = torch.nn.Parameter(torch.ones(()))
        return {"rate": holder}

    def logits(self, model: MultimodalModel, features: Features) -> Tensor:
        return rate(model) * model.fusion(features)

    def unimodal(self, model: MultimodalModel, features: Features) -> dict[str, Tensor]:
        """nu z_m, which add up to the prediction."""
        return {m: rate(model) * z for m, z in model.fusion.unimodal(features).items()}

    def on_train_start(self, ctx: Context) -> None:
        if self.params.pretrained:
            for m, encoder in ctx.model.encoders.items():
                encoder.load_state_dict(ctx.run(m).encoders[m].state_dict())

    def before_epoch(self, ctx: Context) -> list[Phase]:
        _, boosts, begins = turn(ctx.epoch, self.params.boost, self.params.rectify)
        if begins:
            ctx.forget(ctx.model)
        return [Phase("boost" if boosts else "rectify")]

    def step(self, ctx: Context, batch: Batch) -> None:
        stage, boosts, _ = turn(ctx.epoch, self.params.boost, self.params.rectify)
        if boosts:
            self.boost(ctx, batch, ctx.model.modalities[stage % len(ctx.model.modalities)])
        else:
            super().step(ctx, batch)
        ctx.log("rate", rate(ctx.model))

    def boost(self, ctx: Context, batch: Batch, m: str) -> None:
        """One update of encoder m and the fusion."""
        p, model = self.params, ctx.model
        ctx.zero_grad()
        with torch.no_grad():
            features = ctx.encode(batch, [other for other in model.modalities if other != m], training=not p.still)
            with ctx.autocast():
                parts = self.unimodal(model, features)
                others = torch.stack([z for other, z in parts.items() if other != m]).sum(dim=0)
                confidence = ctx.task.confidence(others, batch.label)
        with ctx.autocast():
            z = model.fusion.unimodal(ctx.encode(batch, [m]))[m]
            each = ctx.task.losses(z, batch.label)
            losses = {
                f"boosting/{m}": boosting(each, confidence, p.first_weight, p.second_weight, ctx.classes).mean(),
                f"agreement/{m}": p.alpha * agreement(z, others, p.agreement),
            }
        total = torch.stack(list(losses.values())).sum()
        for name, value in losses.items() | {"loss": total}.items():
            ctx.log(name, value)
        ctx.backward(total)
        ctx.update()
