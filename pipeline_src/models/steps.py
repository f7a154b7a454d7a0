"""A module that reads steps one after the other: words, or vectors of features. Encoders build theirs from it."""

import torch
from torch import Tensor, nn


class Steps(nn.Module):
    """Vectors (B, T, D) or words (B, T) -> (B, width).

    `read` turns a step into a vector of `width`; `layers` follow, each called with the padding as its mask; `pool` is
    "mean" over steps or the "first" of them. Steps of nothing but zeros are padding, left out of attention and pool
    if `mask` is set; a clip of padding alone is read like any other.
    """

    def __init__(self, read: nn.Module, layers: list[nn.Module], positions: Tensor | None, pool: str, mask: bool):
        super().__init__()
        self.read, self.layers, self.pool, self.mask = read, nn.ModuleList(layers), pool, mask
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        padding = x.eq(0) if x.dim() == 2 else x.eq(0).all(-1)
        padding = padding & ~padding.all(1, keepdim=True) & self.mask
        h = self.read(x)
        if self.positions is not None:
            h = h + self.positions
        for layer in self.layers:
            h = layer(h, src_key_padding_mask=padding)
        if self.pool == "first":
            first = (~padding).int().argmax(1)
            return h[torch.arange(len(h), device=h.device), first]
        kept = (~padding).unsqueeze(-1).to(h.dtype)
        # Not h * kept: what stands in a padded place may be anything.
        return torch.where(padding.unsqueeze(-1), 0, h).sum(1) / kept.sum(1)


def sine(length: int, width: int) -> Tensor:
    """Positions (length, width), even `width`: sines and cosines of wavelengths from 2 pi to 10,000 * 2 pi."""
    rate = torch.exp(torch.arange(0, width, 2) * (-torch.log(torch.tensor(10_000.0)) / width))
    angle = torch.arange(length)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
