"""What compiled encoders and frames in one pass give on a device: part of `bench gpu`; see docs/measuring.md."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks import gpu
from benchmarks.methods import first_fusion, stand_ins
from pipeline_src.core.errors import UserError
from pipeline_src.features.read import Cache
from pipeline_src.methods.base import methods
from pipeline_src.training import compiled
from pipeline_src.training import device as devices
from pipeline_src.training.fused import TOLERANCE, Fused
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from pipeline_src.training.transform import Transform

AGREES = 1e-4  # of the mean loss in fp32, against the run that is not compiled
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")


def measure(device: torch.device, networks: dict[str, tuple[Cache, gpu.Size]]) -> None:
    """Print all of it, for networks {name: (cache, size)}, of which the last is the smallest."""
    before, (cache, size) = compiled.BACKEND, list(networks.values())[-1]
    compiled.BACKEND = size.backend
    try:
        ways: list[compiled.Compile] = ["none", "kernels", *(["graphs"] if device.type == "cuda" else [])]  # type: ignore[list-item]
        try:
            compiled.check(device, "kernels")
        except UserError as error:
            return print(f"\nCompiled encoders: not measured, {error}")
        rates(device, networks, ways)
        every_method(device, cache, size, ways[-1])
        for name, (of, how) in networks.items():
            one_pass(device, name, of, how)
    finally:
        compiled.BACKEND = before
    return None


def trainer(
    device: torch.device, cache: Cache, size: gpu.Size, precision: str, way: compiled.Compile, method: str = "joint"
) -> Trainer:
    """A run from a resident cache that is compiled so, with the first fusion that the method takes."""
    gpu.clear(device)
    devices.use_precision(device, precision)
    spec = gpu.spec_of(cache, size, precision)
    fusion = first_fusion(method, spec) or spec.fusion
    training = spec.training.model_copy(update={"compile": way})
    spec = replace(spec, method=method, params=methods[method].Params(), fusion=fusion, training=training)
    loaders = {s: Loader(cache, s, list(cache.modalities), device, True) for s in ("train", "val")}
    run = Trainer(spec, 0, cache, loaders, device, stand_ins(spec, cache, device))  # type: ignore[arg-type]
    run.method.on_train_start(run.context)
    return run


def loss_of(run: Trainer, steps: int) -> float:
    """The mean loss of the first steps."""
    gpu.steps(run, steps)
    return run.context.logged()["loss"]


def rates(device: torch.device, networks: dict[str, tuple[Cache, gpu.Size]], ways: list[compiled.Compile]) -> None:
    """Print samples per second of each network and way, what compiling took, and what a step launches."""
    precision = gpu.precisions(device)[0]
    print(f"\nCompiled encoders, in {precision}, resident; the loss after some steps in fp32, against none")
    print(f"| network | compile | samples/s | over none | first {gpu.WARM} steps, s | launches a step | loss |")
    print("|---|---|---|---|---|---|---|")
    for name, (cache, size) in networks.items():
        plain = loss_of(trainer(device, cache, size, "fp32", "none"), size.agreed)
        base = 0.0
        for way in ways:
            try:
                off = abs(loss_of(trainer(device, cache, size, "fp32", way), size.agreed) - plain) / abs(plain)
                run = trainer(device, cache, size, precision, way)
                started = time.perf_counter()
                gpu.warm(run)
                first = time.perf_counter() - started
                found = gpu.rate_of_steps(run, size.seconds)
                launched = launches(run, device)
            except Exception as error:  # the other ways are measured all the same
                print(f"| {name} | {way} | fails: {compiled.said(error)} | | | | |", flush=True)
                continue
            base = base or found
            said = f"{off:.0e} {'agrees' if off <= AGREES else 'DOES NOT AGREE'}"
            print(
                f"| {name} | {way} | {found:,.0f} | {found / base:.2f} | {first:.1f} | {launched} | {said} |",
                flush=True,
            )


def launches(run: Trainer, device: torch.device, count: int = 10) -> str:
    """Kernels and graphs that the host launches in a step; "-" without a CUDA GPU."""
    if device.type != "cuda":
        return "-"
    from torch.profiler import ProfilerActivity, profile

    before = run.context.step
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        gpu.steps(run, count)
        devices.synchronize(device)
    launched = sum(event.count for event in seen.key_averages() if event.key.startswith(LAUNCHES))
    return f"{launched / max(1, run.context.step - before):.0f}"


def every_method(device: torch.device, cache: Cache, size: gpu.Size, way: compiled.Compile) -> None:
    """Print which methods have the losses that they have without the compiler, in fp32, and which have not."""
    wrong, names = [], size.compiled or tuple(methods)
    started, done = time.perf_counter(), 0
    for name in names:
        if time.perf_counter() - started > size.limit:
            break
        done += 1
        try:
            plain, ours = (
                loss_of(trainer(device, cache, size, "fp32", how, name), size.agreed) for how in ("none", way)
            )
            off = abs(ours - plain) / max(abs(plain), 1e-6)
            if off > AGREES:
                wrong.append(f"{name} is {off:.0e} off")
        except Exception as error:
            wrong.append(f"{name} fails: {compiled.said(error)}")
    said = "; ".join(wrong) or "all agree"
    left = f"; not measured, after {size.limit:.0f} s: {', '.join(names[done:])}" if names[done:] else ""
    print(f"  {way}: {done - len(wrong)} of {done} methods within {AGREES:.0e} of the loss: {said}{left}", flush=True)


def one_pass(device: torch.device, name: str, cache: Cache, size: gpu.Size) -> None:
    """Print what frames of a batch take one operation after the other and in one pass, and how far these are apart."""
    spec = gpu.spec_of(cache, size, "fp32")
    loader = Loader(cache, "train", list(cache.modalities), device, True)
    batch = next(loader.batches(size.batch)).inputs["visual"]
    half = torch.bfloat16 if gpu.precisions(device)[0] == "bf16" else torch.float32
    found: dict[str, torch.Tensor] = {}
    seconds: dict[str, float] = {}

    def prepared(fused: Fused | None, after: torch.dtype) -> Callable[[], torch.Tensor]:
        transform = Transform(cache.modalities, spec.augmentation, "train", device, 0, fused)
        drawn = transform.draw([len(batch)], {"visual": torch.Generator().manual_seed(0)})[0]
        return lambda: transform({"visual": batch}, drawn)["visual"].to(after)

    for way, fused in (("apart", None), ("at once", Fused(len(batch), torch.float32))):
        found[way] = prepared(fused, torch.float32)()
    for way, fused in (("apart", None), ("at once", Fused(len(batch), half))):
        seconds[way] = timed(prepared(fused, half), device)
    off = float((found["at once"] - found["apart"]).abs().max())
    gain = seconds["apart"] / seconds["at once"]
    print(
        f"  frames of a batch of {len(batch)}, {name}: {1e3 * seconds['apart']:.2f} ms one operation after the other, "
        f"{1e3 * seconds['at once']:.2f} ms in one pass, {'which pays' if gain > 1 else 'which does not pay'}; at most "
        f"{off:.0e} apart ({TOLERANCE:.0e}) {'agrees' if off <= TOLERANCE else 'DOES NOT AGREE'}",
        flush=True,
    )


def timed(call: Callable[[], object], device: torch.device, times: int = 20) -> float:
    """Seconds of a call, after three."""
    for _ in range(3):
        call()
    devices.synchronize(device)
    started = time.perf_counter()
    for _ in range(times):
        call()
    devices.synchronize(device)
    return (time.perf_counter() - started) / times
