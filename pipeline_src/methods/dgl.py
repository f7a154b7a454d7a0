"""DGL: disentangled gradient learning (Wei, Luo and Luo, ICCV 2025, arXiv:2507.10213).

    z   = fusion(sg(f))                          CE(z, y) trains the fusion only; sg stops gradients
    z_m = sg(fusion)(f_m, the others 0)          alpha sum_m CE(z_m, y) trains the encoders only
    L   = CE(z, y) + alpha sum_m CE(z_m, y)

So the joint loss cannot hold an encoder back, and the unimodal losses do not move the fusion. All gradients together
are clipped to a norm of `clip`. Equations and clipping are those of the authors' code (ICCV2025-GDL, main_dgl.py);
alpha is 4 to 5 there, CREMA-D at learning rate 0.002.

A fusion with hidden states is refused: an encoder would be reached through them.
In metrics.jsonl, means over the steps: unimodal_loss/m, the unimodal losses before alpha.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import Method, MethodParams, Output, Quantity, methods

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_src.methods.base import Batch, Context, Setting


class DGLParams(MethodParams):
    alpha: float = Field(4.0, ge=0, le=1e6, description="weight of the unimodal losses; released 4 to 5 on CREMA-D")
    clip: float = Field(40.0, gt=0, le=1e30, description="largest norm of all gradients together; released 40")


@methods.register("dgl")
class DGL(Method):
    """Trains encoders by unimodal losses alone and the fusion by the joint loss alone."""

    family = "gradients"
    Params = DGLParams
    params: DGLParams
    quantities = (Quantity("unimodal_loss", "nats", "Cross-entropy of the fusion's prediction from one modality."),)

    @classmethod
    def refuses(cls, params: DGLParams, setting: Setting) -> str | None:
        return setting.lacks(no_taps=True)

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        model = ctx.model
        features = output.features.replaced({m: f.detach() for m, f in output.features.items()})
        joint = Output(features, self.logits(model, features))
        losses = super().loss(ctx, joint, batch)
        frozen = {name: value.detach() for name, value in model.fusion.state_dict(keep_vars=True).items()}
        for m, f in output.features.items():
            alone = {name: f if name == m else torch.zeros_like(x) for name, x in features.items()}
            z = torch.func.functional_call(model.fusion, frozen, (alone,))
            losses[f"unimodal_loss/{m}"] = self.params.alpha * ctx.task.loss(z, batch.label)
        return losses

    def after_backward(self, ctx: Context, output: Output, batch: Batch) -> None:
        torch.nn.utils.clip_grad_norm_(ctx.parameters().values(), self.params.clip)
