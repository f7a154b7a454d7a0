"""Joint training with unimodal losses: "uniform baseline" of MMPareto, "joint*" of InfoReg.

Wei and Hu, ICML 2024, arXiv:2405.17730 (uniform baseline); Huang et al., CVPR 2025, arXiv:2503.18595 (joint*, Table 3).

    L = CE(z, y) + lambda sum_m CE(z_m, y)     z_m = c_m(f_m): a linear classifier of each modality's own

Both papers have lambda = 1. The classifiers take no part in the prediction, which is the fusion's z. Without this
baseline no method that adds unimodal losses can be judged: what it gains may come from the losses alone.

In metrics.jsonl, means over the steps: unimodal_loss/m, the unimodal losses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_src.methods.base import MethodParams, Quantity, methods
from pipeline_src.methods.classifiers import Classifiers

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_src.methods.base import Batch, Context, Output


class JointUnimodalParams(MethodParams):
    weight: float = Field(
        1.0, ge=0, le=1e6, description="lambda, weight of the unimodal losses; published 1. 0 is joint training"
    )


@methods.register("joint_unimodal")
class JointUnimodal(Classifiers):
    """Joint training that also minimises a unimodal loss of each encoder."""

    family = "baseline"
    Params = JointUnimodalParams
    params: JointUnimodalParams
    quantities = (Quantity("unimodal_loss", "nats", "Cross-entropy of each modality's own classifier."),)

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        losses = super().loss(ctx, output, batch)
        if self.params.weight:
            added = self.unimodal_losses(ctx, output, batch)
            losses |= {name: self.params.weight * value for name, value in added.items()}
        return losses
