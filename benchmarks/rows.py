"""What a dataset of millions of clips takes of every stage but decoding: seconds and memory, at a size and a tenth.

A table of your own files with as many rows, whose files are names of a few empty ones, read by an extractor that opens
nothing: every stage runs as it does on real data, and only what grows with the number of clips is left of it. Record
batches of the cache have as few clips as they have of media. Each command is a process of its own, whose CPU time and
largest memory the kernel counts.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline_src.core.errors import UserError
from pipeline_src.study.outputs import Run
from pipeline_src.study.plan import Plan

ROOT = Path(__file__).parents[1]
CLASSES, TEST, VAL = 300, 0.02, 0.05
NAMES = 527  # labels of a clip, as AudioSet has
BATCH = 23  # clips of a record batch: 16 MB of clips of 700 kB
LINKS = 20_000  # names of one file; file systems allow 65,000 or more
FOLDER = 1000  # files
SHARDS = 4
LIMIT = 4000  # MB
GROWTH = 11.0  # per ten times the rows, as a fixed part of each command only lowers it
ROUNDS = 3
LEAST = 1.0  # s; what takes less is not judged by its growth

ENCODER = {
    "kind": "transformer",
    "width": 8,
    "layers": 1,
    "heads": 1,
    "feedforward": 8,
    "positions": "none",
    "pool": "first",
    "padding": "read",
}
ARRAY = {"kind": "nothing", "length": 1, "features": 4, "non_finite": "refuse"}
NOTHING = """
import numpy as np
from pipeline_src.media.array import Array
from pipeline_src.media.base import extractors

CLIP = np.arange(1, 5, dtype=np.float32)[None]


@extractors.register("nothing")
class Nothing(Array):
    def probe(self, file):
        return 1.0

    def extract(self, file):
        return CLIP
"""
PARAMS = {
    "study": {"datasets": ["rows"], "fusions": ["concat"], "methods": ["joint"], "unimodal": True, "seeds": [0]},
    "datasets": {
        "rows": {
            "kind": "table",
            "recipe": "arrays",
            "folder": "media",
            "file": "clips.parquet",
            "modalities": {"audio": "file", "visual": "file"},
            "val_fraction": VAL,
            "shards": SHARDS,
        }
    },
    "recipes": {"arrays": {"audio": ARRAY, "visual": ARRAY}},
    "model": {"encoders": {"audio": ENCODER, "visual": ENCODER}},
    "training": {
        "epochs": 2,
        "batch_size": 4096,
        "optimizer": "sgd",
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "lr_step": 1,
        "lr_gamma": 1.0,
        "augmentation": {"audio": {}, "visual": {}},
        "normalize": "none",
        "select": "best_val",
        "track_test": False,
        "device": "cpu",
        "precision": "fp32",
        "resident_fraction": 0.0,
    },
    "evaluation": {"batch_size": 4096, "probe_c": 1.0e-6, "probe_iterations": 1000},
    "reporting": {"confidence": 0.95},
    "tracking": {"enabled": False},
    "plugins": ["../plugins"],
}


class Cost(NamedTuple):
    """CPU seconds of a command, or the sum of several, and the most memory of one of its processes, MB."""

    cpu: float
    memory: float


def measure(rows: int) -> None:
    """Print what each command takes at a tenth of `rows` and at `rows`. Raises UserError if one takes more than LIMIT
    or grows faster than the rows.
    """
    opening()
    found: list[dict[str, Cost]] = []
    with tempfile.TemporaryDirectory(prefix="counterpoise-rows-", dir=Path.cwd()) as base:
        for count in (rows // 10, rows):
            folder = Path(base, str(count))
            folder.mkdir()
            found.append({})
            for name, cost in commands(folder, count):
                found[-1][name] = cost
                print(f"{count:12,}  {name:44}{cost.cpu:9.1f} s{cost.memory:9,.0f} MB", flush=True)
            shutil.rmtree(folder)
    small, large = found
    print(f"\n| | CPU s, {rows // 10:,} rows | {rows:,} | ratio | MB, {rows // 10:,} rows | {rows:,} | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, cost in large.items():
        before = small[name]
        print(
            f"| {name} | {before.cpu:.1f} | {cost.cpu:.1f} | {cost.cpu / before.cpu:.1f} "
            f"| {before.memory:,.0f} | {cost.memory:,.0f} | {cost.memory / before.memory:.1f} |"
        )
    bad = [name for name, cost in large.items() if cost.memory > LIMIT or _grows(small[name], cost)]
    if bad:
        raise UserError(f"rows: expected at most {LIMIT} MB and growth as the rows', but not so of: {', '.join(bad)}")


def _grows(small: Cost, large: Cost) -> bool:
    return large.cpu > LEAST and large.cpu > GROWTH * small.cpu


def commands(folder: Path, rows: int) -> Iterator[tuple[str, Cost]]:
    """What the commands of a study of so many clips take, one after the other."""
    lay_out(folder, rows)
    yield "plan, the first: every file is hashed", spent(folder, "plan")
    yield "plan", spent(folder, "plan")
    yield "snakemake -n", dry_run(folder)
    yield "manifest", spent(folder, "manifest")
    with chdir(folder):
        plan = Plan("params.yaml")
        shards, runs = [str(stem.with_suffix(".arrow")) for stem in plan.data[0].shards], plan.runs
    parts = [spent(folder, *EXTRACT, shard, module="") for shard in shards]
    yield f"extract, {len(parts)} jobs", Cost(sum(part.cpu for part in parts), max(part.memory for part in parts))
    yield "cache", spent(folder, "cache")
    yield "an epoch's order and its batches", spent(folder, *EPOCH, module="")
    *others, last = runs
    yield (
        "train: two epochs, stopped in the second",
        spent(folder, "train", str(last.record), until=_second(folder, last)),
    )
    yield "train: resumed to the end", spent(folder, "train", str(last.record))
    yield "evaluate", spent(folder, "evaluate", str(last.metrics))
    for run in others:
        spent(folder, "train", str(run.metrics))
    yield "check", spent(folder, "check")
    yield "snakemake -n, with the manifest", dry_run(folder)
    yield f"aggregate, {len(runs)} runs", spent(folder, "aggregate")
    yield "status", spent(folder, "status")
    yield "verify", spent(folder, "verify")
    yield f"a column of {NAMES} labels, and its targets", spent(folder, *LABELS, str(rows), module="")


EXTRACT = (
    "-c",
    f"""
import sys
from pipeline_src.cli import main
from pipeline_src.features import build
build.BATCH_BYTES = {BATCH * 2 * 4 * 4}
sys.exit(main(["extract", *sys.argv[1:]]))
""",
)
EPOCH = (
    "-c",
    """
import torch
from pipeline_src.features.read import Cache
from pipeline_src.study.plan import Plan
from pipeline_src.training.loader import Loader
(data,) = Plan("params.yaml").data
loader = Loader(Cache(data.cache), "train", list(data.extractors), torch.device("cpu"), resident=False)
order = torch.randperm(len(loader), generator=torch.Generator().manual_seed(0))
count = sum(len(batch.label) for batch in loader.batches(4096, order))
assert count == len(loader), count
""",
)

LABELS = (
    "-c",
    f"""
import sys
import numpy as np
import pyarrow as pa
from pipeline_src.tasks.base import tasks
from pipeline_src.training.loader import targets
target, rows = tasks["multilabel"].target, int(sys.argv[1])
ends = pa.array(np.arange(0, rows * {NAMES} + 1, {NAMES}, dtype=np.int32))
column = pa.ListArray.from_arrays(ends, pa.array(np.zeros(rows * {NAMES}, target.dtype))).to_pandas()
assert targets(column.to_numpy(), target).shape == (rows, {NAMES})
""",
)


def lay_out(folder: Path, rows: int) -> None:
    """The table, its files and params.yaml in `folder`, the plug-in beside it. Two clips of a group, as of a video."""
    media, number = folder / "media", np.arange(rows)
    draw = np.random.default_rng(0)
    names = [f"files/{i // FOLDER:05d}/clip{i:08d}.mp4" for i in range(rows)]
    for i, name in enumerate(names):
        if i % FOLDER == 0:
            (media / name).parent.mkdir(parents=True)
        if i % LINKS == 0:
            (media / name).write_text(name)
        else:
            os.link(media / names[i - i % LINKS], media / name)
    table = {
        "id": [f"clip{i:08d}" for i in range(rows)],
        "label": [f"class{label:03d}" for label in draw.integers(CLASSES, size=rows)],
        "split": np.where(number // 2 % round(1 / TEST) == 0, "test", "train"),
        "group": [f"video{i // 2:08d}" for i in range(rows)],
        "file": names,
    }
    pq.write_table(pa.table(table), media / "clips.parquet")
    plugins = folder.parent / "plugins"  # one for both sizes, whose plans one process reads
    plugins.mkdir(exist_ok=True)
    (plugins / "nothing.py").write_text(NOTHING, encoding="utf-8")
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS, sort_keys=False), encoding="utf-8")


def dry_run(folder: Path) -> Cost:
    """The cost of `snakemake -n`."""
    return spent(folder, "-n", "--cores", "1", "--snakefile", str(ROOT / "Snakefile"), module="snakemake")


def spent(folder: Path, *arguments: str, module: str = "pipeline_src", until: Callable[[], bool] | None = None) -> Cost:
    """The cost of a command in `folder`; `until` says when it is asked to stop. Raises UserError if it fails."""
    command = [sys.executable, *(["-m", module] if module else []), *arguments]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with (folder / "output").open("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": path}
        )
        stopped = False
        while (
            until is not None
            and not stopped
            and os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):
            time.sleep(0.05)
            if stopped := until():
                process.send_signal(signal.SIGTERM)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != (128 + signal.SIGTERM if stopped else 0) or (until is not None and not stopped):
            output.seek(0)
            said = output.read().strip().splitlines()[-3:]
            raise UserError(f"{' '.join(arguments[:2])}: ended with {process.returncode}: {' '.join(said)}")
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1000)


def _second(folder: Path, run: Run) -> Callable[[], bool]:
    """Whether a run has done its first epoch."""
    return (folder / run.folder / "metrics.jsonl").exists


def opening(clips: int = 1000, processes: int = 4) -> None:
    """Print how many media files a second the manifest stage opens, in one process and in shards by several. They are
    real MP4 files of a second under many names; each is opened for its sound and for its picture.
    """
    from benchmarks import scale
    from pipeline_src.datasets import manifest

    with tempfile.TemporaryDirectory(prefix="counterpoise-rows-", dir=Path.cwd()) as name, chdir(name):
        media = scale._generate(Path("distinct").absolute(), seconds=1.0)
        scale._lay_out(Path.cwd(), media, clips, SHARDS)
        (data,) = Plan("params.yaml").data
        listed = manifest.listed_clips(data)
        found: dict[int, list[tuple[float, float]]] = {1: [], processes: []}
        for _ in range(ROUNDS):
            for count, times in found.items():
                before, started = _cpu(), time.perf_counter()
                manifest.look(data, listed, count, hashed=True)
                times.append((time.perf_counter() - started, _cpu() - before))
    wall, cpu = (
        statistics.median(one[i] / other[i] for one, other in zip(found[1], found[processes], strict=True))
        for i in range(2)
    )
    rate = clips / statistics.median(seconds for _, seconds in found[1])
    print(
        f"manifest: {rate:,.0f} files a second of one core; by {processes} processes on "
        f"{len(os.sched_getaffinity(0))} cores {wall:.2f} times the rate of one, {cpu:.2f} times per CPU second"
    )


def _cpu() -> float:
    """CPU seconds of this process and of those that it has started and that have ended."""
    return sum(sum(resource.getrusage(of)[:2]) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
