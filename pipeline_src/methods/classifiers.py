"""A linear classifier of its own for each modality, c_m(f_m): the base of methods that train one beside the fusion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_src.methods.base import Context, Method, Output

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipeline_src.methods.base import Batch
    from pipeline_src.models.fusions.base import Features
    from pipeline_src.models.multimodal import MultimodalModel


class Classifiers(Method):
    """The model predicts from modality m by z_m = c_m(f_m), (B, C)."""

    def modules(self, dims: dict[str, int], classes: int) -> dict[str, nn.Module]:
        from pipeline_src.models.fusions.base import linear

        return {m: linear(dim, classes) for m, dim in dims.items()}

    def unimodal(self, model: MultimodalModel, features: Features) -> dict[str, Tensor]:
        return {m: model.extra[m](f) for m, f in features.items()}

    def unimodal_losses(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        """CE(z_m, y) of each modality, {"unimodal_loss/m": ()}."""
        logits = self.unimodal(ctx.model, output.features)
        return {f"unimodal_loss/{m}": ctx.task.loss(z, batch.label) for m, z in logits.items()}
