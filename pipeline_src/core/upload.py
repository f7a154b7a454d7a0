"""Small tensors on their way to the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Values of the CPU on a device. The host does not wait: they go from pinned memory, behind what the device has
    been given to do.
    """
    if values.device.type == device.type or device.type == "mps":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
