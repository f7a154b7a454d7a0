"""What the pipeline needs for large datasets, measured on generated clips in Kinetics-Sounds' own layout.

Real MP4 files (H.264 and AAC) under real names, by the dataset, recipe and stages of
`experiments/ogm-ge-2022-ks.yaml`; a few distinct clips under many names, as decoding one costs what another does.
Every stage is a process of its own, whose CPU time and memory the kernel counts, so that other work on the machine
does not spoil the rates.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.study.plan import Plan

EXPERIMENT = Path(__file__).parents[1] / "experiments/ogm-ge-2022-ks.yaml"
PROJECTED = {"Kinetics-Sounds": 17_396, "VGGSound": 199_467}  # clips
DISTINCT, FPS, WIDTH, HEIGHT, RATE = 10, 25, 340, 256, 44_100
LIMIT = 1600 << 20  # bytes that training may have of its own; PyTorch asks for 1,200 before any clip
SAMPLE = 0.02  # seconds
TRIES = 5


class Used(NamedTuple):
    """What a process took of the cores, s, and the most memory of its own, MB: without mapped files."""

    cpu: float
    own: float


def measure(clips: int, seconds: float = 10.0, shards: int = 8) -> None:
    """Print the figures for a fourth of `clips` and for all of them, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="counterpoise-scale-", dir=Path.cwd()) as name:
        folder = Path(name)
        media = _generate(folder / "distinct", seconds)
        print(
            f"{clips} clips, {len(media)} of them distinct: {seconds:g} s, {WIDTH} x {HEIGHT}, H.264 and AAC",
            flush=True,
        )
        heads = ("clips", "jobs", "core seconds", "MB a job", "kB a clip", "MB of cache")
        print("".join(f"{head:>14}" for head in heads), flush=True)
        spent = {}
        for count in (clips // 4, clips):
            spent[count], plan = _extract(folder / str(count), media, count, shards)
        # Both have as many jobs, so what a job takes before its first clip is in neither.
        rate = (clips - clips // 4) / max(spent[clips] - spent[clips // 4], 1e-9)
        print(f"extraction: {rate:.1f} clips a second of one core, beside what a job takes to start", flush=True)
        _restart(plan, folder / str(clips))
        _stream(plan, folder / str(clips))
        (data,) = plan.data
        row = sum(x.row_bytes for x in data.extractors.values())
        print("projected, not measured:")
        for title, total in PROJECTED.items():
            print(f"  {title}, {total:,} clips: {total / rate / 3600:.1f} core hours, {total * row / 1e9:,.0f} GB")


def _generate(folder: Path, seconds: float) -> list[Path]:
    """Distinct clips: a texture that drifts, with noise and a chord."""
    import av

    folder.mkdir(parents=True)
    made, rng = [], np.random.default_rng(0)
    for i in range(DISTINCT):
        field = rng.normal(size=(HEIGHT // 8 + 2, WIDTH // 8 + 2, 3)).cumsum(0).cumsum(1)
        field = np.kron(field, np.ones((8, 8, 1)))
        field = np.uint8(20 + 200 * (field - field.min()) / np.ptp(field))
        times = np.arange(round(seconds * RATE)) / RATE
        wave = 0.2 * sum(np.sin(2 * np.pi * f * times) for f in rng.uniform(100, 4000, 3))
        wave += rng.normal(0, 0.02, len(times))
        with av.open(str(folder / f"{i}.mp4"), "w") as container:
            video = container.add_stream("libx264", rate=FPS, pix_fmt="yuv420p", options={"preset": "veryfast"})
            video.width, video.height = WIDTH, HEIGHT
            sound = container.add_stream("aac", rate=RATE, layout="mono")
            for k in range(round(seconds * FPS)):
                shifted = np.roll(field, (k, 2 * k), (0, 1))[:HEIGHT, :WIDTH]
                grain = rng.integers(0, 16, (HEIGHT // 4, WIDTH // 4, 1), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shifted + grain), format="rgb24")
                frame.pts = k
                container.mux(video.encode(frame))
            block = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], "fltp", "mono")
            block.sample_rate = RATE
            container.mux(sound.encode(block))
            for stream in container.streams:
                container.mux(stream.encode(None))
        made.append(folder / f"{i}.mp4")
    return made


def _extract(folder: Path, media: list[Path], count: int, shards: int) -> tuple[float, Plan]:
    """Core seconds of extraction, and the plan, after manifest, extraction and cache of `count` clips."""
    _lay_out(folder, media, count, shards)
    _run(folder, "manifest")
    plan = _plan(folder)
    (data,) = plan.data
    jobs = [_run(folder, "extract", str(stem.with_suffix(".arrow"))) for stem in data.shards]
    packed = _run(folder, "cache")
    size = _bytes(data, folder)
    spent, peak = sum(job.cpu for job in jobs), max(job.own for job in (*jobs, packed))
    found = (count, len(jobs), f"{spent:.1f}", f"{peak:.0f}", f"{size / count / 1000:.0f}", f"{size / 1e6:.0f}")
    print("".join(f"{value:>14}" for value in found), flush=True)
    kept = sum(files.read_json(folder / data.cache_file)["splits"].values())
    if kept != count:
        raise UserError(f"{data.cache}: expected all {count} clips in the cache, but got {kept}")
    return spent, plan


def _bytes(data, folder: Path) -> int:
    return sum((folder / stem.with_suffix(".arrow")).stat().st_size for stem in data.shards)


def _lay_out(folder: Path, media: list[Path], count: int, shards: int) -> None:
    """Clips as Kinetics-Sounds publishes them, and a params file of a network small enough for any machine."""
    from pipeline_src.datasets.kinetics_sounds import KineticsSounds

    source = folder / "source"
    lists = {"train": [], "test": []}
    for i in range(count):
        split, name = "test" if i % 5 == 4 else "train", f"clip{i:07d}_000001_000011"
        target = source / f"videos/{i // 1000}/{name}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(media[i % len(media)], target)
        lists[split].append(f"{name},10,{i // 5 % len(KineticsSounds.classes)}\n")
    (source / "lists").mkdir()
    for split, lines in lists.items():
        (source / f"lists/my_{split}.txt").write_text("".join(lines))
    values = yaml.safe_load(EXPERIMENT.read_text())
    values["study"] |= {"fusions": ["concat"], "methods": ["joint"], "unimodal": False, "seeds": [0]}
    values["datasets"]["kinetics_sounds"] |= {"folder": str(source), "shards": shards, "val_fraction": 0.25}
    values["model"]["encoders"] = {m: {"kind": "resnet", "width": 4, "depth": [1]} for m in ("audio", "visual")}
    values["training"] |= {"epochs": 1, "batch_size": 8, "resident_fraction": 1.0, "device": "cpu"}
    values["methods"] = {}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))


def _plan(folder: Path) -> Plan:
    with contextlib.chdir(folder):
        plan = Plan("params.yaml")
        plan.index  # noqa: B018 what the folder holds is read now
        return plan


def _start(folder: Path, *arguments: str, limit: int | None = None) -> subprocess.Popen:
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    # Threads have memory of their own, which would count.
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-m", "pipeline_src", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limited if limit else None,
    )


def _run(folder: Path, *arguments: str, limit: int | None = None) -> Used:
    """Run a stage to its end. Raises UserError with its last line if it fails."""
    process = _start(folder, *arguments, limit=limit)
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr))
    reader.start()
    own = 0.0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        own = max(own, _own_mb(process.pid))
        time.sleep(SAMPLE)
    reader.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"{' '.join(arguments)}: ended with {process.returncode}: {lines[-1].strip() if lines else ''}")
    return Used(usage.ru_utime + usage.ru_stime, own)


def _own_mb(pid: int) -> float:
    """Memory that is a process's own now, MB: not of mapped files, which the kernel takes back when it needs them."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 2**10
    except (OSError, StopIteration):
        return 0.0


def _restart(plan: Plan, folder: Path) -> None:
    """Kill an extraction job in the middle, and start it again: its shard alone is made anew, with the same content."""
    (data,) = plan.data
    shard = folder / data.shards[0].with_suffix(".arrow")
    before = files.sha256(shard)
    others = {path: path.stat().st_mtime_ns for path in shard.parent.glob("*.arrow") if path != shard}
    target = str(data.shards[0].with_suffix(".arrow"))
    for _ in range(TRIES):  # it may be done before the kill comes
        shard.unlink(missing_ok=True)
        process = _start(folder, "extract", target)
        process.stderr.readline()  # some of its clips are done
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if not shard.exists():
            break
    else:
        raise UserError(f"{target}: expected to kill its job in the middle; ask for more --clips")
    used = _run(folder, "extract", target)
    same = files.sha256(shard) == before and others == {path: path.stat().st_mtime_ns for path in others}
    if not same:
        raise UserError(f"{shard}: expected the same content as before the kill, and the other shards as they were")
    left = [path.name for path in shard.parent.iterdir() if ".tmp-" in path.name]
    print(
        f"killed in the middle of a shard: started again, that shard alone takes {used.cpu:.1f} core seconds, has the "
        f"same content, {len(others)} others untouched, {len(left)} files left over",
        flush=True,
    )


def _stream(plan: Plan, folder: Path) -> None:
    """Train an epoch with less memory than the cache is large, and read it both ways."""
    (run,) = plan.runs
    size = _bytes(run.cell.data, folder)
    used = _run(folder, "train", str(run.record), limit=LIMIT)
    resident = files.read_json(folder / run.record)["resident"]
    print(
        f"training: a cache of {size / 1e6:,.0f} MB where {LIMIT / 1e6:,.0f} MB are allowed: "
        f"{'from memory' if resident else 'streamed'}, with {used.own:,.0f} MB of its own at most",
        flush=True,
    )
    _read(run, folder)


def _read(run, folder: Path) -> None:
    """Clips a second that the loader gives in a random order, from memory and streamed from the (warm) file."""
    import torch

    from pipeline_src.features.read import Cache
    from pipeline_src.training.loader import Loader

    cache, device = Cache(folder / run.cell.data.cache), torch.device("cpu")
    rates = {}
    for name, resident in (("from memory", True), ("streamed", False)):
        loader = Loader(cache, "train", run.cell.spec.modalities, device, resident)
        order = torch.randperm(len(loader), generator=torch.Generator().manual_seed(0))
        for _ in range(2):  # the first fills the page cache
            started = time.perf_counter()
            count = sum(len(batch.label) for batch in loader.batches(64, order))
            rates[name] = count / (time.perf_counter() - started)
    print(f"loader: {', '.join(f'{rate:,.0f} clips/s {name}' for name, rate in rates.items())}", flush=True)
