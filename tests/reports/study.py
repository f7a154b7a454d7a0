"""A small study whose runs are written by hand: the plan's own cells and paths, without training."""

import json
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline_src.core import checksums, files
from pipeline_src.evaluation.params import Evaluation
from pipeline_src.methods.base import MethodParams, methods
from pipeline_src.reports.results import collect
from pipeline_src.reports.scores import COLUMNS, accuracy_table
from pipeline_src.study import params
from pipeline_src.study.outputs import NO_FUSION, Cell, Data, Run
from pipeline_src.study.runs import RunFiles, write_record
from pipeline_src.training.params import Training
from pipeline_src.training.spec import RunSpec

EVALUATION = Evaluation(batch_size=8, probe_c=1.0, probe_iterations=10)


class Study:
    """Looks like a Plan: one dataset, each modality alone, and `methods` with the fusion concat."""

    def __init__(self, modalities=("audio", "visual"), methods=("joint",), seeds=(0, 1, 2), confidence=0.95, vary=()):
        self.file = Path("params.yaml")
        self.results = Path("results")
        self.index = self.results / "tables/index-0123456789.json"
        training = Training(
            epochs=12,
            batch_size=32,
            optimizer="sgd",
            lr=0.02,
            momentum=0.9,
            weight_decay=1e-4,
            lr_step=9,
            lr_gamma=0.1,
            augmentation={},
            normalize="train",
            select="best_val",
            track_test=True,
            device="auto",
            precision="auto",
            resident_fraction=0.5,
        )
        study = params.Study(
            datasets=["av_digits"],
            fusions=["concat"],
            methods=list(methods),
            unimodal=True,
            seeds=list(seeds),
            vary=list(vary),
        )
        self.params = SimpleNamespace(
            study=study,
            training=training,
            reporting=params.Reporting(confidence=confidence),
            reproduces=[],
            training_of=lambda dataset: training,
            trainings=lambda: {"": training},
            studied_grids={},
            tuning=None,
        )
        each = [(seed,) for seed in seeds] if vary else [tuple(seeds)]
        self.data = [self._data(modalities, i, of, vary) for i, of in enumerate(each)]
        self.datasets = {"av_digits": self.data[0]}

    def _data(self, modalities, number, seeds, vary):
        return Data(
            name="av_digits",
            recipe="av-digits-1",
            dataset=SimpleNamespace(
                name="av_digits",
                task="classification",
                classes=[str(i) for i in range(10)],
                shared="All draws have ten digits." if vary else "",
                cut="",
                params=SimpleNamespace(max_quarantine=0.5, model_dump=dict),
            ),
            extractors=dict.fromkeys(modalities),
            raw=Path(f"data/raw/av_digits-{number}"),
            fetched=True,
            seen=Path("data/seen/av_digits.json"),
            manifest=Path(f"data/manifest/av_digits-{number}"),
            cache=Path(f"data/cache/av_digits/av-digits-1-{number}"),
            cache_fp="c0ffee0000",
            seeds=seeds,
            vary=tuple(vary),
        )

    def named(self, name):
        return [data for data in self.data if data.name == name]

    @cached_property
    def cells(self):
        (modalities,) = {tuple(data.extractors) for data in self.data}
        names = [(NO_FUSION, f"{m}-only", [m]) for m in modalities]
        names += [("concat", method, list(modalities)) for method in self.params.study.methods]
        each = [(data, *name) for name in names for data in self.data]
        return [
            Cell(
                *(data, f, m, self._spec(f, m, own), "c" * 10, f"{i:010x}", EVALUATION, "e" * 10, None),
                seeds=data.seeds,
            )
            for i, (data, f, m, own) in enumerate(each)
        ]

    @property
    def rows(self):
        return list({cell.place: cell for cell in reversed(self.cells)}.values())[::-1]

    def _spec(self, fusion, method, modalities):
        training = self.params.training
        method = method if method in methods else "joint"
        return RunSpec(tuple(modalities), {}, fusion, method, MethodParams(), training, {})

    @cached_property
    def runs(self):
        return [Run(cell, seed) for cell in self.cells for seed in cell.seeds]

    def run(self, method, seed):
        return next(run for run in self.runs if (run.cell.method, run.seed) == (method, seed))

    def write(self, run, accuracy, **modalities):
        """A complete run: the fused test accuracy, and of each modality the accuracy of all three views."""
        files.write_sealed(run.metrics, {"names": run.names, "metrics": metrics(accuracy, **modalities)})
        files.write_text(run.folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in epochs(run)))
        write_record(run.folder, record(run))
        self.write_predictions(run, accuracy)

    def write_predictions(self, run, accuracy):
        """300 test clips, of which about `accuracy` are right, and two clips of val."""
        rng = np.random.default_rng(run.seed)
        label = np.arange(302) % 10
        predicted = np.where(rng.random(302) < accuracy, label, (label + 1) % 10)
        columns = {
            "id": [f"c{i}" for i in range(302)],
            "split": ["test"] * 300 + ["val"] * 2,
            "label": pa.array(label, pa.int32()),
            "predicted": pa.array(predicted, pa.int32()),
        }
        for m in run.cell.spec.modalities:
            values = pa.array(rng.normal(size=604).astype(np.float32))
            columns[f"{m}/pca"] = pa.FixedSizeListArray.from_arrays(values, 2)
        files.write_table(run.evaluation / "predictions.parquet", pa.table(columns))

    def write_all(self):
        """Every run, with figures that differ by seed and of which the visual gap is clear and the audio gap is not."""
        for run in self.runs:
            jitter = (run.seed - 1) * 0.01
            own = {
                "audio": 0.90 + jitter + (0.002 * (run.seed % 2) if run.cell.fusion != NO_FUSION else 0.0),
                "visual": 0.70 + jitter - (0.13 + jitter / 10 if run.cell.fusion != NO_FUSION else 0.0),
            }
            own = {m: own.get(m, 0.5) for m in run.cell.spec.modalities}
            gain = 0.02 * (self.params.study.methods.index(run.cell.method) if len(own) > 1 else 0)
            self.write(run, max(own.values()) + gain + (0.01 if len(own) > 1 else 0.0), **own)

    def write_cache(self, quarantined=()):
        """Caches that say they have 1,700 clips and hold three, of a spectrogram each or of two frames."""
        for number, data in enumerate(self.data):
            self._write_cache(data, number, quarantined)

    def _write_cache(self, data, number, quarantined):
        splits = {"test": 300, "train": 1200 - number, "val": 200 + number}
        modalities = {
            m: {"shape": [2, 3, 8, 8], "dtype": "uint8"} if m == "visual" else {"shape": [9, 5], "dtype": "float16"}
            for m in data.extractors
        }
        info = {"splits": splits, "classes": data.dataset.classes, "modalities": modalities, "shards": ["shard.arrow"]}
        files.write_sealed(data.cache_file, {**info, "quarantined": len(quarantined)})
        columns = {
            "id": pa.array(["a", "b", "c"]),
            "label": pa.array([1, 0, 2], pa.int32()),
            "split": pa.array(["train", "train", "test"]),
            "group": pa.array(["g", "g", "h"]),
        }
        for m, about in modalities.items():
            values = np.arange(3 * np.prod(about["shape"])).reshape(3, *about["shape"]).astype(about["dtype"])
            columns[m] = pa.FixedShapeTensorArray.from_numpy_ndarray(values)
        batch = pa.record_batch(columns)
        schema = batch.schema.with_metadata({files.CHECKSUM: checksums.SEAL})
        with pa.ipc.new_file(str(data.cache / "shard.arrow"), schema) as writer:
            writer.write_batch(batch)
        checksums.seal(data.cache / "shard.arrow")
        columns = ["id", "modality", "file", "reason", "stage"]
        files.write_table(data.cache / "quarantine.parquet", pd.DataFrame(quarantined, columns=columns, dtype="str"))


def results_of(plan):
    """Writes every run of the plan, and collects them for tables and figures."""
    plan.write_all()
    plan.write_cache()
    rows = [{**run.names, **row} for run in plan.runs for row in RunFiles(run).metrics()]
    metrics = pd.DataFrame(rows, columns=COLUMNS).astype({"seed": "int64", "value": "float64"})
    table = accuracy_table(metrics, [cell.names for cell in plan.rows], plan.params.study.seeds, 0.95)
    records = {tuple(run.names.values()): RunFiles(run).record() for run in plan.runs}
    (results,) = collect(plan, table, metrics, records, {})
    return results


def epochs(run):
    """Rows of metrics.jsonl; methods but joint log a ratio, relearning also purities."""
    found = []
    for i in range(3):
        row = {"epoch": i, "seconds": 2.0, "loss": 1.0, "val_accuracy": 0.3 + i / 10}
        for m in run.cell.spec.modalities if run.cell.fusion != NO_FUSION else ():
            row[f"val_accuracy/{m}"] = 0.2 + i / 10 + run.seed / 100
            if run.cell.method != "joint":
                row[f"ratio/{m}"] = 1.0 + i / 10
            if run.cell.method == "relearning" and i == 1:
                row |= {f"purity_train/{m}": 0.8, f"purity_val/{m}": 0.6, f"reset_strength/{m}": 0.4}
        found.append(row)
    return found


def metrics(accuracy, **modalities):
    """Rows of metrics.json."""

    def rows(split, modality, values):
        return [{"split": split, "modality": modality, "metric": k, "value": v} for k, v in values.items()]

    found = []
    for split in ("val", "test"):
        found += rows(
            split, "fused", {"accuracy": accuracy, "macro_f1": accuracy - 0.01, "map": accuracy - 0.02, "nll": 0.4}
        )
        for m, value in modalities.items():
            views = {"unimodal": value - 0.02, "removal": value - 0.01, "probe": value}
            found += rows(split, m, {f"accuracy_{view}": v for view, v in views.items()} | {"contribution": 0.3})
    found += rows("test", "fused", {"accuracy_best_test_epoch": accuracy + 0.005})
    return found + rows("train", "fused", {"seconds": 60.0, "forwards": 1200.0, "backwards": 1200.0})


def record(run):
    """record.json of a complete run."""
    return {
        **run.names,
        "fingerprint": run.cell.fp,
        "code": run.cell.code,
        "parameters": run.cell.spec.record(),
        "cache": {"folder": str(run.cell.data.cache), "fingerprint": run.cell.data.cache_fp, "sha256": "ab" * 32},
        "machine": {"host": "bench", "system": "Linux", "cores": 2, "threads": 1, "device": "cpu", "slurm_job": None},
        "versions": {"counterpoise": "0.1.0", "git": "1a2b3c4", "python": "3.11.7", "torch": "2.14.1"},
        "started": "2025-01-01T10:00:00+00:00",
        "status": "complete",
        "selected": {"epoch": 9, "val_accuracy": 0.9},
        "seconds": 60.0 + run.seed,
        "fixed_seconds": 6.0 if run.seed == 0 else 0.0,
        "forwards": 1234567,
        "backwards": 456,
        "peak_memory_mb": 812.3,
        "ended": "2025-01-01T10:01:00+00:00",
    }
