"""UMT: unimodal teachers (Du et al., "On uni-modal feature learning in supervised multi-modal learning", ICML 2023,
arXiv:2305.01233).

    L = CE(z, y) + lambda sum_m mean |f_m - sg(t_m)|^2

t_m (B, D_m) are the features of a model of modality m alone, trained before from the same seed: the baseline of m. It
is frozen, in evaluation mode, and sees the same augmented input. The mean is over samples and entries.

The authors' code was not found, and the paper's equation is recalled, not checked. The form of the loss and lambda = 10
are BalanceBenchmark's (UMT_trainer.py); the paper tunes lambda. UME, the paper's ensemble of the teachers, is no method
here, as it trains nothing. A fusion that exchanges hidden states has no f_m of m alone [extension].

In metrics.jsonl, means over the steps: distillation/m, with its weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import Method, MethodParams, Quantity, Requirement, methods
from pipeline_src.models.base import fusion_facts

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_src.methods.base import Batch, Context, Output, Setting


class UMTParams(MethodParams):
    weight: float = Field(
        10.0, ge=0, le=1e6, description="lambda; 0 is joint training. BalanceBenchmark 10; the paper tunes it"
    )


@methods.register("umt")
class UMT(Method):
    """Keeps each encoder's features near those of an encoder that was trained alone."""

    family = "teachers"
    Params = UMTParams
    params: UMTParams
    quantities = (Quantity("distillation", "", "Mean squared distance of features to the teacher's, with its weight."),)

    @classmethod
    def refuses(cls, params: UMTParams, setting: Setting) -> str | None:
        if len(setting.modalities) > 2 and fusion_facts(setting.fusion).widens:
            return f"expected features as long as the teachers', but got {setting.fusion!r}, which makes them longer"
        return setting.lacks(modalities=2)

    @classmethod
    def extension(cls, params: UMTParams, setting: Setting) -> str | None:
        if fusion_facts(setting.fusion).writes:
            return "UMT with features that have met the other modalities, while the teachers' have not"
        return None

    @classmethod
    def requires(cls, params: UMTParams, setting: Setting) -> dict[str, Requirement]:
        return {m: Requirement(m) for m in setting.modalities} if params.weight else {}

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        losses = super().loss(ctx, output, batch)
        if not self.params.weight:
            return losses
        for m, f in output.features.items():
            with torch.no_grad():
                teacher = ctx.run(m).encode(batch.inputs)[m]
            distance = torch.nn.functional.mse_loss(f.float(), teacher.float())
            losses[f"distillation/{m}"] = self.params.weight * distance
        return losses
