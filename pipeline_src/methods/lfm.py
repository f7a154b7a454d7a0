"""LFM: learning to fuse and match (Yang et al., "Facilitating multimodal classification via dynamically learning
modality gap", NeurIPS 2024).

    L = 2 (a_1 CE((z_a + z_v) / 2, y) + a_2 A),      a_1 + a_2 = 1
    A = 1/2 mean_i [KL(q | p(z_a)) + KL(q | p(z_v))],  q = (p(z_a) + p(z_v)) / 2

A aligns the modalities' predictions; a_1 says how much is classification. z_m are the fusion's unimodal logits; the
mean of M logits is z / M for an additive fusion. Prediction: the fusion's z.

What the authors' code does (NeurIPS24-LFM, Crema_epoch.py), and where it can be chosen:
- Its KL has the arguments reversed. The name in the code is the Jensen-Shannon divergence, 1/2 mean_i [KL(p(z_a) | q) +
  KL(p(z_v) | q)]; the paper (as recalled) writes of a contrastive loss: `alignment`.
- `schedule: fitted` is its polynomial of the epoch (from 0) for 200 epochs; `heuristic` is a_2 = 1 - exp(-1 / (e + 1)),
  recalled from the paper. Its third, learned, schedule moves a_2 by about 1e-8 a step and is left out.

More than two modalities [extension]: A is the mean over pairs. Fusions that are no sum [extension]: z_m by `unimodal`.
In metrics.jsonl, means over the steps: alignment, a_2 A twice, and fusing, a_1.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import Method, MethodParams, Quantity, methods
from pipeline_src.models.base import added

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_src.methods.base import Batch, Context, Output, Setting

Alignment = Literal["released", "jensen_shannon"]
Schedule = Literal["fitted", "heuristic"]
FITTED = (0.204623704, 3.35472727e-3, 1.22989557e-4, -2.92947416e-6, 2.23835486e-8, -5.39717505e-11)  # of e^0, e^1 ...
FITTED_EPOCHS = 200


def alignment(first: Tensor, second: Tensor, kind: Alignment = "released") -> Tensor:
    """A () of two modalities' logits (B, C)."""
    log_p, log_q = first.float().log_softmax(dim=1), second.float().log_softmax(dim=1)
    log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
    if kind == "released":
        parts = [log_mean.exp() * (log_mean - x) for x in (log_p, log_q)]
    else:
        parts = [x.exp() * (x - log_mean) for x in (log_p, log_q)]
    return added(part.sum(dim=1).mean() for part in parts) / 2


def fitted(epoch: int) -> float:
    """a_1 at an epoch, from 0, by the released polynomial; after its 200 epochs that of the last."""
    e = min(epoch, FITTED_EPOCHS - 1)
    return sum(c * e**i for i, c in enumerate(FITTED))


def heuristic(epoch: int) -> float:
    """a_1 at an epoch, from 0."""
    return math.exp(-1 / (epoch + 1))


class LFMParams(MethodParams):
    schedule: Schedule = Field(
        "fitted", description="of a_1: the released polynomial of the epoch, or exp(-1 / (e + 1))"
    )
    alignment: Alignment = Field(
        "released", description="KL from the mean to each prediction, as released, or the Jensen-Shannon divergence"
    )


@methods.register("lfm")
class LFM(Method):
    """Shifts from aligning the modalities' predictions to classifying, by a schedule of the epoch."""

    family = "losses"
    Params = LFMParams
    params: LFMParams
    quantities = (
        Quantity("alignment", "nats", "Alignment loss of the modalities' predictions, with its weight.", of="model"),
        Quantity(
            "fusing", "", "Weight a_1 of the classification loss; the rest is alignment.", of="model", limits=(0.0, 1.0)
        ),
    )

    @classmethod
    def refuses(cls, params: LFMParams, setting: Setting) -> str | None:
        return setting.lacks(modalities=2, classes=True, no_reads=True)

    @classmethod
    def extension(cls, params: LFMParams, setting: Setting) -> str | None:
        if len(setting.modalities) > 2:
            return "LFM is defined for two modalities; here the alignment is the mean over pairs"
        return None if setting.additive else "LFM is defined for a sum of unimodal logits"

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        fuse = fitted(ctx.epoch) if self.params.schedule == "fitted" else heuristic(ctx.epoch)
        logits = list(self.unimodal(ctx.model, output.features).values())
        mean = torch.stack(logits).mean(dim=0)
        pairs = [alignment(a, b, self.params.alignment) for a, b in itertools.combinations(logits, 2)]
        ctx.log("fusing", fuse)
        return {
            "loss": 2 * fuse * ctx.task.loss(mean, batch.label),
            "alignment": 2 * (1 - fuse) * torch.stack(pairs).mean(),
        }
