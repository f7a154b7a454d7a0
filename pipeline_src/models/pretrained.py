"""Models of Hugging Face `transformers` as modules: one input in, features out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Pooled(nn.Module):
    """A model whose output is pooled: its `first` step, the `mean` over steps, or the model's own `pooler`."""

    def __init__(self, model: nn.Module, pool: str):
        super().__init__()
        self.model, self.pool = model, pool

    def pooled(self, output: Any, padding: Tensor | None = None) -> Tensor:
        """(B, D) from steps (B, T, D) or maps (B, D, H, W) of the model's output; `padding` (B, T) is left out."""
        if self.pool == "pooler":
            return output.pooler_output.flatten(1)
        h = output.last_hidden_state
        h = h.flatten(2).transpose(1, 2) if h.dim() == 4 else h
        if self.pool == "first":
            return h[:, 0]
        if padding is None:
            return h.mean(1)
        kept = (~padding).unsqueeze(-1)
        return torch.where(kept, h, 0).sum(1) / kept.sum(1)


class Texts(Pooled):
    """Tokens (B, T) -> (B, D). Token 0 is padding; a text of padding alone is read as a text of token 1."""

    def forward(self, x: Tensor) -> Tensor:
        padding = x.eq(0) & ~x.eq(0).all(1, keepdim=True)
        output = self.model(input_ids=(x - 1).clamp_min(0), attention_mask=(~padding).long())
        return self.pooled(output, padding)


class Pictures(Pooled):
    """Images (B, C, H, W) -> (B, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.pooled(self.model(pixel_values=x))


class Sound(Pooled):
    """Spectrograms (B, F, T) -> (B, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.pooled(self.model(input_values=x.transpose(1, 2)))
