"""Where and in which precision a run computes."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from pipeline_src.core.errors import UserError
from pipeline_src.training import gpu

if TYPE_CHECKING:
    from pipeline_src.evaluation.params import Evaluation
    from pipeline_src.training.params import Training

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"  # read when CUDA starts; without it, sums of matrix products have no fixed order
UNORDERED = (  # how PyTorch warns of an operation without a fixed order
    r"(.+?) does not have a deterministic implementation",
    r"(.+?) defaults to a non-deterministic algorithm",  # fused attention
    r"Deterministic behavior was enabled .* because it uses (CuBLAS)",  # where the user set `CUBLAS` to another value
)


def pick(name: str, cells_per_gpu: int = 1) -> torch.device:
    """The device of `training.device`; auto takes a GPU if there is one. Raises UserError if it is missing.

    A CUDA GPU is this process's until it ends, shared with at most `cells_per_gpu` - 1 others, and waited for.
    """
    return pick_several(name, 1, cells_per_gpu)[0]


def pick_several(name: str, count: int, cells_per_gpu: int = 1) -> list[torch.device]:
    """The devices of a run of `count` processes, as `pick` takes one: different GPUs, or so many times the CPU where
    `name` is cpu. Raises UserError if the machine has too few.
    """
    os.environ.setdefault(CUBLAS, ":4096:8")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    asked = name
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        there = ", ".join(device for device, there in available.items() if there)
        raise UserError(
            f"training.device: expected a device of this machine ({there}), but got {name!r}; set auto to take the best"
        )
    shown = torch.cuda.device_count() if name == "cuda" else 1 if name == "mps" else 0
    if count > max(shown, 1) and (asked != "cpu"):
        raise UserError(
            f"training.gpus: expected at most the GPUs that this machine shows, but got {count} for {shown}; lower it, "
            "or take a machine with more"
        )
    if name != "cuda":
        return [torch.device(name)] * count
    uuids = [str(torch.cuda.get_device_properties(i).uuid) for i in range(shown)]
    found = [torch.device("cuda", number) for number in gpu.take(uuids, cells_per_gpu, count=count)]
    if count > 1:  # each process sets its own; a context of this one's would take the first GPU, or memory of it
        return found
    torch.cuda.set_device(found[0])
    if cells_per_gpu > 1:
        torch.cuda.set_per_process_memory_fraction(1 / cells_per_gpu, found[0])
    return found


def deterministic(device: torch.device, threads: int) -> None:
    """The same sums in the same order every time; on a GPU, an operation without such a version warns."""
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
    # Where PyTorch only warns, the backward passes of fused attention have no fixed order. The CPU's has one.
    for fused in ("flash", "mem_efficient", "cudnn"):
        getattr(torch.backends.cuda, f"enable_{fused}_sdp")(device.type != "cuda")
    # As use_deterministic_algorithms, which imports PyTorch's compiler to set it the same.
    torch.set_deterministic_debug_mode("error" if device.type == "cpu" else "warn")
    # Nothing here reads memory that it has not written, so there is no need to fill it first.
    torch.utils.deterministic.fill_uninitialized_memory = False


@contextmanager
def nondeterministic() -> Iterator[list[str]]:
    """The operations that run inside and have no deterministic version on the device, as PyTorch warns."""
    found: list[str] = []
    always = torch.is_warn_always_enabled()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def note(message: Any, *rest: Any, **more: Any) -> None:
            name = next(filter(None, (re.match(said, str(message)) for said in UNORDERED)), None)
            if name is None:
                show(message, *rest, **more)
            elif name[1] not in found:
                found.append(name[1])

        warnings.showwarning = note
        torch.set_warn_always(True)  # some are warned of once per process, which may train several runs
        try:
            yield found
        finally:
            torch.set_warn_always(always)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bf16 where `precision` says so, float32 otherwise; see `use_precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def use_precision(device: torch.device, precision: str) -> None:
    """Set how float32 tensors are multiplied on a CUDA GPU: in float32, or in TF32 where `precision`, which the address
    of the run holds, says so. PyTorch's default is TF32 in convolutions. Raises UserError if the device cannot compute
    in `precision`.
    """
    wanted = {"bf16": "a GPU that computes in bf16", "tf32": "a CUDA GPU that computes in TF32"}
    if not computes_in(device, precision):
        raise UserError(f"training.precision: expected {wanted[precision]}, but got {describe(device)}; set fp32")
    if device.type == "cuda":
        tf32 = precision == "tf32"
        # The older flags, too, and first: libraries read them, which is an error where only the newer ones are set.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        for part in (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn):
            part.fp32_precision = "tf32" if tf32 else "ieee"


def computes_in(device: torch.device, precision: str) -> bool:
    """Whether the device has a precision."""
    if precision == "tf32":
        return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return precision != "bf16" or device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def free_bytes(device: torch.device, mem_mb: int) -> int:
    """Memory a cache may be put in: what the GPU has left for this process, or what the job was given (`mem_mb`)."""
    if device.type != "cuda":
        return mem_mb << 20
    free, total = torch.cuda.mem_get_info(device)
    return min(free, int(total * torch.cuda.get_per_process_memory_fraction(device)))


def describe(device: torch.device) -> str:
    """`cpu`, or a GPU's name and memory."""
    if device.type != "cuda":
        return device.type
    free, total = torch.cuda.mem_get_info(device)
    name = torch.cuda.get_device_name(device)
    return f"{device} ({name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free)"


def is_out_of_memory(error: BaseException) -> bool:
    """Also of a CPU and of an Apple GPU, whose errors have no type of their own."""
    said = ("out of memory", "can't allocate memory", "not enough memory")
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or (isinstance(error, RuntimeError) and any(words in str(error) for words in said))


@contextmanager
def memory_explained(job: str, device: torch.device, section: str, params: Training | Evaluation) -> Iterator[None]:
    """Say what to set where `job` runs out of memory, by the parameters of its section of params.yaml."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        fixes = [f"lower {section}.batch_size"]
        if device.type == "cuda":
            fixes += ["lower training.resident_fraction", "lower cells_per_gpu in the resources file"]
            fixes += ["set training.precision to bf16"] if getattr(params, "precision", "bf16") != "bf16" else []
        else:
            fixes += ["lower training.resident_fraction"]
        raise UserError(
            f"{job}: expected batches of {params.batch_size} clips to fit on {describe(device)}, but it is out of "
            f"memory; {', or '.join(fixes)}, or take a machine with more of it"
        ) from error


@contextmanager
def weights_explained(job: str, device: torch.device) -> Iterator[None]:
    """Say what to set where the model itself does not fit, before there is a batch."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{job}: expected the weights to fit on {describe(device)}, but it is out of memory; lower the widths "
            "under model.encoders, or take a machine with more of it"
        ) from error


def peak_mb(device: torch.device) -> float:
    """Most memory used so far, MB: of the GPU, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def streams(device: torch.device) -> Any | None:
    """The device's module of PyTorch if it works behind the host, by streams and events; None if it does not."""
    return None if device.type in ("cpu", "mps") else torch.get_device_module(device)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given, before a clock is read."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()
