"""Golden cases: random inputs, and what the authors' published code computes from them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "golden"


def load(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The arrays of tests/golden/NAME.npz as tensors, and its `meta`."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}
        return arrays, json.loads(str(file["meta"]))


def apart(computed: Tensor | float, expected: Tensor | float) -> float:
    """Largest difference, relative to the largest entry of what is expected."""
    computed, expected = torch.as_tensor(computed).double(), torch.as_tensor(expected).double()
    assert computed.shape == expected.shape
    largest = expected.abs().max()
    return float((computed - expected).abs().max() / (largest if largest else 1))


def part(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The arrays whose name starts with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
