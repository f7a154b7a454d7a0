"""Stages of the encoder `recurrent`."""

from typing import Self

from torch import Tensor, nn


class Places(nn.Module):
    """Features (R, 1, P x C) of rows, place after place -> (R, C, P)."""

    def __init__(self, places: int):
        super().__init__()
        self.places = places

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.places, -1)).flatten(1, 2).transpose(1, 2)


class OverSegments(nn.Module):
    """Vectors (B x T, C), the T segments of a sample one after the other -> (B x T, D) by a network (B, T, C) -> (B, T,
    D).

    The LSTM itself stays in training mode: in evaluation mode cuDNN refuses to pass gradients back through it. Without
    dropout, which an LSTM of one layer cannot have, its numbers are the same in both modes, bit for bit.
    """

    def __init__(self, lstm: nn.LSTM, segments: int):
        super().__init__()
        self.lstm, self.segments = lstm, segments

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.lstm.train()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x.unflatten(0, (-1, self.segments)))[0].flatten(0, 1)
