"""Fusions: features of every modality to the joint logits, and the logits that a fusion can give of one modality."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline_src.models.base import FusionFacts, FusionParams
from pipeline_src.models.stages import State


class Features(dict[str, Tensor]):
    """Features {m: (B, D_m)}, as `MultimodalModel.encode` gives them.

    `hidden` {m: one State per tap} is what a fusion that reads hidden states finds there; empty for any other. A
    modality that was removed has features of zero and is not in `hidden`.
    """

    def __init__(self, features: Mapping[str, Tensor], hidden: Mapping[str, tuple[State, ...]] | None = None):
        super().__init__(features)
        self.hidden = dict(hidden or {})

    def replaced(self, features: Mapping[str, Tensor]) -> Features:
        """Other features with these hidden states."""
        return Features(features, self.hidden)

    def float(self) -> Features:
        """In float32."""
        hidden = {m: tuple(State(x.float(), padding) for x, padding in states) for m, states in self.hidden.items()}
        return Features({m: f.float() for m, f in self.items()}, hidden)

    def rows(self, kept: Tensor) -> Features:
        """The samples that `kept` (B,) bool selects."""
        hidden = {m: tuple(state.rows(kept) for state in states) for m, states in self.hidden.items()}
        return Features({m: f[kept] for m, f in self.items()}, hidden)


class Fusion(nn.Module, FusionFacts):
    """Maps features {m: (B, D_m)} to logits (B, C). `dims` is {m: D_m} in the order of the modalities.

    A fusion with taps is given `widths` {m: channels at each tap} as well if there are two modalities or more, the same
    number of taps for each. At tap i the model calls `exchange(i, states)` if the fusion `writes`; the states are also
    in `features.hidden` if it `reads`. Its weights belong to no modality: methods that change `model.encoders[m]` leave
    them alone. Features are then those after the last exchange.
    """

    name: ClassVar[str]  # that it is registered under
    params = FusionParams()  # `build` sets those of the run

    def __init__(self, dims: dict[str, int], classes: int, widths: dict[str, tuple[int, ...]] | None = None):
        super().__init__()
        self.dims, self.classes, self.widths = dict(dims), classes, dict(widths or {})

    def linear_weights(self) -> dict[str, Tensor]:
        """W_m (C, D_m) of each modality, of a linear fusion."""
        raise NotImplementedError

    def linear_gradients(self) -> dict[str, list[Tensor]]:
        """Each modality's part of the gradients, views that may be changed in place, of a linear fusion."""
        raise NotImplementedError

    def exchange(self, tap: int, states: dict[str, State]) -> Mapping[str, Tensor | State]:
        """New values {m: (B, C_m, *places)} of the states at a tap, counted from 0. Removed modalities are missing.

        A fusion of `steps` may give whole states, with other steps or channels and their padding.
        """
        raise NotImplementedError

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits (B, C) of each modality, from features alone; `unimodal_by` says how.

        Here by removal of the others. A fusion that is a sum over modalities gives its terms, which add up to the joint
        logits. A fusion with taps must have classifiers of its own, as features alone tell it too little.
        """
        if self.taps:
            raise NotImplementedError(f"fusion {self.name!r}: expected unimodal logits of its own, as it has taps")
        return {m: self(only(features, [m])) for m in features}


def only(features: Mapping[str, Tensor], kept: Collection[str]) -> Features:
    """Features with every modality but the kept ones removed, that is set to zero (arXiv:2410.11582, Sec. 4.3.7)."""
    hidden = getattr(features, "hidden", {})
    return Features(
        {m: f if m in kept else torch.zeros_like(f) for m, f in features.items()},
        {m: states for m, states in hidden.items() if m in kept},
    )


def linear(inside: int, outside: int) -> nn.Linear:
    """A linear layer with Xavier weights and zero bias, the initialisation of OGM-GE's fusion."""
    layer = nn.Linear(inside, outside)
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
