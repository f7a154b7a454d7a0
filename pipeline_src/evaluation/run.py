"""The evaluate stage: a trained run's predictions on val and test, and every metric made from them.

A modality is scored in three ways: by its `unimodal` logits, which the method gives, by `removal` of the other
modalities, and by a linear `probe` on its encoder's features. Views that the fusion does not support are left out. This
is the one place where test data is read, and nothing is chosen by it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.evaluation import FUSED, VIEWS
from pipeline_src.evaluation.metrics import contributions
from pipeline_src.evaluation.neighbours import MOST, neighbours
from pipeline_src.evaluation.robustness import Robustness, joined
from pipeline_src.features.read import Cache
from pipeline_src.models.fusions.base import Features, only
from pipeline_src.study.places import ATTEMPT, PREDICTIONS
from pipeline_src.study.runs import RunFiles, told
from pipeline_src.tasks.base import Task, tasks
from pipeline_src.training import checkpoint
from pipeline_src.training import device as devices
from pipeline_src.training.assemble import Assembly, assemble
from pipeline_src.training.loader import Loader
from pipeline_src.training.transform import Transform

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Run
    from pipeline_src.study.params import Settings


def evaluate(runs: list[Run], params: Settings) -> None:
    """Evaluate runs that share a cell: predictions.parquet and metrics.json of each. Finished ones are left alone."""
    runs = [run for run in runs if not all(file.exists() for file in run.evaluate_files)]
    if not runs:
        return
    cell = runs[0].cell
    device = devices.pick(params.training.device, params.resources.cells_per_gpu)
    devices.use_precision(device, cell.spec.training.precision)
    devices.deterministic(device, params.resources.train.threads)
    cache = Cache(cell.data.cache, params.resources.local_copy.room)
    modalities = cell.spec.modalities
    target, segments = tasks[cell.spec.task].target, cell.spec.segments
    loaders = {s: Loader(cache, s, modalities, device, False, target, segments) for s in ("train", "val", "test")}
    failed: list[Exception] = []
    for run in runs:
        try:
            with devices.memory_explained(f"evaluate {run.label}", device, "evaluation", run.cell.evaluation):
                shown = _evaluate(run, cache, loaders, device)
        except Exception as error:  # the other seeds are evaluated all the same
            log.error(f"evaluate {run.label}  failed: {error!r}")
            with suppress(UserError):
                files.write_json(run.evaluation / ATTEMPT, {"error": " ".join(repr(error).split())})
            failed.append(error)
            continue
        (run.evaluation / ATTEMPT).unlink(missing_ok=True)
        log.info(f"evaluate {run.label}  {shown}")
    if failed:
        raise failed[0]


def _evaluate(run: Run, cache: Cache, loaders: dict[str, Loader], device: torch.device) -> str:
    spec, how = run.cell.spec, run.cell.evaluation
    modalities = spec.modalities
    built = assemble(spec, cache.modalities, len(cache.classes), run.seed)
    model, task = built.model, built.task
    reader = RunFiles(run)
    if (diverged := reader.diverged()) is not None:
        return _write_diverged(run, task, diverged)
    weights = reader.weights()
    try:
        model.load_state_dict(checkpoint.load(weights)[0])
    except checkpoint.DamagedError as error:
        raise UserError(f"{weights}: {error}; delete {run.record} to train it again") from error
    model.to(device, memory_format=torch.channels_last).eval()
    own = {m: cache.modalities[m] for m in modalities}
    transform = Transform(own, spec.augmentation, spec.training.normalize, device, spec.segments)

    def encoded(split: str, kept: Collection[str] | None = None) -> Iterator[Features]:
        for batch in loaders[split].batches(how.batch_size):
            with devices.autocast(device, spec.training.precision):
                yield model.encode(transform(batch.inputs), kept)

    features = {split: joined(encoded(split)) for split in loaders}
    labels = {split: loader.label.cpu().numpy() for split, loader in loaders.items()}
    for split in features:
        for m, values in features[split].items():
            if not bool(torch.isfinite(values).all()):
                return _write_diverged(
                    run, task, _at_selected(reader, f"the features of {m} on {split} are not finite")
                )
    scored = ("val", "test")
    probes = {}
    for m in modalities:
        train, *others = (features[split][m].cpu().numpy() for split in ("train", *scored))
        fitted = spread(len(train), how.probe_samples)
        logits = task.probe(train[fitted], labels["train"][fitted], others, how.probe_c, how.probe_iterations)
        probes[m] = dict(zip(scored, logits, strict=True))

    planes = {m: plane(features["train"][m].cpu().numpy()) for m in modalities}

    rows, tables = [], []
    for split in scored:
        predict = partial(_logits, built, features[split], partial(encoded, split))
        logits, worth = _views(built, predict, loaders[split].label)
        for m in modalities:
            logits[f"{m}/probe"] = probes[m].pop(split)
        if not all(np.isfinite(z).all() for name, z in logits.items() if not name.endswith("/probe")):
            return _write_diverged(run, task, _at_selected(reader, f"the logits on {split} are not finite"))
        rows += _rows(split, task, modalities, logits, labels[split], worth)
        places = {f"{m}/pca": planes[m](features[split][m].cpu().numpy()) for m in modalities}
        if how.tsne is not None:  # of test alone; a column of the table has a value for val, too
            near = partial(neighbours, perplexity=how.tsne, most=MOST if split == "test" else 0)
            places |= {f"{m}/tsne": near(features[split][m].cpu().numpy()) for m in modalities}
        tables.append(_table(split, task, cache, loaders[split], logits, places))
        del logits  # of many classes they are most of the memory
    spoiled = Robustness(
        built,
        loaders["test"],
        transform,
        features["test"],
        seed=run.seed,
        batch_size=how.batch_size,
        precision=spec.training.precision,
    )
    rows += [*spoiled.rows(how.corruptions), *_history(run, task)]

    files.write_table(run.evaluation / PREDICTIONS, pa.concat_tables(tables))
    files.write_sealed(run.metrics, {"names": run.names, "metrics": rows})
    wanted = "test", FUSED, task.primary.name
    value = next(r["value"] for r in rows if (r["split"], r["modality"], r["metric"]) == wanted)
    return f"test {task.primary.label} {task.primary.shown(value)}"


def _at_selected(reader: RunFiles, reason: str) -> dict[str, Any]:
    """`RunFiles.diverged` of a run whose selected weights are finite."""
    return {"epoch": reader.record()["selected"]["epoch"] + 1, "reason": reason}


def _write_diverged(run: Run, task: Task, diverged: dict[str, Any]) -> str:
    """The evaluation of a run whose values are not finite: what it cost, and no predictions."""
    columns = {"id": pa.string(), "split": pa.string(), "label": pa.int32(), "predicted": pa.int32()}
    files.write_table(run.evaluation / PREDICTIONS, pa.schema(columns).empty_table())
    costs = [row for row in _history(run, task) if row["split"] == "train"]
    files.write_sealed(run.metrics, {"names": run.names, "diverged": diverged, "metrics": costs})
    return f"diverged in {told(diverged)}"


@torch.no_grad()
def _logits(
    built: Assembly,
    features: dict[str, torch.Tensor],
    encoded: Callable[[Collection[str] | None], Iterator[Features]],
    kept: Collection[str] | None = None,
    unimodal: bool = False,
) -> dict[str, torch.Tensor]:
    """The method's prediction {FUSED: (N, C)} from the kept modalities, or its unimodal logits {m: (N, C)}.

    Features that depend on one modality alone are set to zero where a modality is removed, the whole split at once.
    Where the fusion reads or writes hidden states, the split is encoded again.
    """
    model, method, _ = built

    def read(f: Features) -> dict[str, torch.Tensor]:
        return method.unimodal(model, f) if unimodal else {FUSED: method.logits(model, f)}

    if not model.taps:
        return read(Features(features) if kept is None else only(features, kept))
    return joined(map(read, encoded(kept)))


def _views(
    built: Assembly, predict: Callable[..., dict[str, torch.Tensor]], label: torch.Tensor
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Logits (N, C) of the fused model and of each modality, unimodal and by removal; each modality's contribution.

    Views that the fusion does not support are missing.
    """
    model, _, task = built
    views = model.fusion.views
    logits = predict()
    unimodal = predict(unimodal=True) if "unimodal" in views else {}
    for m in model.modalities:
        if "unimodal" in views:
            logits[f"{m}/unimodal"] = unimodal[m]
        if "removal" in views:
            logits[f"{m}/removal"] = predict([m])[FUSED]
    worth = {}
    if "contributions" in views:
        worth = contributions(model.modalities, lambda kept: task.score(predict(kept)[FUSED], label))
    return {name: z.cpu().numpy() for name, z in logits.items()}, worth


def _rows(
    split: str,
    task: Task,
    modalities: Sequence[str],
    logits: dict[str, np.ndarray],
    label: np.ndarray,
    worth: dict[str, float],
) -> list[dict[str, Any]]:
    """Metrics in long form, of logits {FUSED or m/view: (N, C)}."""

    def rows(modality: str, values: dict[str, float], suffix: str = "") -> list[dict[str, Any]]:
        return [{"split": split, "modality": modality, "metric": k + suffix, "value": v} for k, v in values.items()]

    scores = rows(FUSED, task.evaluate(logits[FUSED], label, whole=True))
    for m in modalities:
        for view in VIEWS:
            if f"{m}/{view}" in logits:
                scores += rows(m, task.evaluate(logits[f"{m}/{view}"], label, whole=False), f"_{view}")
        if m in worth:
            scores += rows(m, {"contribution": worth[m]})
    return scores


def spread(count: int, most: int) -> np.ndarray | slice:
    """Which of `count` rows are kept where there are more than `most`: so many, evenly spread."""
    return slice(None) if count <= most else np.arange(most) * count // most


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
    split: str,
    task: Task,
    cache: Cache,
    loader: Loader,
    logits: dict[str, np.ndarray],
    places: dict[str, np.ndarray],
) -> pa.Table:
    """Predictions of a split: id, split, label, what the fused model predicts, and as lists of fixed length logits and
    places in the plane of principal components. What a sample has for each segment is one list.
    """
    clips, label, predicted = cache.clips.iloc[loader.rows], loader.label.cpu().numpy(), task.predicted(logits[FUSED])
    columns = {
        "id": pa.array(clips.id, pa.string()),
        "split": pa.array([split] * len(clips), pa.string()),
        "label": _column(label.astype(predicted.dtype), len(clips)),
        "predicted": _column(predicted, len(clips)),
    }
    columns |= {name: _column(z.astype(np.float32, copy=False), len(clips)) for name, z in (logits | places).items()}
    return pa.table(columns)


def _column(values: np.ndarray, samples: int) -> pa.Array:
    """Values (N,) of N samples, or (N, ...) or (N x T, ...) as lists of fixed length."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    if values.shape == (samples,):
        return flat
    return pa.FixedSizeListArray.from_arrays(flat, values.size // max(1, samples))


def _history(run: Run, task: Task) -> list[dict[str, Any]]:
    """What training cost, with the runs that it requires, and the papers' figure: the best epoch on test, which is
    reported and chosen by nobody.
    """
    read = RunFiles(run)
    record = read.record()
    values = {k: record[k] for k in ("seconds", "forwards", "backwards", "peak_memory_mb")}
    for other in record["required"].values():
        for k in ("seconds", "forwards", "backwards"):
            values[k] += other[k]
    values["selected_epoch"] = record["selected"]["epoch"] + 1
    rows = [{"split": "train", "modality": FUSED, "metric": k, "value": float(v)} for k, v in values.items()]
    metric = task.primary
    scores = [row[f"test_{metric.name}"] for row in read.rows() if f"test_{metric.name}" in row]
    if scores:
        name = f"{metric.name}_best_test_epoch"
        rows.append({"split": "test", "modality": FUSED, "metric": name, "value": float(metric.best(scores))})
    return rows
