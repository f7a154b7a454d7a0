"""What a GPU does with the training loop: one command on a machine with the package, without network or workflow tools.

Two ResNet-18 on three frames of 3 x 224 x 224 and a spectrogram of 257 x 188, on made-up clips; see docs/measuring.md.
Every figure is measured when it is printed; what cannot be measured on the machine says so.
"""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks import clips as made
from benchmarks import cold
from benchmarks.busy import profiled
from benchmarks.published import Pictures, cores, spectrogram
from pipeline_src.core.errors import UserError
from pipeline_src.features.read import Cache
from pipeline_src.methods.base import methods
from pipeline_src.models.base import encoders
from pipeline_src.training import device as devices
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from pipeline_src.training.machine import machine, versions
from pipeline_src.training.params import Augmentation, Training
from pipeline_src.training.spec import RunSpec

CLASSES = 6
RESIDENT, STREAMED, COLD = "resident", "streamed", "streamed, cold"
WARM, WARMING = 10, 999  # steps before a clock starts, and their epoch, which no measured one is
PARTS = ("rates", "epochs", "agreement", "cells", "several", "compiled", "published")
CELL = "COUNTERPOISE_BENCH_CELL"  # folder of the cache, of a process that trains beside others


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    clips: int = 16_384  # of an epoch, which is to take seconds
    distinct: int = 2048  # of them, each several times in the cache, and as files for the published way
    batch: int = 64
    frames: int = 3
    pixels: int = 224
    width: int = 64
    depth: tuple[int, ...] = (2, 2, 2, 2)
    seconds: float = 10.0  # of each rate, at least
    agreed: int = 8  # steps that are compared with the CPU
    cells: tuple[int, ...] = (1, 2, 4)
    workers: int = 16  # of the published way
    turns: int = 8  # batches of each of them that are timed
    backend: str = "inductor"  # of the compiler
    compiled: tuple[str, ...] = ()  # methods that are compared with themselves, not compiled; all if none is named
    limit: float = 240.0  # seconds for all of these, after which no other begins


TINY = Size(24, 16, 8, 1, 32, 4, (1, 1), 0.1, 2, (1, 2), 2, 4, "aot_eager", ("joint", "mmpareto"))


class Rate(NamedTuple):
    """What was measured of one way to train."""

    samples: float  # per second
    busy: float  # part of the time in which the GPU computes or copies; NaN without a CUDA GPU
    from_disk: float = float("nan")  # bytes that came from the disk for each that was read


def small_of(size: Size) -> Size:
    """The network of width 16 on 32 x 32, whose steps are bound by launches."""
    depth = (1,) * len(size.depth)
    clips = min(4096, size.clips)
    return replace(size, clips=clips, frames=1, pixels=min(32, size.pixels), width=min(16, size.width), depth=depth)


def name_of(size: Size) -> str:
    """The network of a size in tables."""
    return "ResNet-18" if size.width == 64 else "tiny"


def measure(size: Size, device_name: str = "auto", only: list[str] | None = None) -> None:
    """Print every figure, or those of some `PARTS`. Raises UserError if there is no such part."""
    from benchmarks import aims, compiling, published, run_epochs, several

    if unknown := set(only or ()) - set(PARTS):
        raise UserError(f"bench gpu: expected --only with some of {', '.join(PARTS)}, but got {', '.join(unknown)}")
    device, whole = devices.pick(device_name), time.perf_counter()
    devices.deterministic(device, 1)
    about, libraries = machine(device, 1), versions()
    print(f"{about['device']}, {about['processor']}, {cores()} cores, PyTorch {libraries['torch']}")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=".") as name, contextlib.chdir(name):
        Path("data").mkdir()  # where is remembered that the cache has been verified
        cache = write_cache(Path("cache"), Pictures(size.frames), size)
        small = write_cache(Path("small"), Pictures(1, 1.0), small_of(size))
        networks = {name_of(size): (cache, size), "small": (small, small_of(size))}
        row = cache.row_bytes(list(cache.modalities))
        print(
            f"{size.clips:,} clips of {row / 1e3:.0f} kB, batch {size.batch}, two ResNets of width {size.width}; made "
            f"in {time.perf_counter() - whole:.0f} s\n"
        )
        parts: dict[str, Callable[[], Any]] = {
            "rates": lambda: loops(cache, device, size),
            "epochs": lambda: run_epochs.measure(cache, device, size),
            "agreement": lambda: (agreement(cache, device, size), repeats(cache, device, size)),
            "cells": lambda: beside_each_other(device, size),
            "several": lambda: several.measure(device, size, Path("cache")),
            "compiled": lambda: compiling.measure(device, networks),
            "published": lambda: published.measure(device, size, CLASSES),
        }
        for part in only or PARTS:
            started = time.perf_counter()
            clear(device)
            results[part] = parts[part]()
            print(f"  ({part}: {time.perf_counter() - started:.0f} s)", flush=True)
    best, rates, plain = precisions(device)[0], results.get("rates", {}), results.get("published")
    if rates and plain:
        faster = (f"{p} {rates[p, RESIDENT].samples / plain:.1f}" for p in precisions(device))
        print(f"\nTimes the published way, resident: {', '.join(faster)}")
    excuse = "no CUDA GPU" if device.type != "cuda" else "another network" if name_of(size) == "tiny" else ""
    training = {kind: found for (precision, kind), found in rates.items() if precision == best}
    print(f"\nAims, in {best}; a cache of VGGSound with such clips has {row * aims.VGGSOUND / 1e9:,.0f} GB:")
    for aim, verdict, value in aims.aims(training, results.get("epochs", {}), plain, excuse):
        print(f"  {verdict:18}{aim}: {value}")
    print(f"{time.perf_counter() - whole:,.0f} s in all")


def write_cache(folder: Path, pictures: Pictures, size: Size) -> Cache:
    """The clips as the extractors would give them: frames cut to the middle, spectrograms in float16."""
    from PIL import Image

    def frames(clip: int) -> np.ndarray:
        cut = [p.crop((60, 0, 420, 360)) for p in pictures.pictures_of(clip)]
        cut = [p.resize((size.pixels, size.pixels), Image.Resampling.BILINEAR) for p in cut]
        return np.stack([np.asarray(p).transpose(2, 0, 1) for p in cut])

    def sound(clip: int) -> np.ndarray:
        return spectrogram(pictures.sound_of(clip)).numpy().astype(np.float16)

    with ThreadPoolExecutor(cores()) as pool:
        every = {
            m: np.stack(list(pool.map(of, range(size.distinct)))) for m, of in (("audio", sound), ("visual", frames))
        }
    shapes: dict[str, made.Modality] = {
        "audio": ("spectrogram", every["audio"].shape[1:], "float16"),
        "visual": ("frames", every["visual"].shape[1:], "uint8"),
    }
    few = max(8, size.clips // 8)
    splits = {"train": size.clips, "val": few, "test": 8}
    return made.write(folder, splits, shapes, CLASSES, lambda m, rows: every[m][rows % size.distinct])


def spec_of(cache: Cache, size: Size, precision: str) -> RunSpec:
    """Joint training with augmentation, as the papers train."""
    network = encoders["resnet"].Params(kind="resnet", width=size.width, depth=list(size.depth))
    changes = {
        "audio": Augmentation(),
        "visual": Augmentation(crop_scale=[0.08, 1.0], crop_ratio=[0.75, 1.3333], flip=0.5),
    }
    schedule = Training(
        epochs=1000,
        batch_size=size.batch,
        optimizer="sgd",
        lr=0.001,
        momentum=0.9,
        weight_decay=1e-4,
        lr_step=70,
        lr_gamma=0.1,
        augmentation={},
        normalize="train",
        select="last",
        track_test=False,
        device="auto",
        precision=precision,  # type: ignore[arg-type]
        resident_fraction=1.0,
    )
    names = tuple(cache.modalities)
    joint = methods["joint"].Params()
    return RunSpec(names, dict.fromkeys(names, network), "concat", "joint", joint, schedule, changes)


def clear(device: torch.device) -> None:
    """Free what former runs had on the device, also for other processes: a trainer ends when cycles are collected."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def trainer(cache: Cache, device: torch.device, size: Size, precision: str, resident: bool) -> Trainer:
    clear(device)
    devices.use_precision(device, precision)
    loaders = {s: Loader(cache, s, list(cache.modalities), device, resident) for s in ("train", "val")}
    return Trainer(spec_of(cache, size, precision), 0, cache, loaders, device)


def rate(run: Trainer, seconds: float, dropped: Cache | None = None) -> tuple[float, float]:
    """Samples per second of whole epochs after some steps, and the bytes that came from the disk for each that was
    read. `dropped` is the cache, if it is dropped from memory before each epoch.
    """
    warm(run)
    count, spent, epoch, before = 0, 0.0, 0, made.from_disk()
    while spent < seconds or epoch == 0:
        if dropped is not None:
            made.forget(dropped.folder)
        spent += run.epoch(epoch)["seconds"]
        count, epoch = count + len(run.loaders["train"]), epoch + 1
    wanted = count * run.loaders["train"].cache.row_bytes(list(run.modalities))
    return count / spent, (made.from_disk() - before) / wanted


def warm(run: Trainer) -> None:
    """Some steps, so that what the first ones make is there."""
    steps(run, WARM, WARMING)
    devices.synchronize(run.device)


def rate_of_steps(run: Trainer, seconds: float) -> float:
    """Samples per second of as many steps as there is time for, of epochs of which the last is cut."""
    before, epoch, started = run.context.forwards, 0, time.perf_counter()

    def pulse() -> None:
        if time.perf_counter() - started >= seconds:
            raise StopIteration

    with contextlib.suppress(StopIteration):
        while True:
            run.epoch(epoch, pulse)
            epoch += 1
    devices.synchronize(run.device)
    return (run.context.forwards - before) / (time.perf_counter() - started)


def precisions(device: torch.device) -> list[str]:
    """Those in which the device computes, fastest first."""
    return [p for p in ("bf16", "tf32", "fp32") if devices.computes_in(device, p)]


def loops(cache: Cache, device: torch.device, size: Size) -> dict[tuple[str, str], Rate]:
    """Rates of whole epochs of training by precision and cache, and of each some steps' busy time; prints them."""
    print("Training alone: whole epochs, without scores and checkpoints; busy: of steps, from first to last kernel")
    print("| precision | cache | samples/s | over resident | from disk | GPU busy | memory, MB |")
    print("|---|---|---|---|---|---|---|")
    rates: dict[tuple[str, str], Rate] = {}
    for precision in precisions(device):
        for kind in (RESIDENT, STREAMED, COLD):
            if kind == COLD and not hasattr(os, "posix_fadvise"):
                print(f"| {precision} | {kind} | not measured: this system drops no file from memory | | | | |")
                continue
            clear(device)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            run = trainer(cache, device, size, precision, kind == RESIDENT)
            found, read = rate(run, size.seconds, cache if kind == COLD else None)
            if kind == COLD:
                made.forget(cache.folder)
            rates[precision, kind] = Rate(found, busy(run), read)
            slower, memory = rates[precision, RESIDENT].samples / found, devices.peak_mb(device)
            cells = (f"{found:,.0f}", f"{slower:.2f}", f"{read:.2f}", shown(rates[precision, kind]), f"{memory:,.0f}")
            print(f"| {precision} | {kind} | {' | '.join(cells)} |", flush=True)
            del run
    if hasattr(os, "posix_fadvise"):
        made.forget(cache.folder)
        read = sum(file.stat().st_size for file in cache.folder.glob("*.arrow")) / cold.PART / cold.whole(cache)
        clips = read / cache.row_bytes(list(cache.modalities))
        print(f"The disk alone, large blocks in order past the system's memory: {clips:,.0f} samples/s")
    return rates


def shown(rate: Rate) -> str:
    """The busy share in tables."""
    return "-" if np.isnan(rate.busy) else f"{rate.busy:.0%}"


def steps(run: Trainer, count: int, epoch: int = 0) -> None:
    """The first steps of an epoch."""
    left = iter(range(count - 1))
    with contextlib.suppress(StopIteration):
        run.epoch(epoch, left.__next__)  # ends the epoch after as many


def busy(run: Trainer, count: int = 30) -> float:
    """The part of the time in which the GPU computes or copies, from the first to the last kernel of some steps."""
    done, between, _ = profiled(run.device, lambda: steps(run, count))
    return done / between


def agreement(cache: Cache, device: torch.device, size: Size) -> None:
    """Print how far losses and weights are from the CPU's in fp32 after some steps."""
    small = replace(size, batch=8)

    def trained(where: torch.device, precision: str) -> tuple[float, dict[str, torch.Tensor]]:
        run = trainer(cache, where, small, precision, False)
        steps(run, size.agreed)
        return run.context.logged()["loss"], {k: v.double().cpu() for k, v in run.model.state_dict().items()}

    loss, weights = trained(torch.device("cpu"), "fp32")
    print(
        f"\nAfter {size.agreed} steps of {small.batch} against the CPU in fp32; tolerances of the mean loss in brackets"
    )
    for precision in precisions(device):
        ours, theirs = trained(device, precision)
        off = abs(ours - loss) / loss
        apart = max(
            float((theirs[k] - w).norm() / w.norm().clamp(min=1e-12)) for k, w in weights.items() if w.dim() > 1
        )
        limit = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}[precision]
        said = "agrees" if off <= limit else "DOES NOT AGREE"
        print(f"  {precision}: loss {off:.1e} ({limit:.0e}) {said}; weights {apart:.1e} of their norm", flush=True)


def repeats(cache: Cache, device: torch.device, size: Size) -> None:
    """Print whether the same seed gives the same bits twice."""
    for precision in precisions(device):
        found = []
        with devices.nondeterministic() as unordered:
            for resident in (True, False):
                run = trainer(cache, device, size, precision, resident)
                steps(run, size.agreed)
                found.append({k: v.cpu() for k, v in run.model.state_dict().items()})
        same = all(torch.equal(found[0][k], found[1][k]) for k in found[0])
        said = "the same bits" if same else "OTHER BITS"
        without = f"; without a deterministic version: {', '.join(unordered)}" if unordered else ""
        print(f"  {precision}: resident and streamed, twice the same seed: {said}{without}", flush=True)


def beside_each_other(device: torch.device, size: Size) -> None:
    """Print the samples per second of several processes that train on the device at once, together."""
    small = small_of(size)
    print("\n| network | processes | samples/s, together | over one |\n|---|---|---|---|")
    found: dict[tuple[str, int], float] = {}
    for name, of, folder in ((name_of(size), size, "cache"), ("small", small, "small")):
        for count in size.cells:
            go = Path(f"go-{folder}-{count}")
            environment = {**os.environ, CELL: f"{folder} {go} {of.batch} {of.width} {len(of.depth)} {of.depth[0]}"}
            environment |= {"PYTHONPATH": str(Path(__file__).parent.parent), "COUNTERPOISE_BENCH_DEVICE": str(device)}
            environment["COUNTERPOISE_BENCH_SECONDS"] = str(size.seconds)
            command = [sys.executable, "-m", "benchmarks", "gpu_cell"]
            jobs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(count)]
            while len(list(Path().glob(f"{go}-ready-*"))) < count and all(job.poll() is None for job in jobs):
                time.sleep(0.05)
            go.touch()
            said = [job.communicate()[0] for job in jobs]
            if any(job.returncode for job in jobs):
                print(f"| {name} | {count} | a process ended with an error, see above | |")
                continue
            found[name, count] = total = sum(float(text) for text in said)
            print(f"| {name} | {count} | {total:,.0f} | {total / found.get((name, 1), total):.2f} |", flush=True)


def cell() -> None:
    """One of the processes of `beside_each_other`: prints its rate from when all are ready."""
    folder, go, batch, width, stages, blocks = os.environ[CELL].split()
    device = torch.device(os.environ["COUNTERPOISE_BENCH_DEVICE"])
    devices.deterministic(device, 1)
    size = Size(batch=int(batch), width=int(width), depth=(int(blocks),) * int(stages))
    run = trainer(Cache(Path(folder)), device, size, "bf16", True)
    warm(run)
    Path(f"{go}-ready-{os.getpid()}").touch()
    while not Path(go).exists():
        time.sleep(0.01)
    print(rate_of_steps(run, float(os.environ["COUNTERPOISE_BENCH_SECONDS"])))
