"""A made-up grid of runs, to measure the report with: files as the stages write them, figures by chance."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from pipeline_src.core import files
from pipeline_src.methods.base import Setting, methods
from pipeline_src.models.base import fusions
from pipeline_src.study import places, runs
from pipeline_src.study.outputs import NO_FUSION
from pipeline_src.study.plan import Plan

EPOCHS, CLIPS = 100, 500
# What each method logs by modality, so that every figure is drawn.
LOGGED = {
    "ogm": ("score", "ratio", "coefficient"),
    "opm": ("score", "ratio", "drop_probability"),
    "pmr": ("prototype_score", "ratio", "prototype_loss", "weight", "entropy", "entropy_weight"),
    "relearning": ("purity_train", "purity_val", "reset_strength"),
}


def grid(file: Path, count: int) -> dict[str, Any]:
    """The params of `file` with its first dataset under four names, four fusions, every method that takes them all,
    and so many seeds that there are about `count` runs.
    """
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    name = values["study"]["datasets"][0]
    copies = [f"{name}-{i}" for i in range(4)]
    four = list(fusions)[:4]
    where = [Setting(tuple(values["model"]["encoders"]), fusion, values["training"]["epochs"]) for fusion in four]
    names = [n for n in methods if all(methods[n].refuses(methods[n].Params(), one) is None for one in where)]
    values["datasets"] = {copy: {**values["datasets"][name], "split_seed": i} for i, copy in enumerate(copies)}
    seeds = max(2, round(count / (len(copies) * (len(four) * len(names) + len(values["model"]["encoders"])))))
    values["study"] |= {"datasets": copies, "fusions": four, "methods": names, "seeds": list(range(seeds))}
    return values


def write(plan: Plan) -> None:
    """Every run of the plan, complete."""
    rng = np.random.default_rng(0)
    for run in plan.runs:
        own, level = run.cell.spec.modalities, 0.7 + 0.2 * rng.random()
        files.write_sealed(run.metrics, {"names": run.names, "metrics": _metrics(own, level, rng)})
        rows = [_epoch(run, own, i, level) for i in range(EPOCHS)]
        files.write_text(run.folder / places.HISTORY, "".join(json.dumps(row) + "\n" for row in rows))
        runs.write_record(run.folder, _record(run))
        _predictions(run, own, level, rng)


def _record(run) -> dict[str, Any]:
    return {
        **run.names,
        "fingerprint": run.cell.fp,
        "status": runs.COMPLETE,
        "parameters": run.cell.spec.record(),
        "cache": {"folder": str(run.cell.data.cache), "fingerprint": run.cell.data.cache_fp, "sha256": "0" * 64},
        "machine": {"host": "none", "device": "none"},
        "versions": {"counterpoise": "0", "git": None},
        "seconds": 60.0,
        "forwards": 1000,
        "backwards": 1000,
        "peak_memory_mb": 1000.0,
        "fixed_seconds": 3.0,
        "ended": "2025-01-01T10:01:00+00:00",
    }


def _metrics(own: list[str], level: float, rng) -> list[dict]:
    values = {("test", "fused", name): level for name in ("accuracy", "macro_f1", "map", "accuracy_best_test_epoch")}
    values |= {("train", "fused", name): 1000.0 for name in ("seconds", "forwards", "backwards")}
    for m in own:
        values |= {("test", m, f"accuracy_{view}"): level * rng.random() for view in ("unimodal", "removal", "probe")}
        values["test", m, "contribution"] = level / len(own)
    names = ("split", "modality", "metric")
    return [dict(zip(names, key, strict=True)) | {"value": float(value)} for key, value in values.items()]


def _epoch(run, own: list[str], i: int, level: float) -> dict[str, float]:
    rise = 1 - 0.95**i
    row = {"epoch": i, "lr": 0.01, "seconds": 1.0, "loss": 2 - rise, "val_accuracy": level * rise}
    if run.cell.fusion != NO_FUSION:
        row |= {f"val_accuracy/{m}": 0.8 * level * rise for m in own}
        part = next((name for name in LOGGED if run.cell.method.startswith(name)), None)
        if part != "relearning" or i % 20 == 1:
            row |= {f"{what}/{m}": 0.5 + rise / 2 for what in LOGGED.get(part, ()) for m in own}
    return row


def _predictions(run, own: list[str], level: float, rng) -> None:
    classes = len(run.cell.data.dataset.classes)
    label = np.arange(CLIPS) % classes
    predicted = np.where(rng.random(CLIPS) < level, label, rng.integers(0, classes, CLIPS))
    columns = {
        "id": pa.array([f"clip{i}" for i in range(CLIPS)]),
        "split": pa.array(["test"] * CLIPS),
        "label": pa.array(label, pa.int32()),
        "predicted": pa.array(predicted, pa.int32()),
    }
    for m in own:
        coordinates = pa.array(rng.normal(size=2 * CLIPS).astype(np.float32))
        columns[f"{m}/pca"] = pa.FixedSizeListArray.from_arrays(coordinates, 2)
    files.write_table(run.evaluation / places.PREDICTIONS, pa.table(columns))
