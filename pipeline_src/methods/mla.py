"""MLA: multimodal learning with alternating unimodal adaptation (Zhang et al., CVPR 2024, arXiv:2311.10707).

One linear classifier c serves all modalities (fusion `shared`). In each batch, for each modality m in order:

    L = CE(c(f_m), y);  an update of encoder m and of c, whose weight W may have its gradient projected by P (D, D)

    h = mean_i f_m,i (D,),  q = P h,  P = I at first
    paper       grad W <- grad W P,   then P <- P - q q' / (damping + h' q)           recursive least squares
    written     P <- P - q q' / (alpha + q h'), entry by entry;  P <- P / |P|_F;  then grad W <- grad W P'
                alpha = 0.1^(b / n + 1) at batch b of n; both not at the first update of the training
    none        the gradient as it is

Prediction: z = sum_m w_m c(f_m), where H is the entropy of a prediction:

    entropy     w = softmax_m(-H(p(z_m)))                    by sample
    released    w = softmax_m(-sum_c H(p_c)), p_c = softmax of class c over the samples of the batch: one w for all
    fixed       w_m given;   mean    1 / M

What the authors' code does (Multimodal-Learning-with-Alternating-Unimodal-Adaptation), and where it can be chosen:
- It is `written` as above, but looks for a parameter of another name and projects nothing: `projection: none`, the
  default, as all figures of the code come without. `written` is ill-conditioned: a denominator passes through zero
  where P has negative entries. The paper's projection is recalled, not read, and so is that it holds what earlier
  updates have seen, so that it comes into force after the gradient; its damping is ours.
- Its entropy weights are `fusion: released`, which depend on how samples are put into batches; else it takes fixed
  ones, 0.55 and 0.45, of three 0.35, 0.25 and 0.4. `entropy` is the paper's (recalled; TCMax's code has it, too).
- It encodes all modalities before the first update. As the update of m changes encoder m and c alone, encoding each
  before its own gives the same. Under torch 1 the gradients of the other encoder were zero instead of missing, so that
  momentum and decay moved it.

In metrics.jsonl, means over the steps: unimodal_loss/m, and loss, their mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, cast

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.methods.alternating import FUSION, Alternating, shared
from pipeline_src.methods.base import Context, MethodParams, Quantity, Setting, methods

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_src.models.fusions.base import Features
    from pipeline_src.models.multimodal import MultimodalModel

Weight = Annotated[float, Field(ge=0, le=1e3)]


def entropy_weights(logits: Tensor) -> Tensor:
    """w (M, B) of logits (M, B, C): the surer a modality is of a sample, the more it weighs there."""
    log_p = logits.float().log_softmax(dim=2)
    return (log_p.exp() * log_p).sum(dim=2).softmax(dim=0)


def batch_weights(logits: Tensor) -> Tensor:
    """w (M, 1) of logits (M, B, C) as released: its softmax is over the samples."""
    log_p = logits.float().log_softmax(dim=1)
    return (log_p.exp() * log_p).sum(dim=(1, 2)).softmax(dim=0)[:, None]


def project(p: Tensor, h: Tensor, damping: float) -> Tensor:
    """The next P (D, D) of recursive least squares, from P and a mean feature h (D,)."""
    q = p @ h
    return p - torch.outer(q, q) / (damping + h @ q)


def project_written(p: Tensor, h: Tensor, damping: float) -> Tensor:
    """The next P (D, D) as the released code has it: it divides by a matrix, entry by entry."""
    q = p @ h
    p = p - torch.outer(q, q) / (damping + torch.outer(q, h))
    return p / torch.linalg.matrix_norm(p)


class MLAParams(MethodParams):
    projection: Literal["none", "written", "paper"] = Field(
        "none", description="of the classifier's gradient: none, as the code runs; as it is written; the paper's"
    )
    damping: float = Field(1.0, gt=0, le=1e6, description="in the paper's projection; its value is not known")
    fusion: Literal["entropy", "mean", "released", "fixed"] = Field(
        "entropy", description="weights of the prediction: by entropy per sample, even, by entropy per batch, given"
    )
    weights: dict[str, Weight] = Field(
        {}, description="by modality, for fusion fixed; released 0.55 and 0.45, of three modalities 0.35, 0.25, 0.4"
    )


@methods.register("mla")
class MLA(Alternating):
    """Trains one modality at a time through a classifier that they share, and weighs predictions by their entropy."""

    family = "alternation"
    Params = MLAParams
    params: MLAParams
    quantities = (Quantity("unimodal_loss", "nats", "Cross-entropy of the shared classifier on each modality."),)

    @classmethod
    def refuses(cls, params: MLAParams, setting: Setting) -> str | None:
        if setting.fusion != FUSION:
            return f"expected fusion {FUSION}, one classifier for all modalities, but got {setting.fusion!r}"
        if params.fusion in ("entropy", "released") and (why := setting.lacks(classes=True)):
            return f"{why} for weights by entropy"
        if params.fusion == "fixed" and set(params.weights) != set(setting.modalities):
            return f"expected weights of {', '.join(setting.modalities)}, but got {', '.join(params.weights) or 'none'}"
        return setting.lacks(modalities=2)

    def __init__(self, params: MLAParams):
        super().__init__(params)
        self.projection: Tensor | None = None  # P (D, D)

    def logits(self, model: MultimodalModel, features: Features) -> Tensor:
        parts, p = self.unimodal(model, features), self.params
        if p.fusion == "fixed":
            return torch.stack([p.weights[m] * z for m, z in parts.items()]).sum(dim=0)
        z = torch.stack(list(parts.values()))
        if p.fusion == "mean":
            return z.mean(dim=0)
        w = (entropy_weights if p.fusion == "entropy" else batch_weights)(z)
        return (w[..., None].to(z.dtype) * z).sum(dim=0)

    def before_update(self, ctx: Context, m: str, features: Features) -> None:
        if self.params.projection == "none":
            return
        fusion = shared(ctx.model)
        gradient = cast("Tensor", fusion.classifier.weight.grad)
        with torch.no_grad():
            h = fusion.narrow(features)[m].float().mean(dim=0)
            p, first = self.projection, self.projection is None
            if p is None:
                p = torch.eye(len(h), device=h.device)
            if self.params.projection == "paper":
                gradient.copy_(gradient @ p)
                p = project(p, h, self.params.damping)
            elif not first:
                p = project_written(p, h, 0.1 ** (ctx.batch / ctx.batches + 1))
                gradient.copy_(gradient @ p.T)
            self.projection = p

    def state_dict(self) -> dict[str, Tensor]:
        return {} if self.projection is None else {"projection": self.projection}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.projection = state.get("projection")
