"""How large each encoder's gradient is, and how far the joint loss pulls it from where its own loss would.

    g_m    = grad_{theta_m} L(z, y)          of the loss of the fused prediction z, w.r.t. encoder m
    u_m    = grad_{theta_m} L(z_m, y)        of the loss of the modality's own logits z_m
    angle  = arccos(g_m . u_m / (|g_m| |u_m|))                        PMR (CVPR 2023), Fig. 2c; in degrees

They are mean gradients over the same `samples` of train after every epoch, without augmentation and in evaluation mode,
so that normalisation uses its running statistics: not the gradients of a training step, which are of one batch and
which a method may have changed. No gradient of the run is read or written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.core.params import CLIPS
from pipeline_src.methods.base import Quantity
from pipeline_src.observers.base import Observed, Observer, ObserverParams, Setting, observers

if TYPE_CHECKING:
    from torch import Tensor


class GradientsParams(ObserverParams):
    samples: int = Field(
        default=512, ge=1, le=CLIPS, description="of train, drawn once for all epochs; fewer if train has fewer"
    )


@observers.register("gradients")
class Gradients(Observer):
    """Gradient norms by encoder, and the angle between unimodal and joint gradients."""

    Params = GradientsParams
    params: GradientsParams
    quantities = (
        Quantity("gradient_norm", "", "The norm of the joint loss's mean gradient with respect to the encoder."),
        Quantity(
            "unimodal_gradient",
            "",
            "The norm of the mean gradient of the modality's own loss with respect to its encoder.",
        ),
        Quantity(
            "gradient_angle",
            "degrees",
            "The angle between the gradients of the joint and of the modality's own loss with respect to its encoder.",
            reference=90.0,
            limits=(0.0, 180.0),
        ),
    )

    @classmethod
    def refuses(cls, params: GradientsParams, setting: Setting) -> str | None:
        return setting.lacks(modalities=2)

    def observe(self, run: Observed) -> dict[str, float]:
        count = run.samples("train")
        rows = torch.randperm(count, generator=run.generator("gradients"))[: self.params.samples].sort().values
        joint: dict[str, list[Tensor]] = {}
        own: dict[str, list[Tensor]] = {}
        for batch in run.batches("train", rows):
            weight = len(batch.label) * count / (len(run.label("train")) * len(rows))  # a sample may have several rows
            with run.autocast():
                features = run.model.encode(batch.inputs)
                logits = run.method.logits(run.model, features)
                unimodal = run.method.unimodal(run.model, features)
            whole = run.task.loss(logits.float(), batch.label)
            for m, encoder in run.model.encoders.items():
                weights = [p for p in encoder.parameters() if p.requires_grad]
                alone = run.task.loss(unimodal[m].float(), batch.label)
                _add(joint.setdefault(m, []), whole, weights, weight)
                _add(own.setdefault(m, []), alone, weights, weight)
        found: dict[str, float] = {}
        for m in joint:
            g, u = (_norm(parts) for parts in (joint[m], own[m]))
            found |= {f"gradient_norm/{m}": g, f"unimodal_gradient/{m}": u}
            if g > 0 and u > 0:
                product = sum(float((a.double() * b.double()).sum()) for a, b in zip(joint[m], own[m], strict=True))
                found[f"gradient_angle/{m}"] = math.degrees(math.acos(min(max(product / (g * u), -1.0), 1.0)))
        return found


def _add(sums: list[Tensor], loss: Tensor, weights: Sequence[Tensor], factor: float) -> None:
    """Add `factor` times a loss's gradients with respect to the weights to `sums`, in place; the graph is kept."""
    if not weights or not loss.requires_grad:
        return
    parts = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True, materialize_grads=True)
    if not sums:
        sums.extend(torch.zeros_like(part) for part in parts)
    for total, part in zip(sums, parts, strict=True):
        total.add_(part, alpha=factor)


def _norm(parts: list[Tensor]) -> float:
    return math.sqrt(sum(float((part.double() ** 2).sum()) for part in parts))
