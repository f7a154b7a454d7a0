"""The evaluate stage: a trained run's predictions on val and test, and every metric made from them.

A modality is scored in three ways: by its `unimodal` logits, which the fusion gives, by `removal` of the other
modalities, and by a linear `probe` on its encoder's features. This is the one place where test data is read, and
nothing is chosen by it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.evaluation import FUSED
from pipeline_src.evaluation.metrics import calibration, classification, contributions
from pipeline_src.evaluation.probe import linear_probe
from pipeline_src.features.read import Cache
from pipeline_src.models.fusions.base import only
from pipeline_src.models.multimodal import MultimodalModel, build
from pipeline_src.study.runs import PREDICTIONS, RunFiles
from pipeline_src.training import checkpoint
from pipeline_src.training import device as devices
from pipeline_src.training.loader import Loader
from pipeline_src.training.spec import RunSpec
from pipeline_src.training.transform import Transform

log = logging.getLogger(__name__)
if TYPE_CHECKING:
    from pipeline_src.study.params import Settings
    from pipeline_src.study.plan import Run


def evaluate(runs: list[Run], params: Settings) -> None:
    """Evaluate runs that share a cell: predictions.parquet and metrics.json of each. Finished ones are left alone."""
    runs = [run for run in runs if not all(file.exists() for file in run.evaluate_files)]
    if not runs:
        return
    cell = runs[0].cell
    device = devices.pick(params.training.device, params.resources.cells_per_gpu)
    devices.check_precision(device, cell.spec.training.precision)
    devices.deterministic(device, params.resources.evaluate.threads)
    cache = Cache(cell.data.cache)
    modalities = cell.spec.modalities
    loaders = {s: Loader(cache, s, modalities, device, resident=False) for s in ("train", "val", "test")}
    for run in runs:
        with devices.memory_explained(f"evaluate {run.label}", device, "evaluation", run.cell.evaluation):
            metrics = _evaluate(run, cache, loaders, device)
        log.info(f"evaluate {run.label}  test accuracy {metrics:.1%}")


def _evaluate(run: Run, cache: Cache, loaders: dict[str, Loader], device: torch.device) -> float:
    spec, how = run.cell.spec, run.cell.evaluation
    modalities, classes = spec.modalities, len(cache.classes)
    model = build(spec.encoders, spec.fusion, cache.modalities, classes, run.seed)
    weights = RunFiles(run).weights()
    try:
        model.load_state_dict(checkpoint.load(weights)[0])
    except checkpoint.DamagedError as error:
        raise UserError(f"{weights}: {error}; delete {run.record} to train it again") from error
    model.to(device, memory_format=torch.channels_last).eval()
    own = {m: cache.modalities[m] for m in modalities}
    transform = Transform(own, spec.augmentation, spec.training.normalize, device)

    features, labels = {}, {}
    for split, loader in loaders.items():
        features[split] = _features(model, loader, transform, spec, how.batch_size)
        labels[split] = loader.label.cpu().numpy()
    scored = ("val", "test")
    probes = {
        m: dict(
            zip(
                scored,
                linear_probe(
                    features["train"][m].cpu().numpy(),
                    labels["train"],
                    [features[split][m].cpu().numpy() for split in scored],
                    classes,
                    how.probe_c,
                    how.probe_iterations,
                ),
                strict=True,
            )
        )
        for m in modalities
    }

    planes = {m: plane(features["train"][m].cpu().numpy()) for m in modalities}

    rows, tables = [], []
    for split in scored:
        logits, worth = _logits(model, features[split], labels[split])
        for m in modalities:
            logits[f"{m}/probe"] = probes[m][split]
        rows += _rows(split, logits, labels[split], modalities, worth)
        places = {f"{m}/pca": planes[m](features[split][m].cpu().numpy()) for m in modalities}
        tables.append(_table(split, cache, loaders[split], logits, places))
    rows += _history(run)

    with files.whole(run.evaluation / PREDICTIONS) as temporary:
        pq.write_table(pa.concat_tables(tables), temporary)
    files.write_json(run.metrics, {"names": run.names, "metrics": rows})
    return next(r["value"] for r in rows if (r["split"], r["modality"], r["metric"]) == ("test", FUSED, "accuracy"))


@torch.no_grad()
def _features(model: MultimodalModel, loader: Loader, transform: Transform, spec: RunSpec, batch_size: int) -> dict:
    """Features {m: (N, D_m)} of every clip of a split, in order, float32."""
    parts: dict[str, list] = {m: [] for m in spec.modalities}
    for batch in loader.batches(batch_size):
        with devices.autocast(loader.device, spec.training.precision):
            for m, f in model.encode(transform(batch.inputs)).items():
                parts[m].append(f.float())
    return {m: torch.cat(part) for m, part in parts.items()}


@torch.no_grad()
def _logits(
    model: MultimodalModel, features: dict[str, torch.Tensor], label: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Logits (N, C) of the fused model and of each modality, unimodal and by removal; each modality's contribution."""
    modalities = list(features)
    logits = {FUSED: model.fusion(features)}
    for m, z in model.fusion.unimodal(features).items():
        logits[f"{m}/unimodal"] = z
        logits[f"{m}/removal"] = model.fusion(only(features, [m]))
    worth = contributions(
        modalities, lambda kept: float((model.fusion(only(features, kept)).argmax(1).cpu().numpy() == label).mean())
    )
    return {name: z.cpu().numpy() for name, z in logits.items()}, worth


def _rows(
    split: str, logits: dict[str, np.ndarray], label: np.ndarray, modalities: Sequence[str], worth: dict
) -> list[dict]:
    """Metrics in long form."""

    def rows(modality: str, values: dict[str, float], suffix: str = "") -> list[dict]:
        return [{"split": split, "modality": modality, "metric": k + suffix, "value": v} for k, v in values.items()]

    found = rows(FUSED, classification(logits[FUSED], label) | calibration(logits[FUSED], label))
    for m in modalities:
        for view in ("unimodal", "removal", "probe"):
            found += rows(m, classification(logits[f"{m}/{view}"], label), f"_{view}")
        found += rows(m, {"contribution": worth[m]})
    return found


def plane(train: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The map from features (N, D) to their place (N, 2) along the first two principal components of `train`.

    For looking at, not for measuring. Where there is only one component, the second coordinate is 0.
    """
    from sklearn.decomposition import PCA

    model = PCA(min(2, *train.shape), svd_solver="covariance_eigh").fit(train.astype(np.float64))

    def place(features: np.ndarray) -> np.ndarray:
        found = model.transform(features.astype(np.float64))
        return np.pad(found, ((0, 0), (0, 2 - found.shape[1])))

    return place


def _table(
    split: str, cache: Cache, loader: Loader, logits: dict[str, np.ndarray], places: dict[str, np.ndarray]
) -> pa.Table:
    """Predictions of a split: id, split, label, the class predicted by the fused model, and as lists of fixed length
    logits and places in the plane of principal components.
    """
    clips = cache.clips.iloc[loader.rows]
    columns = {
        "id": pa.array(clips.id, pa.string()),
        "split": pa.array([split] * len(clips), pa.string()),
        "label": pa.array(clips.label, pa.int32()),
        "predicted": pa.array(logits[FUSED].argmax(1), pa.int32()),
    }
    for name, z in (logits | places).items():
        values = pa.array(np.ascontiguousarray(z, dtype=np.float32).reshape(-1))
        columns[name] = pa.FixedSizeListArray.from_arrays(values, z.shape[1])
    return pa.table(columns)


def _history(run: Run) -> list[dict]:
    """What training cost, and the papers' figure: the best epoch on test, reported beside ours and chosen by nobody."""
    read = RunFiles(run)
    record = read.record()
    values = {k: record[k] for k in ("seconds", "forwards", "backwards", "peak_memory_mb")}
    values["selected_epoch"] = record["selected"]["epoch"] + 1
    rows = [{"split": "train", "modality": FUSED, "metric": k, "value": float(v)} for k, v in values.items()]
    scores = [row["test_accuracy"] for row in read.rows() if "test_accuracy" in row]
    if scores:
        best = float(max(scores))
        rows.append({"split": "test", "modality": FUSED, "metric": "accuracy_best_test_epoch", "value": best})
    return rows
