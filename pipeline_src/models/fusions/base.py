"""Fusions: features of every modality to the joint logits, and the logits that a fusion can give of one modality."""

from typing import ClassVar

import torch
from torch import Tensor, nn


class Fusion(nn.Module):
    """Maps features {m: (B, D_m)} to logits (B, C). `dims` is {m: D_m} in the order of the modalities.

    `unimodal` gives logits (B, C) of each modality. A fusion that is a sum over modalities is registered with
    `additive=True` and gives the exact shares, which add up to the joint logits; from any other fusion they are the
    prediction with the other modalities removed.
    """

    additive: ClassVar[bool]  # a fact of the registration

    def __init__(self, dims: dict[str, int], classes: int):
        super().__init__()
        self.dims, self.classes = dict(dims), classes

    def unimodal(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {m: self(only(features, [m])) for m in features}


def only(features: dict[str, Tensor], kept: list[str]) -> dict[str, Tensor]:
    """Features with every modality but the kept ones removed, that is set to zero (arXiv:2410.11582, Sec. 4.3.7)."""
    return {m: f if m in kept else torch.zeros_like(f) for m, f in features.items()}


def linear(inside: int, outside: int) -> nn.Linear:
    """A linear layer with Xavier weights and zero bias, the initialisation of OGM-GE's fusion."""
    layer = nn.Linear(inside, outside)
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
