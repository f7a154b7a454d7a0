"""What the processes of a run exchange: tensors, over gloo from the CPU and over NCCL from GPUs.

Each call waits for the other processes, so all of them must make the same calls in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


class LostError(RuntimeError):
    """Another process of the run cannot be reached."""


def all_gather(x: Tensor, rows: int | None = None) -> list[Tensor]:
    """Every process's tensor, of any type; they have one shape, or up to `rows` rows and are filled up to that."""
    rows = x.shape[0] if rows is None else rows
    mine = x.contiguous() if len(x) == rows else torch.cat([x, x.new_zeros(rows - len(x), *x.shape[1:])])
    raw = mine.view(-1).view(torch.uint8)
    found = [torch.empty_like(raw) for _ in range(dist.get_world_size())]
    with _reached():
        dist.all_gather(found, raw)
    return [other.view(x.dtype).view(mine.shape) for other in found]


def all_reduce(x: Tensor) -> None:
    """Sum in place."""
    with _reached():
        dist.all_reduce(x)


def broadcast(x: Tensor) -> None:
    """The first process's values in place of all others'."""
    with _reached():
        dist.broadcast(x, 0)


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostError(f"expected to reach the run's other processes, but got: {error}") from error
