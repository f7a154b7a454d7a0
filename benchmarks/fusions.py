"""What a fusion costs beside concatenation with the same encoders: time of a step of joint training, memory."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.methods import Noise, _Clock, _endless, joint_on_noise, memory, trainer
from pipeline_src.models.base import fusion_refuses
from pipeline_src.models.base import fusions as registry
from pipeline_src.study.plan import Plan

if TYPE_CHECKING:
    import torch

    from pipeline_src.training.spec import RunSpec

TURNS = 40  # steps of each


def fusions(plan: Plan) -> None:
    """Print what a step costs with every fusion that suits the plan's first cell with most modalities.

    step     time of a step over that of a step with concat taken in the same turn, the median of 40 turns, and how far
             the quarters are apart; concat is measured against itself. On a CPU it is CPU time, as in `methods`
    memory   the most that a step's tensors take at once, beyond what was there before it, over concat's; see `methods`
    weights  parameters of the fusion, in thousands; in brackets those of the encoders
    """
    spec, cache, device = joint_on_noise(plan)
    spec = replace(spec, fusion="concat")
    print("| fusion | step | memory | weights |")
    print("|---|---|---|---|", flush=True)
    plain = memory(trainer(spec, cache, device))
    for name in registry:
        if fusion_refuses(name, spec.encoders) is not None:
            continue
        own = replace(spec, fusion=name)
        middle, spread, weights = step(own, spec, cache, device)
        peak = memory(trainer(own, cache, device)) / plain
        print(f"| {name} | {middle:.3f} ± {spread:.3f} | {peak:.2f} | {weights} |", flush=True)


def step(own: RunSpec, plain: RunSpec, cache: Noise, device: torch.device) -> tuple[float, float, str]:
    """Time of a step over a plain one's: median, half the distance of the quarters; and the weights of the fusion."""
    runs = trainer(own, cache, device), trainer(plain, cache, device)
    clocks, turns = [_Clock(run) for run in runs], [_endless(run) for run in runs]
    for i in range(TURNS + 2):
        for turn in turns if i % 2 else turns[::-1]:  # neither always comes first
            next(turn)
    ratios = [a / b for a, b in zip(*(clock.steps[2:] for clock in clocks), strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    count = {part: sum(p.numel() for p in getattr(runs[0].model, part).parameters()) for part in ("fusion", "encoders")}
    return middle, (high - low) / 2, f"{count['fusion'] / 1000:,.0f} ({count['encoders'] / 1000:,.0f})"
