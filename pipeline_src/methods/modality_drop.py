"""Modality-drop: a modality's features are left out at random while training.

Xiao et al., "Audiovisual SlowFast networks for video recognition", arXiv:2001.08740 (DropPathway: audio, for the whole
batch); compared with by PMR (arXiv:2211.07089, Table 2), whose probability is not given. No code was read.

    f_m,i <- 0    with probability q_m, for a sample i or for the whole batch

At least one modality is kept: a draw that drops all counts as not made. Features are not rescaled (as recalled). In
evaluation all modalities are there. q = 0 is joint training.

In metrics.jsonl, means over the steps: dropped/m, the fraction of samples without modality m.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.core.upload import upload
from pipeline_src.methods.base import Method, MethodParams, Quantity, methods

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Generator, Tensor

    from pipeline_src.methods.base import Batch, Context, Setting
    from pipeline_src.models.fusions.base import Features

Probability = Annotated[float, Field(ge=0, lt=1)]


def draw(probability: list[float], count: int, rng: Generator) -> Tensor:
    """Which of M modalities each of `count` samples keeps, (count, M) bool; every sample keeps one at least."""
    kept = [one for one in itertools.product([False, True], repeat=len(probability)) if any(one)]
    q = torch.tensor(probability, dtype=torch.float64, device=rng.device)
    choices = torch.tensor(kept, device=rng.device)
    weights = torch.where(choices, 1 - q, q).prod(dim=1)
    return choices[torch.multinomial(weights, count, replacement=True, generator=rng)]


class ModalityDropParams(MethodParams):
    probability: Probability | dict[str, Probability] = Field(
        0.2, description="q, of each modality or by modality (0 where none is named); published for this use: none"
    )
    unit: Literal["sample", "batch"] = Field(
        "sample", description="what a draw holds for; DropPathway draws for the whole batch"
    )


@methods.register("modality_drop")
class ModalityDrop(Method):
    """Leaves modalities out at random, so that each must predict alone now and then."""

    family = "features"
    Params = ModalityDropParams
    params: ModalityDropParams
    quantities = (Quantity("dropped", "", "Fraction of samples that are trained without a modality.", limits=(0, 1)),)

    @classmethod
    def refuses(cls, params: ModalityDropParams, setting: Setting) -> str | None:
        if isinstance(params.probability, dict) and (why := setting.unknown("probabilities", params.probability)):
            return why
        return setting.lacks(modalities=2, no_taps=True)

    def on_features(self, ctx: Context, features: Features, batch: Batch) -> tuple[Mapping[str, Tensor], Tensor | None]:
        p = self.params.probability
        q = [p.get(m, 0.0) if isinstance(p, dict) else p for m in features]
        if not any(q):
            return features, None
        rows = len(batch.label) if self.params.unit == "sample" else 1
        kept = upload(draw(q, rows, ctx.rng), batch.label.device)  # drawn on the CPU: a GPU would be waited for
        for m, keep in zip(features, kept.unbind(dim=1), strict=True):
            ctx.log(f"dropped/{m}", (~keep).float().mean())
        return {m: f * keep[:, None].to(f.dtype) for (m, f), keep in zip(features.items(), kept.T, strict=True)}, None
