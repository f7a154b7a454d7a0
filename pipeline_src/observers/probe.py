"""A linear probe over the epochs: how much of the label each encoder's features hold, whatever fuses them.

A linear model is fitted on the features of train and scored on val (OPM and OGM, TPAMI 2024, Fig. 1); that of the
evaluation, at the selected epoch, is scored on test as well. See tasks/probe.py.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from pipeline_src.core.errors import UserError
from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import Quantity
from pipeline_src.observers.base import Observed, Observer, ObserverParams, observers


class ProbeParams(ObserverParams):
    c: float = Field(default=1.0, ge=1e-6, le=1_000_000, description="inverse strength of the L2 penalty")
    iterations: int = Field(default=1000, ge=1, le=1_000_000, description="most L-BFGS steps of a fit")
    samples: int | None = Field(
        default=None, ge=1, description="of train, drawn once, that the probe is fitted on; null: all"
    )


@observers.register("probe")
class Probe(Observer):
    """A linear probe of each encoder, scored on val."""

    Params = ProbeParams
    params: ProbeParams
    quantities = (
        Quantity(
            "probe_on_val",
            "",
            "The task's first metric on val of a linear model that is fitted on the features of the frozen encoder.",
        ),
    )

    def observe(self, run: Observed) -> dict[str, float]:
        p, train, val = self.params, run.seen("train"), run.seen("val")
        rows = torch.randperm(len(train.label), generator=run.generator("probe"))[: p.samples].sort().values
        target = train.label.cpu()[rows].numpy()
        found = {}
        for m in run.model.modalities:
            features = train.features[m][rows].numpy()
            if not np.isfinite(features).all():
                raise UserError(f"expected finite features of {m!r} on train, but got others")
            (logits,) = run.task.probe(features, target, [val.features[m].numpy()], p.c, p.iterations)
            found[f"probe_on_val/{m}"] = run.task.score(torch.from_numpy(logits), val.label.cpu())
        return found
