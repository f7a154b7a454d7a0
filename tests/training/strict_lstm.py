"""An LSTM of the test device (see `strict`), for which PyTorch has no kernel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from tests.training.strict_module import module


def lstm(
    x: Tensor,
    states: tuple[Tensor, Tensor],
    weights: list[Tensor],
    biases: bool,
    layers: int,
    dropout: float,
    training: bool,
    both_ways: bool,
    batch_first: bool,
) -> tuple[Tensor, None, None]:
    """`torch.lstm` of one layer with biases: x (B, T, C) -> (B, T, D), without the last states.

    It notes where a gradient comes back though it is not `training`, for which cuDNN has an error.
    """
    assert biases and batch_first and layers == 1
    ways = []
    for way in range(1 + both_ways):
        of_input, of_state, *bias = weights[4 * way : 4 * way + 4]
        h, c = (state[way] for state in states)
        steps = linear(x, of_input, bias[0]).unbind(1)
        outputs = []
        for step in reversed(steps) if way else steps:
            i, f, g, o = (step + linear(h, of_state, bias[1])).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        ways.append(torch.stack(outputs[::-1] if way else outputs, dim=1))
    out = torch.cat(ways, dim=2)
    if out.requires_grad and not training:
        out.register_hook(lambda gradient: module.watch.note("a gradient goes back through an LSTM in evaluation mode"))
    return out, None, None
