"""Frames of training batches from the cache to the network in one pass over memory, on a GPU (`training.compile`).

Crop, flip, normalisation, the type and the order in memory that convolutions read are one kernel of PyTorch's compiler.
One after the other, as `Transform` does them otherwise, they write a batch five times, most of it in float32.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from pipeline_src.training import compiled
from pipeline_src.training.params import Training
from pipeline_src.training.transform import Drawn, crop

log = logging.getLogger(__name__)
TOLERANCE = 2e-5  # of normalised values in float32: where from and by what, pixels are weighed before, not after


def at_once(x: Tensor, factor: Tensor, offset: Tensor, drawn: Drawn, dtype: torch.dtype) -> Tensor:
    """Frames (B, T, C, H, W) as cached -> `factor` x + `offset`, cropped and flipped, in `dtype`, channels last.

    With autocast `dtype` is bf16, to which the first convolution would round its input itself. A sum of pixels by
    weights that add up to 1 may be normalised afterwards: then only what the cache holds is read.
    """
    if drawn.boxes is not None:
        x = crop(x.float(), drawn.boxes, drawn.flipped)
    elif drawn.flipped is not None:
        x = torch.where(drawn.flipped[:, :, None, None, None], x.flip(-1), x)
    out = (x * factor + offset).to(dtype)
    return out.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])


def fused_for(device: torch.device, schedule: Training) -> Fused | None:
    """Where a run takes it: on a CUDA GPU, if its encoders are compiled as well."""
    if device.type != "cuda" or schedule.compile == "none":
        return None
    return Fused(schedule.batch_size, torch.bfloat16 if schedule.precision == "bf16" else torch.float32)


class Fused:
    """`at_once`, compiled for batches of `rows` samples; without the compiler, after one warning, as it stands."""

    def __init__(self, rows: int, dtype: torch.dtype):
        self.rows, self.dtype, self.compiles = rows, dtype, True
        self._function = torch.compile(at_once, dynamic=False, backend=compiled.BACKEND)

    def __call__(self, x: Tensor, factor: Tensor, offset: Tensor, drawn: Drawn) -> Tensor:
        if self.compiles and len(x) == self.rows:
            try:
                return self._function(x, factor, offset, drawn, self.dtype)
            except torch._dynamo.exc.TorchDynamoException as error:
                self.compiles = False
                log.warning(
                    f"train  frames are not prepared in one pass, as it does not compile: {compiled.said(error)}"
                )
        return at_once(x, factor, offset, drawn, self.dtype)
