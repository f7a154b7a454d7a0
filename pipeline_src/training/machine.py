"""What determines a run and is not in its address: the machine, its instruction set, and the versions of libraries.

Another processor or another build changes the last digits of a result, not what it means. So they are recorded, and the
report says where runs that it compares differ in them.
"""

import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import pipeline_src

# They choose the instruction set by which PyTorch, oneDNN and MKL compute on a CPU.
VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
)


def machine(device: torch.device, threads: int, processes: int = 1) -> dict[str, Any]:
    """Host, processor and its instruction set, threads, and the device that computes; how many of them if several."""
    capability = torch.backends.cpu.get_cpu_capability()
    limits = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": processor(),
        "architecture": platform.machine(),
        "instruction_set": " ".join([capability, *(f"{name}={value}" for name, value in limits.items())]),
        "cores": os.cpu_count(),
        "threads": threads,
        **({"processes": processes} if processes > 1 else {}),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def versions() -> dict[str, str | None]:
    """This program, its commit, Python, and the libraries that compute: those of encoders if a run has loaded them."""
    loaded = {name: version(name) for name in ("timm", "transformers") if name in sys.modules}
    return loaded | {
        "counterpoise": pipeline_src.__version__,
        "git": _output("git", "describe", "--always", "--dirty"),
        "python": platform.python_version(),
        "torch": torch.__version__,  # with the build, as 2.14.1+cu130
        "torchvision": version("torchvision"),
        "numpy": version("numpy"),
    }


def processor() -> str:
    """The processor's model, as its maker names it; its architecture where the system does not tell."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip().lower() in ("model name", "cpu model", "hardware") and value.strip():
                return value.strip()
    brand = _output("sysctl", "-n", "machdep.cpu.brand_string") if sys.platform == "darwin" else None
    return brand or platform.processor() or platform.machine()


def _output(*command: str) -> str | None:
    """What a command prints in the folder of the program, or None if it fails."""
    folder = Path(pipeline_src.__file__).parent.parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
