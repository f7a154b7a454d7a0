"""Encoders of steps, one after the other: words, or vectors of features. A state between stages is (h, padding), with
h (B, T, width) and padding (B, T) bool, True at steps that are left out of attention and pool.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline_src.models.stages import Stages, State

Pair = tuple[Tensor, Tensor]


class Steps(Stages):
    """Stages `read`, `layer1`, `layer2`, ..., `pool`: what `read` takes -> (B, width)."""

    def __init__(self, read: nn.Module, layers: list[nn.Module], pool: str):
        numbered = [(f"layer{i}", layer) for i, layer in enumerate(layers, start=1)]
        super().__init__([("read", read), *numbered, ("pool", Pool(pool))])

    def expose(self, state: Any) -> State:
        h, padding = state
        return State(h.movedim(-1, 1), padding)

    def put(self, state: Any, x: Tensor | State) -> Pair:
        if isinstance(x, State):
            assert x.padding is not None
            return x.x.movedim(1, -1), x.padding
        return x.movedim(1, -1), state[1]


class Words(nn.Embedding):
    """Words (B, T) -> (h, padding). Word 0 is padding, unless `mask` is false; `positions` (T, width) are added."""

    def __init__(self, words: int, width: int, positions: Tensor | None = None, mask: bool = True):
        super().__init__(words, width, padding_idx=0)
        self.mask = mask
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, x: Tensor) -> Pair:  # type: ignore[override]
        return _placed(super().forward(x), self.positions), _padding(x.eq(0), self.mask)


class Vectors(nn.Linear):
    """Vectors (B, T, D) -> (h, padding). Steps of zeros are padding, unless `mask` is false; see `Words`."""

    def __init__(self, inside: int, width: int, positions: Tensor | None = None, mask: bool = True):
        super().__init__(inside, width)
        self.mask = mask
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, x: Tensor) -> Pair:  # type: ignore[override]
        return _placed(super().forward(x), self.positions), _padding(x.eq(0).all(-1), self.mask)


class Patches(nn.Conv2d):
    """Frames (B, T, C, H, W) or spectrograms (B, F, T) -> (h, padding): a step for every patch of every frame, in the
    order of frames, rows and columns. What is left over at the lower and right edge is not read.
    """

    def __init__(self, channels: int, width: int, patch: tuple[int, int], positions: Tensor | None = None):
        super().__init__(channels, width, patch, stride=patch)
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, x: Tensor) -> Pair:  # type: ignore[override]
        frames = x[:, None, None] if x.dim() == 3 else x
        h = super().forward(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])  # (B, T, width, rows, columns)
        h = _placed(h.movedim(2, -1).flatten(1, 3), self.positions)
        return h, torch.zeros(h.shape[:2], dtype=torch.bool, device=h.device)


class Token(nn.Module):
    """Puts a learnt step in front, a class token, that no padding hides and that has no position."""

    def __init__(self, width: int):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(width))

    def forward(self, state: Pair) -> Pair:
        h, padding = state
        first = self.token.to(h.dtype).expand(len(h), 1, -1)
        return torch.cat([first, h], dim=1), nn.functional.pad(padding, (1, 0))


class Layer(nn.TransformerEncoderLayer):
    """PyTorch's layer on (h, padding)."""

    def forward(self, state: Pair) -> Pair:  # type: ignore[override]
        h, padding = state
        return super().forward(h, src_key_padding_mask=padding), padding


class LastLayer(Layer):
    """A layer with its norms before each part, and one after them, for the last of such layers."""

    def __init__(self, width: int, *arguments: Any, **how: Any):
        super().__init__(width, *arguments, **how)
        self.norm = nn.LayerNorm(width)

    def forward(self, state: Pair) -> Pair:  # type: ignore[override]
        h, padding = super().forward(state)
        return self.norm(h), padding


class Pool(nn.Module):
    """(h, padding) -> (B, width): the "mean" over steps that are not padding, or the "first" or "last" of them."""

    def __init__(self, over: str):
        super().__init__()
        self.over = over

    def forward(self, state: Pair) -> Tensor:
        h, padding = state
        if self.over == "last":
            last = padding.shape[1] - 1 - (~padding).flip(1).int().argmax(1)
            return h[torch.arange(len(h), device=h.device), last]
        if self.over == "first":
            first = (~padding).int().argmax(1)
            return h[torch.arange(len(h), device=h.device), first]
        kept = (~padding).unsqueeze(-1).to(h.dtype)
        # Not h * kept: a padded place may hold any value, NaN included.
        return torch.where(padding.unsqueeze(-1), 0, h).sum(1) / kept.sum(1)


def _placed(h: Tensor, positions: Tensor | None) -> Tensor:
    return h if positions is None else h + positions


def _padding(padding: Tensor, mask: bool) -> Tensor:
    """Padding (B, T) that is left out: none of it without `mask`, and none of a clip that is padding alone."""
    return padding & ~padding.all(1, keepdim=True) & mask


def sine(length: int, width: int) -> Tensor:
    """Positions (length, width), even `width`: sines and cosines of wavelengths from 2 pi to 10,000 * 2 pi."""
    rate = torch.exp(torch.arange(0, width, 2) * (-torch.log(torch.tensor(10_000.0)) / width))
    angle = torch.arange(length)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
