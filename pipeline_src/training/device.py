"""Where and in which precision a run computes."""

import os

import torch

from pipeline_src.errors import UserError


def pick(name: str) -> torch.device:
    """The device of `training.device`; auto takes a GPU if there is one. Raises UserError if it is missing."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        there = ", ".join(device for device, there in available.items() if there)
        raise UserError(
            f"training.device: expected a device of this machine ({there}), found {name!r}; set auto to take the best"
        )
    return torch.device(name)


def deterministic(device: torch.device, threads: int) -> None:
    """The same sums in the same order every time; on a GPU, an operation without such a version warns."""
    torch.set_num_threads(threads)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    # Nothing here reads memory that it has not written, so there is no need to fill it first.
    torch.utils.deterministic.fill_uninitialized_memory = False


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bf16 where `precision` asks for it, or where auto finds a GPU that has it; fp32 otherwise."""
    able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16" or (precision == "auto" and able))


def free_bytes(device: torch.device, mem_mb: int) -> int:
    """Memory a cache may be put in: what the GPU has left, or what the job was given (`mem_mb`)."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else mem_mb << 20


def peak_mb(device: torch.device) -> float:
    """Most memory used so far, MB: of the GPU, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given, before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
