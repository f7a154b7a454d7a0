"""Encoders through PyTorch's compiler, where a step waits for launches more than for sums (`training.compile`).

The passes of full training batches run compiled, forward and backward; all else of a step, the last batch of a pass if
it is smaller, and every pass without gradients run as always. So each encoder has one graph, methods know nothing of
it, and weights keep their names.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from torch.utils import _pytree as pytree

from pipeline_src.core.errors import UserError
from pipeline_src.models.multimodal import MultimodalModel, run

Compile = Literal["none", "kernels", "graphs"]
BACKEND = "inductor"
NEEDS = {"cpu": "a C++ compiler (g++, or the one that CXX names)", "cuda": "Triton and a C compiler (gcc, or CC)"}
KINDS = 64  # graphs of one function: encoders, their sections, and what of them is trained


def check(device: torch.device, how: Compile) -> None:
    """Raises UserError, before there is a model, if the device cannot do it or a first function does not compile."""
    if how == "none":
        return
    if how == "graphs" and device.type != "cuda":
        raise UserError(f"training.compile: expected a CUDA GPU for graphs, but got {device.type}; set kernels or none")
    try:
        x = torch.ones(8, device=device, requires_grad=True)
        torch.compile(_doubled, backend=BACKEND)(x).sum().backward()
    except Exception as error:
        wanted = NEEDS.get(device.type, "a device that PyTorch compiles for")
        raise UserError(
            f"training.compile: expected {wanted}, but got {said(error)}; install it, or set none"
        ) from error


def _doubled(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


def compile_encoders(model: MultimodalModel, rows: int, how: Compile) -> None:
    """Let the model run its encoders compiled, on training batches of so many rows."""
    if how == "none":
        return
    import torch._dynamo
    import torch._functorch.config

    # Methods take gradients of several losses from one pass.
    torch._functorch.config.donated_buffer = False
    # A function with more graphs than this would run as always without a word.
    torch._dynamo.config.recompile_limit = KINDS
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    options: dict[str, Any] = {
        "fallback_random": True,  # dropout draws as it does otherwise
        "deterministic": True,  # no kernel is chosen by the clock
        "triton.cudagraphs": how == "graphs",
    }
    chosen = options if BACKEND == "inductor" else None
    inside = torch.compile(run, dynamic=False, backend=BACKEND, options=chosen)

    def compiled(encoder: nn.Module, state: Any, stages: tuple[str, ...] | None = None) -> Any:
        try:
            found = inside(encoder, state, stages)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise UserError(
                f"training.compile: expected encoders that PyTorch compiles, but got {said(error)}; set none"
            ) from error
        # The next replay of a CUDA graph writes where this one wrote; a method may keep what it got.
        return pytree.tree_map_only(torch.Tensor, torch.clone, found)

    model.compiled = rows, compiled


def next_step(how: Compile) -> None:
    """Between two steps: what CUDA graphs hold of the last one may be written over."""
    if how == "graphs":
        torch.compiler.cudagraph_mark_step_begin()


def said(error: BaseException) -> str:
    """The first two lines of what the compiler says: whose error it is, and which."""
    text = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
    return text.rstrip(".;: ") or type(error).__name__
