"""FiLM: one modality scales and shifts the features of the others (Perez et al., AAAI 2018, arXiv:1709.07871, Eq. 1-2).

    z = W [(offset + gamma) * f + beta] + b   f = [f_j, j != m]: features of the modulated modalities
    [gamma; beta] = W_film f_m + b_film       m: the modulating modality

`film`: the first modality modulates; `film_reversed`: the last one does. For two modalities these are the directions of
OGM-GE's FiLM option; for more, all others are modulated together [extension]. With one modality there is nothing to
modulate: the fusion is a linear classifier, as concatenation is.

Unimodal logits are the prediction with the other modalities' features set to zero:

    modulating m alone   W beta(f_m) + b: only the shift is left, as gamma multiplies zero
    modulated j alone    linear in f_j, scaled by offset + gamma and shifted by beta of the biases b_film alone

`model.fusion.offset` is 1 by default, which keeps the second informative. OGM-GE and PMR release FiLM with offset 0:
with the zero biases that training starts from, removing the modulating modality then makes the prediction of every
other one the constant b, so that methods that score modalities by removal have little to go by. Perez et al. predict
the scale's difference from 1 as well (Eq. 3), because a scale near zero would remove the features.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline_src.models.base import fusions
from pipeline_src.models.fusions.base import Fusion, linear


@fusions.register("film", additive=False)
class Film(Fusion):
    """FiLM: the first modality scales and shifts the features of the others (Perez et al., AAAI 2018, Eq. 1-2)."""

    modulating = 0  # position of the modality that modulates

    def __init__(self, dims: dict[str, int], classes: int):
        super().__init__(dims, classes)
        self.by = list(dims)[self.modulating]
        self.modulated = [m for m in dims if m != self.by]
        width = sum(dims[m] for m in self.modulated)
        if self.modulated:
            self.film = linear(dims[self.by], 2 * width)
        self.out = linear(width or dims[self.by], classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        f = features[self.by]
        if self.modulated:
            gamma, beta = self.film(f).chunk(2, dim=1)  # (B, sum of D_j) each
            f = (self.params.offset + gamma) * torch.cat([features[m] for m in self.modulated], dim=1) + beta
        return self.out(f)


@fusions.register("film_reversed", additive=False)
class FilmReversed(Film):
    """FiLM in which the last modality scales and shifts the features of the others."""

    modulating = -1
