"""What a GPU does with the training loop: one command on a machine with the package, without network or workflow tools.

Two ResNet-18 on three frames of 3 x 224 x 224 and a spectrogram of 257 x 188, on made-up clips; see docs/measuring.md.
Every figure is measured when it is printed; what cannot be measured on the machine says so.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks import clips as made
from benchmarks.published import Files, Pictures, spectrogram, train
from pipeline_src.features.read import Cache
from pipeline_src.methods.base import methods
from pipeline_src.models.base import encoders
from pipeline_src.training import device as devices
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from pipeline_src.training.machine import machine, versions
from pipeline_src.training.params import Augmentation, Training
from pipeline_src.training.spec import RunSpec

VGGSOUND = 199_467  # clips, all of them counted as visited in an epoch
CLASSES = 6
CELL = "COUNTERPOISE_BENCH_CELL"  # folder of the cache, of a process that trains beside others


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    clips: int = 2048
    published: int = 512  # clips of the published way
    batch: int = 64
    frames: int = 3
    pixels: int = 224
    width: int = 64
    depth: tuple[int, ...] = (2, 2, 2, 2)
    seconds: float = 10.0  # of each rate, at least
    agreed: int = 8  # steps that are compared with the CPU
    cells: tuple[int, ...] = (1, 2, 4)
    workers: int = 16
    backend: str = "inductor"  # of the compiler
    compiled: tuple[str, ...] = ()  # methods that are compared with themselves, not compiled; all if none is named


TINY = Size(24, 16, 8, 1, 32, 4, (1, 1), 0.1, 2, (1, 2), 0, "aot_eager", ("joint", "mmpareto"))


def small_of(size: Size) -> Size:
    """The network of width 16 on 32 x 32, whose steps are bound by launches."""
    depth = (1,) * len(size.depth)
    return replace(size, frames=1, pixels=min(32, size.pixels), width=min(16, size.width), depth=depth)


def name_of(size: Size) -> str:
    """The network of a size in tables."""
    return "ResNet-18" if size.width == 64 else "tiny"


def measure(size: Size, device_name: str = "auto") -> None:
    """Print every figure."""
    from benchmarks import compiling, several

    device = devices.pick(device_name)
    devices.deterministic(device, 1)
    about, libraries = machine(device, 1), versions()
    print(
        f"{about['device']}, {about['processor']}, {len(os.sched_getaffinity(0))} cores, PyTorch {libraries['torch']}"
    )
    with tempfile.TemporaryDirectory(dir=".") as name, contextlib.chdir(name):
        Path("data").mkdir()  # where is remembered that the cache has been verified
        pictures = Pictures(size.frames)
        cache = write_cache(Path("cache"), pictures, size)
        row = cache.row_bytes(list(cache.modalities))
        print(f"{size.clips} clips of {row / 1e3:.0f} kB, batch {size.batch}, two ResNets of width {size.width}\n")
        rates = loops(cache, device, size)
        agreement(cache, device, size)
        repeats(cache, device, size)
        beside_each_other(device, size)
        several.measure(device, size, Path("cache"))
        compiling.measure(device, compiling.networks_of(size))
        pictures.write(Path("files"), size.published)
        plain = published(device, size)
    aims(rates, plain, device)


def write_cache(folder: Path, pictures: Pictures, size: Size) -> Cache:
    """The clips as the extractors would give them: frames cut to the middle, spectrograms in float16."""
    from PIL import Image

    def values(m: str, rows: np.ndarray) -> np.ndarray:
        if m == "audio":
            return np.stack([spectrogram(pictures.sound_of(row)).numpy() for row in rows.tolist()]).astype(np.float16)
        found = []
        for row in rows.tolist():
            cut = [p.crop((60, 0, 420, 360)) for p in pictures.pictures_of(row)]
            cut = [p.resize((size.pixels, size.pixels), Image.Resampling.BILINEAR) for p in cut]
            found.append(np.stack([np.asarray(p).transpose(2, 0, 1) for p in cut]))
        return np.stack(found)

    bins, steps = values("audio", np.arange(1)).shape[1:]
    shapes: dict[str, made.Modality] = {
        "audio": ("spectrogram", (bins, steps), "float16"),
        "visual": ("frames", (size.frames, 3, size.pixels, size.pixels), "uint8"),
    }
    few = max(8, size.clips // 8)
    return made.write(folder, {"train": size.clips, "val": few, "test": few}, shapes, CLASSES, values)


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


def trainer(cache: Cache, device: torch.device, size: Size, precision: str, resident: bool) -> Trainer:
    devices.use_precision(device, precision)
    loaders = {s: Loader(cache, s, list(cache.modalities), device, resident) for s in ("train", "val")}
    return Trainer(spec_of(cache, size, precision), 0, cache, loaders, device)


def rate(run: Trainer, seconds: float, cold: Path | None = None) -> float:
    """Samples per second of whole epochs after a first one; `cold` is the cache that is dropped from memory before
    each.
    """
    run.epoch(0)
    count, spent, epoch = 0, 0.0, 1
    while spent < seconds or epoch < 3:
        if cold is not None:
            made.forget(cold)
        spent += run.epoch(epoch)["seconds"]
        count, epoch = count + len(run.loaders["train"]), epoch + 1
    return count / spent


def precisions(device: torch.device) -> list[str]:
    """Those in which the device computes, fastest first."""
    return [p for p in ("bf16", "tf32", "fp32") if devices.computes_in(device, p)]


def loops(cache: Cache, device: torch.device, size: Size) -> dict[tuple[str, str], float]:
    """Samples per second by precision and loader; prints them with busy time and memory."""
    print("| precision | cache | samples/s | over resident | GPU busy | memory, MB |\n|---|---|---|---|---|---|")
    rates: dict[tuple[str, str], float] = {}
    for precision in precisions(device):
        for kind in ("resident", "streamed", "streamed, cold"):
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
            run = trainer(cache, device, size, precision, kind == "resident")
            dropped = cache.folder if kind == "streamed, cold" and hasattr(os, "posix_fadvise") else None
            rates[precision, kind] = found = rate(run, size.seconds, dropped)
            slower = rates[precision, "resident"] / found
            share = busy(run, device)
            rates[precision, f"busy, {kind}"] = share
            shown = "-" if np.isnan(share) else f"{share:.0%}"
            memory = devices.peak_mb(device)
            print(f"| {precision} | {kind} | {found:,.0f} | {slower:.2f} | {shown} | {memory:,.0f} |", flush=True)
            del run
    return rates


def steps(run: Trainer, count: int) -> None:
    """The first steps of epoch 0."""
    left = iter(range(count - 1))
    with contextlib.suppress(StopIteration):
        run.epoch(0, left.__next__)  # ends the epoch after as many


def busy(run: Trainer, device: torch.device, count: int = 30) -> float:
    """The part of the time in which the GPU computes or copies, of steps of an epoch; NaN without a CUDA GPU."""
    if device.type != "cuda":
        return float("nan")
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        steps(run, count)
        devices.synchronize(device)
    spans = sorted((e.time_range.start, e.time_range.end) for e in seen.events() if e.device_type.name == "CUDA")
    if not spans:
        return float("nan")
    done, first, last = 0.0, spans[0][0], spans[0][0]
    for start, end in spans:
        done += max(0.0, end - max(start, last))
        last = max(last, end)
    return done / (last - first)


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
    write_cache(Path("small"), Pictures(1, 1.0), small)
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
    run.epoch(0)
    Path(f"{go}-ready-{os.getpid()}").touch()
    while not Path(go).exists():
        time.sleep(0.01)
    started, count, epoch = time.perf_counter(), 0, 1
    while time.perf_counter() - started < float(os.environ["COUNTERPOISE_BENCH_SECONDS"]) or epoch == 1:
        run.epoch(epoch)
        count, epoch = count + len(run.loaders["train"]), epoch + 1
    print(count / (time.perf_counter() - started))


def published(device: torch.device, size: Size) -> float:
    """Samples per second of the released way on files of the same clips."""
    from pipeline_src.models.multimodal import build

    files = Files(Path("files"), size.published, size.frames, size.pixels, CLASSES)
    audio, visual, _ = files[0]
    inputs = {
        "audio": {"layout": "spectrogram", "shape": list(audio.shape)},
        "visual": {"layout": "frames", "shape": list(visual.shape)},
    }
    network = encoders["resnet"].Params(kind="resnet", width=size.width, depth=list(size.depth))
    workers = min(size.workers, len(os.sched_getaffinity(0)))
    for part in (torch.backends.cudnn.conv, torch.backends.cudnn.rnn):
        part.fp32_precision = "tf32"  # PyTorch's default, which the released code leaves
    torch.set_deterministic_debug_mode("default")
    model = build(dict.fromkeys(inputs, network), "concat", inputs, CLASSES, 0)
    found = train(model, files, device, size.batch, workers)
    print(f"\nThe published way, JPEG and WAV files, {workers} workers, float32: {found:,.0f} samples/s", flush=True)
    return found


def aims(rates: dict[tuple[str, str], float], plain: float, device: torch.device) -> None:
    """Print what was aimed at, and whether it is met."""
    best = precisions(device)[0]
    resident, streamed = rates[best, "resident"], rates[best, "streamed, cold"]
    share, hours = rates[best, "busy, resident"], VGGSOUND * 100 / resident / 3600
    measured = not np.isnan(share)
    lines = [
        ("busy at least 90 % of the time", share >= 0.9, f"{share:.0%}" if measured else "not measured, no CUDA GPU"),
        ("streamed, cold: at most 1.05 times resident", resident <= 1.05 * streamed, f"{resident / streamed:.2f}"),
        ("at least 10 times the published way", resident >= 10 * plain, f"{resident / plain:.1f}"),
        ("VGGSound x 100 epochs below 3.5 hours, by the rate", hours < 3.5, f"{hours:,.1f} h"),
    ]
    print(f"\nAims, in {best}:")
    for aim, met, value in lines:
        print(f"  {'met' if met else 'not met':8} {aim}: {value}")
