"""Random numbers by name: every use has its own generator, so that no use can shift another's."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator


def seed_of(seed: int, *name: object) -> int:
    """A 63-bit seed for one named use under the run's seed, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, (seed, *name))).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, *name: object) -> Generator:
    """A CPU generator for one named use, for example `generator(seed, "order", epoch)`."""
    import torch

    return torch.Generator().manual_seed(seed_of(seed, *name))
