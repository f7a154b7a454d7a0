"""MulT: crossmodal transformers on unaligned sequences (Tsai et al., ACL 2019, arXiv:1906.00295).

At the last tap, with x_m (B, T_m, d) the steps of modality m, and T_m of any length:

    y_{j>m} = CM_{j>m}(x_m, x_j)             queries from m, keys and values from j, for every ordered pair
    h_m     = SA_m([y_{j>m}, j != m])        (M - 1) d wide; f_m is a step of it, the last with `pool: last`
    z       = W [v + W_2 ReLU(W_1 v + b_1) + b_2] + b      v = [f_1; ...; f_M]

CM has five layers and SA three: x <- x + attention(norm(x), norm(x_j)), then x <- x + FFN(norm(x)) with 4 times the
width inside, a norm at the end, inputs times sqrt(d) plus sines for positions. In SA, x_j is x. A removed modality is
not encoded; its y are zero. Unimodal logits are z with the other modalities' f set to zero; f knows the others, as what
is removed there is the features only.

Checked in the authors' code (github.com/yaohungt/Multimodal-Transformer, src/models.py, modules/transformer.py,
main.py): one norm for queries, keys and values of a layer, keys that stay x_j in all layers, d = 30, five layers and
heads, 1 x 1 convolutions without bias before, the last step, dropout 0.1 and 0.2 on the inputs, Xavier weights and the
residual block at the end. There SA has max(5, 3) = 5 layers with the default of five, and attention is masked so that
steps do not see later ones; here SA has the three that the code asks for, and there is no such mask. There padding is
read as other steps are; here keys that are padding are left out. There dropout differs by modality; here all have the
text's. Heads: five, or the largest number below that divides the width.
The code clips gradients (0.8 to 1.0) and trains with Adam; nothing here clips.
For the published model choose encoders `transformer` with `layers: 0`, `width: 30`, `positions: none`, `pool: last`.
Two modalities: the same equations [extension]. One modality: a linear classifier.
"""

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from pipeline_src.core.upload import upload
from pipeline_src.models.base import fusions
from pipeline_src.models.fusions.base import Fusion, linear, only
from pipeline_src.models.stages import State
from pipeline_src.models.steps import sine

LAYERS, MEMORY_LAYERS, HEADS = 5, 3, 5
DROPOUT, EMBEDDED_DROPOUT = 0.1, 0.2


class CrossLayer(nn.Module):
    """x (B, T, D) that attends to `other` (B, S, D), of which `padding` (B, S) is left out."""

    def __init__(self, width: int):
        super().__init__()
        heads = max(n for n in range(1, HEADS + 1) if width % n == 0)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, DROPOUT, batch_first=True)
        inner, outer = linear(width, 4 * width), linear(4 * width, width)
        self.feedforward = nn.Sequential(inner, nn.ReLU(), nn.Dropout(DROPOUT), outer)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, other: Tensor | None, padding: Tensor) -> Tensor:
        query = self.norm1(x)
        key = query if other is None else self.norm1(other)
        seen, _ = self.attention(query, key, key, key_padding_mask=padding, need_weights=False)
        x = x + self.dropout(seen)
        return x + self.dropout(self.feedforward(self.norm2(x)))


class Cross(nn.Module):
    """A stack of `CrossLayer`: x (B, T, D) and another modality (B, S, D), or x itself -> (B, T, D)."""

    positions: Tensor

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.layers = nn.ModuleList(CrossLayer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("positions", torch.zeros(0, width), persistent=False)  # of the longest seen so far

    def forward(self, x: Tensor, other: Tensor | None, padding: Tensor) -> Tensor:
        x = self._placed(x)
        other = None if other is None else self._placed(other)
        for layer in self.layers:
            x = layer(x, other, padding)
        return self.norm(x)

    def _placed(self, x: Tensor) -> Tensor:
        _, length, width = x.shape
        if len(self.positions) < length:
            self.positions = upload(sine(length, width + width % 2)[:, :width].contiguous(), x.device)
        return dropout(math.sqrt(width) * x + self.positions[:length], EMBEDDED_DROPOUT, self.training)


@fusions.register("mult", taps=1, writes=True, steps=True, widens=True)
class MulT(Fusion):
    def __init__(self, dims: dict[str, int], classes: int, widths: dict[str, tuple[int, ...]] | None = None):
        super().__init__(dims, classes, widths)
        if not self.widths:
            self.out = linear(sum(dims.values()), classes)
            return
        ((width,),) = set(self.widths.values())  # one for all: `steps`
        every, wide = list(dims), (len(dims) - 1) * width
        self.dims = dict.fromkeys(every, wide)
        self.cross = nn.ModuleDict(
            {m: nn.ModuleDict({j: Cross(width, LAYERS) for j in every if j != m}) for m in every}
        )
        self.memory = nn.ModuleDict({m: Cross(wide, MEMORY_LAYERS) for m in every})
        total = len(dims) * wide
        self.inner, self.outer = linear(total, total), linear(total, total)
        self.out = linear(total, classes)

    def exchange(self, tap: int, states: dict[str, State]) -> dict[str, State]:
        steps = {m: state.x.movedim(1, -1) for m, state in states.items()}
        hidden = {m: _padding(state) for m, state in states.items()}
        written = {}
        for m, x in steps.items():
            crossed = cast(nn.ModuleDict, self.cross[m])
            parts = [
                cross(x, steps[j], hidden[j]) if j in steps else torch.zeros_like(x) for j, cross in crossed.items()
            ]
            h = self.memory[m](torch.cat(parts, dim=-1), None, hidden[m])
            written[m] = State(h.movedim(-1, 1), hidden[m])
        return written

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        v = torch.cat([features[m] for m in self.dims], dim=1)
        if self.widths:
            v = v + self.outer(torch.relu(self.inner(v)))
        return self.out(v)

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: self(only(features, [m])) for m in features}


def _padding(state: State) -> Tensor:
    assert state.padding is not None
    return state.padding
