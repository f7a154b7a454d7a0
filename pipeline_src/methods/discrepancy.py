"""How far the modalities are apart: the scores and ratios that OGM, OPM and PMR balance by.

    s_m   = sum_i softmax(z_m,i)[y_i]                       OGM Eq. 8, over the batch; z_m: logits of modality m
    rho_m = 1 / (M - 1) sum_{j != m} s_m / s_j              OPM Eq. 6-7; for M = 2 OGM Eq. 9

OGM is defined for two modalities; for more, the mean over the others is what OPM's paper states and OGM's authors
advise
(OGM-GE issue 16), the smallest other score is BalanceBenchmark's rule. Peng et al., CVPR 2022, arXiv:2203.15332; Wei et
al., TPAMI 2024, arXiv:2410.11582.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import Quantity

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_src.tasks.base import Task

Others = Literal["mean", "min"]
SCORE_FLOOR = 1e-8

SCORE = Quantity(
    name="score",
    unit="samples",
    caption="The sum over a batch of the probability that the modality's own logits give to the true class.",
    detail=True,
)
RATIO = Quantity(
    name="ratio",
    unit="",
    caption="How far a modality is ahead of the others by its score in the method; above 1 it is ahead.",
    scale="log",
    reference=1.0,
)


def scores(task: Task, logits: dict[str, Tensor], label: Tensor) -> dict[str, Tensor]:
    """Each modality's confidence of the truth (of a class: its probability), summed: logits {m: (B, C)} -> {m: ()}."""
    return {m: task.confidence(z, label).sum() for m, z in logits.items()}


def ratios(scores: dict[str, Tensor], others: Others = "mean") -> dict[str, Tensor]:
    """Discrepancy ratio of each modality to the others, {m: ()}: above 1 it is ahead of them. Needs two or more.

    A score counts as SCORE_FLOOR at least, so that ratios stay finite; two scores of nothing have a ratio of 1.
    """
    if len(scores) < 2:
        raise ValueError("a discrepancy ratio needs two modalities or more")
    scores = {m: s.clamp(min=SCORE_FLOOR) for m, s in scores.items()}
    found = {}
    for m, own in scores.items():
        rest = torch.stack([other for name, other in scores.items() if name != m])
        found[m] = (own / rest).mean() if others == "mean" else own / rest.min()
    return found
