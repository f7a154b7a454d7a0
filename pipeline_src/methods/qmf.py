"""QMF: quality-aware multimodal fusion (Zhang et al., "Provable dynamic fusion for low-quality multimodal data", ICML
2023, arXiv:2306.02050).

Each modality has a linear classifier of its own, z_m = c_m(f_m).

    e_m = logsumexp_c(z_m) / 10                       confidence (B,) by the energy
    z   = sum_m sg(e_m) z_m                           the prediction, in training and evaluation alike
    h_m[i] += CE(z_m,i, y_i)                          history (N,) of each training sample, from 0
    u   = (h_m - min h_m) / (max h_m - min h_m)       over all N samples
    d   = u_i - u_{i+1}                               neighbours in the batch, cyclic
    rank_m = mean_i max(0, sign(d) (e_i - e_{i+1} - d))
    L   = sum_m CE(z_m, y) + CE(z, y) + lambda sum_m rank_m

A sample that has been harder is to have the lower confidence. Energies below 0 give weights below 0, as released. A
removed modality leaves z_m = b_m with its energy.

Two versions of the authors' code (QMF), and where they can be chosen: text and image has lambda 1, a detached e_m and
updates the history before it ranks; RGB-D has lambda 0.1, e_m with its gradient and ranks first. RGB-D's first batch
divides 0 by 0 and its loss is NaN; here the rank of an even history is 0.

In metrics.jsonl, means over the steps: unimodal_loss/m, rank/m with its weight, and confidence/m, the mean of e_m.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import MethodParams, Quantity, Setting, methods
from pipeline_src.methods.classifiers import Classifiers

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_src.methods.base import Batch, Context, Output
    from pipeline_src.models.fusions.base import Features
    from pipeline_src.models.multimodal import MultimodalModel

SCALE = 10.0  # of the energy, in the released code


def energy(logits: Tensor) -> Tensor:
    """Confidence (B,) of logits (B, C)."""
    return logits.logsumexp(dim=1) / SCALE


def difficulty(history: Tensor, index: Tensor) -> Tensor:
    """u (B,) in [0, 1] of the samples `index` (B,) in a history (N,); 0 if it is the same for all."""
    low, high = history.min(), history.max()
    return torch.where(high > low, (history[index] - low) / (high - low).clamp(min=torch.finfo(history.dtype).tiny), 0)


def rank(confidence: Tensor, hardness: Tensor) -> Tensor:
    """rank_m () of confidences and difficulties (B,), each sample against the next one, the last against the first."""
    d = hardness - hardness.roll(-1)
    return (d.sign() * (confidence - confidence.roll(-1) - d)).clamp(min=0).mean()


class QMFParams(MethodParams):
    rank_weight: float = Field(1.0, ge=0, le=1e6, description="lambda; released 1 (text and image), 0.1 (RGB-D)")
    detach: bool = Field(True, description="no gradient through the fusion's weights; released: RGB-D has it")
    history: Literal["before", "after"] = Field(
        "before", description="when a batch enters the history: before it is ranked, or, as RGB-D, after it"
    )


@methods.register("qmf")
class QMF(Classifiers):
    """Weighs each sample's modalities by a confidence that is trained to follow how hard the sample has been."""

    family = "fusion weights"
    Params = QMFParams
    params: QMFParams
    quantities = (
        Quantity("unimodal_loss", "nats", "Cross-entropy of each modality's own classifier."),
        Quantity("rank", "", "Ranking loss of a modality's confidences, with its weight."),
        Quantity("confidence", "", "Mean confidence of a modality, its weight in the fusion."),
    )

    @classmethod
    def refuses(cls, params: Any, setting: Setting) -> str | None:
        return super().refuses(params, setting) or setting.lacks(classes=True)  # an energy is of classes

    def __init__(self, params: QMFParams) -> None:
        super().__init__(params)
        self.history: dict[str, Tensor] = {}  # {m: (N,)} float32

    def logits(self, model: MultimodalModel, features: Features) -> Tensor:
        parts = self.unimodal(model, features)
        weights = {m: energy(z) for m, z in parts.items()}
        if self.params.detach:
            weights = {m: w.detach() for m, w in weights.items()}
        return torch.stack([weights[m][:, None] * z for m, z in parts.items()]).sum(dim=0)

    def on_train_start(self, ctx: Context) -> None:
        label = ctx.labels("train")
        self.history = {m: torch.zeros(len(label), device=label.device) for m in ctx.model.modalities}

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        p, before = self.params, self.params.history == "before"
        losses = super().loss(ctx, output, batch)
        for m, z in self.unimodal(ctx.model, output.features).items():
            each = ctx.task.losses(z, batch.label)
            losses[f"unimodal_loss/{m}"] = each.mean()
            if before:
                self._remember(m, batch.index, each)
            confidence = energy(z)
            hardness = difficulty(self.history[m], batch.index).to(confidence.dtype)
            losses[f"rank/{m}"] = p.rank_weight * rank(confidence, hardness)
            if not before:
                self._remember(m, batch.index, each)
            ctx.log(f"confidence/{m}", confidence.mean())
        return losses

    def _remember(self, m: str, index: Tensor, losses: Tensor) -> None:
        self.history[m] = self.history[m].index_add(0, index, losses.detach().float())

    def state_dict(self) -> dict[str, Tensor]:
        return {f"history/{m}": h for m, h in self.history.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.history = {name.removeprefix("history/"): h for name, h in state.items()}
