"""Modalities that take turns within a batch: the base of methods with one classifier c for all, fusion `shared`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import Batch, Context, Method

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_src.models.fusions.base import Features
    from pipeline_src.models.fusions.shared import Shared
    from pipeline_src.models.multimodal import MultimodalModel

FUSION = "shared"


def shared(model: MultimodalModel) -> Shared:
    """The model's fusion, which is `shared`."""
    return cast("Shared", model.fusion)


class Alternating(Method):
    """A batch has an update for each modality m in turn, by CE(c(f_m), y), of its encoder and the classifier.

    Encoders of the others do not run, and their parameters get no gradient: neither momentum nor decay moves them.
    """

    def due(self, ctx: Context) -> list[str]:
        """The modalities whose turn comes in this epoch, in order; one at least."""
        return ctx.model.modalities

    def before_update(self, ctx: Context, m: str, features: Features) -> None:
        """The gradients of a turn are there and may be changed."""

    def unimodal(self, model: MultimodalModel, features: Features) -> dict[str, Tensor]:
        """c(f_m), which the fusion divides by M."""
        return {m: z / shared(model).weight for m, z in model.fusion.unimodal(features).items()}

    def step(self, ctx: Context, batch: Batch) -> None:
        losses = []
        for m in self.due(ctx):
            ctx.zero_grad()
            features = ctx.encode(batch, [m])
            with ctx.autocast():
                loss = ctx.task.loss(self.unimodal(ctx.model, features)[m], batch.label)
            ctx.log(f"unimodal_loss/{m}", loss)
            losses.append(loss.detach())
            ctx.backward(loss)
            self.before_update(ctx, m, features)
            ctx.update()
        ctx.log("loss", torch.stack(losses).mean())
