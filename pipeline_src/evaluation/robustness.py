"""Accuracy on test with corrupted modalities: each by itself, and all of them together.

The generator of each corruption and modality is the run's: the same samples are spoiled in the same way for every
method of a seed and for every rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline_src.core.seeding import generator
from pipeline_src.corruptions.base import Corruption, CorruptionParams, corruptions, unfit
from pipeline_src.evaluation import CORRUPTED, FUSED, corrupted_name
from pipeline_src.models.fusions.base import Features
from pipeline_src.training import device as devices

if TYPE_CHECKING:
    from pipeline_src.training.assemble import Assembly
    from pipeline_src.training.loader import Loader
    from pipeline_src.training.transform import Transform


class Robustness:
    """The corrupted test samples of one run; `clean` are their features {m: (N, D_m)} as they are."""

    def __init__(
        self,
        built: Assembly,
        loader: Loader,
        transform: Transform,
        clean: Mapping[str, Tensor],
        *,
        seed: int,
        batch_size: int,
        precision: str,
    ):
        self.built, self.loader, self.transform, self.clean = built, loader, transform, clean
        self.seed, self.batch_size, self.precision = seed, batch_size, precision

    def rows(self, asked: Mapping[str, CorruptionParams]) -> Iterator[dict[str, Any]]:
        """The primary metric in long form: of each corruption, rate and corrupted modality, FUSED for all together."""
        metric = self.built.task.primary.name
        for name, params in asked.items():
            chosen = self._chosen(name, params)
            spoil = corruptions[name](params)
            for rate in params.rates:
                for of, logits in self._logits(spoil, rate, chosen):
                    if bool(logits.isfinite().all()):
                        value = self.built.task.score(logits, self.loader.label)
                        what = corrupted_name(metric, name, rate)
                        yield {"split": CORRUPTED, "modality": of, "metric": what, "value": value}

    def _chosen(self, name: str, params: CorruptionParams) -> list[str]:
        """The run's modalities that a corruption spoils."""
        wanted = self.built.model.modalities if params.modalities is None else params.modalities
        layouts = self.transform.layouts
        return [m for m in self.built.model.modalities if m in wanted and unfit(name, layouts[m]) is None]

    @torch.no_grad()
    def _logits(self, spoil: Corruption, rate: float, chosen: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """The prediction (N, C) with each chosen modality corrupted, and with all of them if there are several."""
        model, method, _ = self.built
        targets = {m: [m] for m in chosen} | ({FUSED: list(chosen)} if len(chosen) > 1 else {})
        if model.taps:  # a feature depends on the other modalities
            for of, spoiled in targets.items():
                batches = self._encoded(spoil, rate, spoiled)
                yield of, torch.cat([method.logits(model, features).float() for features in batches])
        elif chosen:
            found = joined(self._encoded(spoil, rate, chosen))
            for of, spoiled in targets.items():
                features = {m: found[m] if m in spoiled else f for m, f in self.clean.items()}
                yield of, method.logits(model, Features(features))

    def _encoded(self, spoil: Corruption, rate: float, spoiled: Iterable[str]) -> Iterator[Features]:
        model, device = self.built.model, self.loader.device
        generators = {m: generator(self.seed, "corruption", spoil.name, m) for m in spoiled}
        for batch in self.loader.batches(self.batch_size):
            inputs = self.transform(batch.inputs)
            for m, draws in generators.items():
                inputs[m] = self.transform.corrupted(m, inputs[m], spoil, rate, draws)
            with devices.autocast(device, self.precision):
                yield model.encode(inputs)


@torch.no_grad()
def joined(batches: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors {name: (N, ...)} float32 of every sample of a split, in order, from those of its batches."""
    parts: dict[str, list[Tensor]] = {}
    for batch in batches:
        for name, x in batch.items():
            parts.setdefault(name, []).append(x.float())
    return {name: torch.cat(part) for name, part in parts.items()}
