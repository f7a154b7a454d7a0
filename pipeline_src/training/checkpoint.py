"""Checkpoints: tensors and a little JSON in one safetensors file, written whole or not at all; never a pickle."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline_src import files


def save(file: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors, on the CPU, with `about` in the file's header."""
    tensors = {name: t.detach().contiguous().cpu().clone() for name, t in tensors.items()}
    with files.whole(file) as temporary:
        save_file(tensors, temporary, metadata={"about": json.dumps(about)})


def load(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU, and what was written about them."""
    with safe_open(file, "pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, json.loads(opened.metadata()["about"])  # noqa: SIM118
