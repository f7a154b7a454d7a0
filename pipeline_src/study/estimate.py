"""What a study will take, before anything is run and without the data: runs, GPU hours, core hours, disk.

An estimate, from counts that are exact and rates that are assumed:

    operations    of the forward and backward pass of the encoders, and of fusions that meet them inside, counted by
                  PyTorch on tensors without content, once for each encoder and shape on a machine
    clips         of the manifest where there is one, else of the published lists
    cache         bytes of a clip as the recipe gives it
    GPU           `tflops` sustained and at least `step_ms` a step; assumed, as it depends on the machine
    extraction    seconds of a core per clip, by extractor, from generated clips of 10 s (docs/measuring.md)

Passes that a method adds, reading, and the linear probe are not counted. A dry run shows the estimate in a line: it
leaves counting to a process of its own, so that Snakemake never holds PyTorch. A dry run of more than MANY runs counts
nothing new: it must stay cheap, and points to `estimate`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.core.fingerprint import code_digest, fingerprint
from pipeline_src.models.base import encoders, fusion_facts, fusions
from pipeline_src.tasks.base import tasks
from pipeline_src.tasks.segments import cut_shape

if TYPE_CHECKING:
    import torch

    from pipeline_src.media.base import Extractor
    from pipeline_src.models.base import EncoderParams
    from pipeline_src.study.outputs import Cell, Data
    from pipeline_src.study.plan import Plan

TFLOPS = 20.0  # what a data-centre GPU sustains on small convolutions in bf16, by the order of magnitude
SECONDS = {
    "flow": 1.7,
    "image": 0.01,
    "array": 0.001,
    "tokens": 0.001,
    "tokenizer": 0.001,
}  # of a core per clip, by extractor
DECODING = 0.06  # of every other, a stream of about 10 s; `bench scale` measures 0.12 for sound and frames
STEP_MS = 15.0  # launching the kernels of two small networks, however small the batch

MANY = 1000
FUSION = ""  # among the names of modalities
CLIPS = 2  # that are counted: normalisation over a batch needs more than one

COUNTS = Path("data/seen/operations")  # of encoders by their fingerprint; no output: it may be lost


@dataclass(frozen=True)
class DataCost:
    """What one dataset of a study takes."""

    data: Data
    clips: dict[str, int]  # by split; empty if not known
    counted: bool  # from the manifest, not from the published lists
    runs: int
    epochs: int
    flop: float  # of all its runs
    gpu_seconds: float
    draws: int = 1  # caches of it that no dataset before it has

    @property
    def total(self) -> int:
        return sum(self.clips.values())

    @property
    def bytes(self) -> int:
        return self.draws * self.total * sum(x.row_bytes for x in self.data.extractors.values())

    @property
    def core_seconds(self) -> float:
        return self.draws * self.total * sum(map(seconds, self.data.extractors.values()))


def seconds(extractor: Extractor) -> float:
    """Of a core, for one clip."""
    return SECONDS.get(extractor.name, DECODING)


def estimate(plan: Plan, tflops: float = TFLOPS, step_ms: float = STEP_MS) -> list[DataCost]:
    """The cost of every dataset of the plan, whatever of it is there already."""
    costs = []
    cached: set[Path] = set()  # under several schedules, a dataset has one cache
    for data in plan.datasets.values():
        clips, counted = _clips(data)
        cells = [cell for cell in plan.cells if cell.data.name == data.name]
        runs = sum(len(cell.seeds) for cell in cells)
        flop = gpu = 0.0
        for cell in cells if clips else []:
            forward, both = map(sum, zip(*(operations(cell, part) for part in parts(cell)), strict=True))
            seeds, schedule = len(cell.seeds), cell.spec.training
            scored = clips["val"] + schedule.track_test * clips["test"]
            batches = -(-clips["train"] // schedule.batch_size) + -(-scored // schedule.batch_size)
            one = schedule.epochs * (clips["train"] * both + scored * forward) + sum(clips.values()) * forward
            flop += seeds * one
            gpu += seeds * max(one / (tflops * 1e12), schedule.epochs * batches * step_ms / 1000)
        caches = {one.cache for one in plan.named(data.name)} - cached
        cached |= caches
        draws, epochs = len(caches), plan.params.training_of(data.name).epochs
        costs.append(DataCost(data, clips, counted, runs, epochs, flop, gpu, draws))
    return costs


def line(plan: Plan) -> str:
    """The whole study in a line; what `snakemake -n` shows."""
    runs = len(plan.runs)
    epochs = " or ".join(str(count) for count in dict.fromkeys(t.epochs for t in plan.params.trainings().values()))
    text = f"{plan.file}: {runs} runs of {epochs} epochs"
    if any(key(cell, part) not in _remembered() for cell in plan.cells for part in parts(cell)):
        if runs > MANY:
            return f"{text}; python -m pipeline_src estimate --params={plan.file} says what they take"
        command = [sys.executable, "-m", "pipeline_src", "estimate", f"--params={plan.file}"]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        _remembered.cache_clear()
    costs = estimate(plan)
    unknown = [cost.data.name for cost in costs if not cost.clips]
    if unknown:
        return f"{text}; how many clips {', '.join(unknown)} has is known once its manifest is made"
    gpu = sum(cost.gpu_seconds for cost in costs) / 3600
    core = sum(cost.core_seconds for cost in costs) / 3600
    size = sum(cost.bytes for cost in costs) / 1e9
    return (
        f"{text}; estimated {_short(gpu)} GPU hours at {TFLOPS:g} TFLOP/s, {_short(core)} core hours of extraction, "
        f"{_short(size)} GB of cache"
    )


def show(plan: Plan, tflops: float, step_ms: float) -> None:
    """Print the estimate with what it is made of."""
    for cost in estimate(plan, tflops, step_ms):
        data, size = cost.data, cost.bytes
        print(f"{data.name} by {data.recipe}: {cost.runs} runs of {cost.epochs} epochs")
        if not cost.clips:
            print("    how many clips it has is known once its manifest is made")
            continue
        source = "manifest" if cost.counted else "expected; the manifest will count them"
        clips = ", ".join(f"{count:,} {split}" for split, count in cost.clips.items())
        draws = f", in each of {cost.draws} draws" if cost.draws > 1 else ""
        print(f"    clips       {clips} ({source}){draws}")
        if cost.draws:
            print(f"    cache       {_short(size / 1e9)} GB, {size / cost.draws / cost.total / 1000:,.0f} kB a clip")
            parts = ", ".join(f"{m} {1000 * seconds(x):.3g} ms" for m, x in data.extractors.items())
            hours = _short(cost.core_seconds / 3600)
            print(f"    extraction  {hours} core hours in {cost.draws * len(data.shards)} jobs ({parts} a clip)")
        else:
            print("    cache       shared with a schedule above")
        print(f"    training    {_short(cost.gpu_seconds / 3600)} GPU hours ({cost.flop:.2g} operations)")
    print(
        f"An estimate: {tflops:g} TFLOP/s sustained and {step_ms:g} ms or more a step are assumed (--tflops, --step-ms)"
        "; methods' own passes are not counted."
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _clips(data: Data) -> tuple[dict[str, int], bool]:
    """Clips by split, and whether they are counted rather than published."""
    manifest = data.manifest / "manifest.parquet"
    if manifest.exists():
        counts = files.read_table(manifest, f"delete {data.manifest} and run snakemake again").split.value_counts()
        return {split: int(counts.get(split, 0)) for split in ("train", "val", "test")}, True
    sizes = dict(data.dataset.sizes)
    if not sizes:
        return {}, False
    val = sizes.get("val", round(sizes["train"] * data.dataset.params.val_fraction))
    return {"train": sizes["train"] - ("val" not in sizes) * val, "val": val, "test": sizes["test"]}, False


def parts(cell: Cell) -> list[str]:
    """What of a cell's model is counted: the encoder of each modality, and FUSION if it works inside the encoders.

    Any other fusion is a few layers on the features.
    """
    modalities = list(cell.spec.modalities)
    inside = len(modalities) > 1 and fusion_facts(cell.spec.fusion).taps
    return [*modalities, FUSION] if inside else modalities


def operations(cell: Cell, part: str) -> tuple[float, float]:
    """Floating-point operations per clip of a part: of a forward pass, and of forward and backward."""
    name, known = key(cell, part), _remembered()
    if name not in known:
        if part == FUSION:
            known[name] = counted_fusion(cell)
        else:
            layout, shape = _input(cell, part)
            known[name] = counted(cell.spec.encoders[part], layout, shape, max(1, cell.spec.segments))
        with suppress(UserError):  # where nothing can be written they are counted again
            files.write_json(COUNTS, known)
    forward, both = known[name]
    return forward, both


def _input(cell: Cell, modality: str) -> tuple[str, tuple[int, ...]]:
    """Layout and shape of what the encoder of a modality reads: a sample, or one of its segments."""
    extractor, segments = cell.data.extractors[modality], cell.spec.segments
    shape = tuple(extractor.shape)
    return extractor.layout, cut_shape(modality, extractor.layout, shape, segments) if segments else shape


def key(cell: Cell, part: str) -> str:
    """The name under which the operations of a part of a cell's model are remembered."""
    if part == FUSION:
        fusion, of = cell.spec.fusion, [key(cell, m) for m in cell.spec.modalities]
        return fingerprint(code=code_digest([fusions.module(fusion)]), fusion=fusion, encoders=of)
    encoder = cell.spec.encoders[part]
    return _key(encoder.kind, json.dumps(encoder.values("train")), *_input(cell, part), max(1, cell.spec.segments))


@cache
def _key(kind: str, params: str, layout: str, shape: tuple[int, ...], rows: int) -> str:
    code = code_digest([encoders.module(kind)])
    return fingerprint(code=code, params=params, layout=layout, shape=shape, **({"rows": rows} if rows > 1 else {}))


@cache
def _remembered() -> dict[str, list[float] | tuple[float, float]]:
    """What is remembered of earlier counts; nothing if the file is no such memory."""
    try:
        found = files.read_json(COUNTS)
        return {name: [float(value) for value in counts] for name, counts in found.items() if len(counts) == 2}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def counted(encoder: EncoderParams, layout: str, shape: tuple[int, ...], rows: int = 1) -> tuple[float, float]:
    """Floating-point operations per clip, of so many rows, of a forward pass, and of forward and backward, without any
    data.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        module = encoders[encoder.kind](_without_weights(encoder), layout, shape).build()
        features = module(_inputs(layout, shape, rows))
        forward = counter.get_total_flops()
        if not encoder.freeze:
            features.sum().backward()
        return forward / CLIPS, counter.get_total_flops() / CLIPS


def counted_fusion(cell: Cell) -> tuple[float, float]:
    """The same of a fusion, without the encoders: what the whole model takes beyond them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pipeline_src.models.multimodal import build

    spec, shapes = cell.spec, {m: _input(cell, m) for m in cell.spec.modalities}
    rows = max(1, spec.segments)
    about = {m: {"layout": layout, "shape": shape} for m, (layout, shape) in shapes.items()}
    network = {m: _without_weights(encoder) for m, encoder in spec.encoders.items()}
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        outputs = tasks[spec.task](len(cell.data.dataset.classes)).outputs
        model = build(network, spec.fusion, about, outputs, 0, spec.fusion_params)
        output = model({m: _inputs(layout, shape, rows) for m, (layout, shape) in shapes.items()})
        forward = counter.get_total_flops()
        losses = [output.logits, *model.fusion.unimodal(output.features).values()]
        sum(z.sum() for z in losses).backward()
        both = counter.get_total_flops()
    alone = [counted(spec.encoders[m], *shape, rows) for m, shape in shapes.items()]
    return max(0.0, forward / CLIPS - sum(a for a, _ in alone)), max(0.0, both / CLIPS - sum(b for _, b in alone))


def _without_weights(encoder: EncoderParams) -> EncoderParams:
    """Random weights: a file need not be read to count."""
    has = "weights" in type(encoder).model_fields
    return encoder.model_copy(update={"weights": None}) if has else encoder


def _inputs(layout: str, shape: tuple[int, ...], rows: int) -> torch.Tensor:
    """An input of CLIPS clips of so many rows."""
    import torch

    return torch.zeros((CLIPS * rows, *shape), dtype=torch.long if layout == "tokens" else torch.float32)
