"""Stages of the encoder `recurrent`."""

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
    """

    def __init__(self, lstm: nn.LSTM, segments: int):
        super().__init__()
        self.lstm, self.segments = lstm, segments

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x.unflatten(0, (-1, self.segments)))[0].flatten(0, 1)
