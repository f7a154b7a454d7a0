"""How long a GPU computes or copies, by PyTorch's profiler."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from pipeline_src.training import device as devices


def profiled(device: torch.device, work: Callable[[], object]) -> tuple[float, float, float]:
    """Seconds in which the GPU computes or copies, from the first to the last of these, and of the whole work with its
    end on the GPU; NaN without a CUDA GPU.
    """
    if device.type != "cuda":
        work()
        return (float("nan"),) * 3
    from torch.profiler import ProfilerActivity, profile

    devices.synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        started = time.perf_counter()
        work()
        devices.synchronize(device)
        seconds = time.perf_counter() - started
    # Not `seen.events()`, which takes half a minute for the kernels of an epoch.
    events: Any = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
    there = (e for e in events if e.device_type().name == "CUDA" and not e.is_user_annotation())
    spans = [(e.start_ns(), e.start_ns() + e.duration_ns()) for e in there]
    done, between = covered(spans)
    return done / 1e9, between / 1e9, seconds


def covered(spans: list[tuple[int, int]]) -> tuple[float, float]:
    """The time within spans [start, end), which may overlap, and from the first start to the last end; NaN without
    spans.
    """
    if not spans:
        return float("nan"), float("nan")
    spans = sorted(spans)
    done, last = 0, spans[0][0]
    for start, end in spans:
        done, last = done + max(0, end - max(start, last)), max(last, end)
    return float(done), float(last - spans[0][0])
