"""Valuation: fine-grained modality valuation and resampling (Wei et al., "Enhancing multimodal cooperation via
sample-level modality valuation", CVPR 2024, arXiv:2309.06255).

From the end of epoch `warm_up` - 1 on, after each epoch, in evaluation mode over train, with the features of modalities
outside of S set to zero:

    v_i(S) = |S| if the prediction from S is right, else 0                                benefit of a set
    c_m,i  = sum_{S without m} |S|! (M - |S| - 1)! / M! (v_i(S + m) - v_i(S))             Shapley value; a fair one is 1

The next epoch visits each sample and, beside that:

    sample      round(2 (1 - c_m,i)) copies of sample i with m alone, for each m with c_m,i below 1;
                of two modalities one for c = 1/2, two for 0, three for -1/2
    modality    int(N g) samples, drawn with replacement, without the strongest modality
                linear  g = alpha d      tanh  g = tanh(alpha d)      power  g = alpha d^1.5
                d = 2/3 (max_m c_m - min_m c_m),   c_m: mean of c_m,i over a part of the samples

A removed modality's feature is zero in training, too; gradients stop there. Prediction: the fusion's.

What the authors' code does (Valuate-and-Enhance-Multimodal-Cooperation): the equations and the copies of two modalities
are its own; the general c is the paper's (recalled). It draws the part of the samples with replacement, here without.
No script of it runs as released, so that no figure of it can be traced to it. Ours for more than two modalities
[extension]: the copies by the rule above, and that the strongest modality alone is dropped.
Epochs get longer: the number of samples of the next one is in metrics.jsonl as `visits`, next to shapley/m, the
mean of c_m,i.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.methods.agm import shapley
from pipeline_src.methods.base import Batch, Context, Method, MethodParams, Quantity, Setting, methods

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Generator, Tensor

    from pipeline_src.models.fusions.base import Features

Shape = Literal["linear", "tanh", "power"]


def values(right: Mapping[tuple[str, ...], Tensor], names: list[str]) -> Tensor:
    """c (N, M) from whether the prediction from each set of modalities is right, {S: (N,) bool}, S not empty."""
    parts = shapley(names, lambda kept: len(kept) * right[kept].double())
    return torch.stack([parts[m] for m in names], dim=1).float()


def resample(contribution: Tensor) -> tuple[Tensor, Tensor]:
    """Sample level, from c (N, M): rows (N',) int64 of the next epoch, and which modalities each visit keeps (N', M)
    bool. Each sample comes first, as it is; then the copies, by sample and modality.
    """
    count, modalities = contribution.shape
    copies = (2 * (1 - contribution)).round().clamp(min=0).long().flatten()
    each = torch.arange(count, device=contribution.device)
    rows = torch.cat([each, each.repeat_interleave(modalities).repeat_interleave(copies)])
    alone = torch.eye(modalities, dtype=torch.bool, device=contribution.device)
    kept = torch.cat([alone.new_ones(count, modalities), alone.repeat(count, 1).repeat_interleave(copies, dim=0)])
    return rows, kept


def drawn_count(contribution: list[float], count: int, alpha: float, shape: Shape = "linear") -> int:
    """Modality level: how many of `count` samples are visited again, from the mean c_m of each modality."""
    d = 2 / 3 * (max(contribution) - min(contribution))
    g = {"linear": lambda: alpha * d, "tanh": lambda: math.tanh(alpha * d), "power": lambda: alpha * d**1.5}[shape]()
    return int(count * g)


def redraw(contribution: list[float], count: int, alpha: float, shape: Shape, rng: Generator) -> tuple[Tensor, Tensor]:
    """Modality level: rows and kept as in `resample`, on the generator's device."""
    drawn = drawn_count(contribution, count, alpha, shape)
    again = torch.randint(count, (drawn,), generator=rng, device=rng.device)
    kept = torch.ones(count + drawn, len(contribution), dtype=torch.bool, device=rng.device)
    kept[count:, contribution.index(max(contribution))] = False
    return torch.cat([torch.arange(count, device=rng.device), again]), kept


class ValuationParams(MethodParams):
    level: Literal["sample", "modality"] = Field("sample", description="of the resampling; both are the paper's")
    warm_up: int = Field(5, ge=1, description="epochs of joint training; released 5, of 60")
    shape: Shape = Field("linear", description="of the modality level: how a gap becomes a number of samples")
    alpha: float = Field(1.0, ge=0, le=100, description="of the modality level; 0 draws nothing. Released 0.5 to 2")
    part: float = Field(0.2, gt=0, le=1, description="of the samples that the modality level looks at; released 0.2")


@methods.register("valuation")
class Valuation(Method):
    """Shows a modality more often, alone, where it contributes little to a sample's prediction."""

    family = "sampling"
    Params = ValuationParams
    params: ValuationParams
    quantities = (
        Quantity("shapley", "", "Mean Shapley value of a modality; a fair share is 1.", reference=1.0),
        Quantity("visits", "samples", "Samples that the next epoch visits, copies included.", of="model"),
    )

    @classmethod
    def refuses(cls, params: ValuationParams, setting: Setting) -> str | None:
        if params.warm_up >= setting.epochs:
            return f"expected warm_up below training.epochs = {setting.epochs}, but got {params.warm_up}"
        return setting.lacks(modalities=2, classes=True, whole=True, no_taps=True)

    @classmethod
    def extension(cls, params: ValuationParams, setting: Setting) -> str | None:
        return "valuation for more than two modalities" if len(setting.modalities) > 2 else None

    def __init__(self, params: ValuationParams):
        super().__init__(params)
        self.rows: Tensor | None = None  # (N',) of train
        self.kept: Tensor | None = None  # (N', M) bool

    def samples(self, ctx: Context) -> Tensor | None:
        return self.rows

    def on_features(self, ctx: Context, features: Features, batch: Batch) -> tuple[Mapping[str, Tensor], Tensor | None]:
        if self.kept is None:
            return features, None
        kept = self.kept[batch.position].unbind(dim=1)
        return {m: f * keep[:, None].to(f.dtype) for (m, f), keep in zip(features.items(), kept, strict=True)}, None

    def after_epoch(self, ctx: Context) -> None:
        p, count = self.params, len(ctx.labels("train"))
        if not p.warm_up <= ctx.epoch + 1 < ctx.epochs:
            return
        rows = None
        if p.level == "modality":
            rows = torch.randperm(count, generator=ctx.rng)[: max(1, int(p.part * count))]
        contribution = self.contribution(ctx, rows)
        mean = contribution.double().mean(dim=0).tolist()
        if p.level == "sample":
            self.rows, self.kept = resample(contribution)
        else:
            self.rows, self.kept = redraw(mean, count, p.alpha, p.shape, ctx.device_rng)
        for m, value in zip(ctx.model.modalities, mean, strict=True):
            ctx.log(f"shapley/{m}", value)
        ctx.log("visits", len(self.rows))

    def contribution(self, ctx: Context, rows: Tensor | None = None) -> Tensor:
        """c (N, M) of rows (N,) of train, by default all."""
        from pipeline_src.models.fusions.base import only

        names = ctx.model.modalities
        sets = [s for n in range(1, len(names) + 1) for s in itertools.combinations(names, n)]
        label = ctx.labels("train")
        label, seen = label if rows is None else label[rows.to(label.device)], 0

        def read(features: Features) -> dict[str, Tensor]:
            nonlocal seen
            size = len(next(iter(features.values())))
            truth, seen = label[seen : seen + size], seen + size
            return {",".join(s): ctx.task.right(self.logits(ctx.model, only(features, s)), truth) for s in sets}

        right, _ = ctx.collect("train", rows, read=read)
        return values({s: right[",".join(s)] for s in sets}, names)

    def state_dict(self) -> dict[str, Tensor]:
        return {} if self.rows is None or self.kept is None else {"rows": self.rows, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.rows, self.kept = state.get("rows"), state.get("kept")
