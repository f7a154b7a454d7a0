"""Tasks whose targets are no classes: the loader gives what the task says, and the one loop trains on it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline_src.core.errors import UserError
from pipeline_src.tasks.base import Metric, Target, Task, tasks
from pipeline_src.training.loader import Loader, targets
from pipeline_src.training.loop import Trainer
from tests.synthetic import SPLITS, SyntheticCache, spec

CPU = torch.device("cpu")
SEGMENTS = 4


@tasks.register("test_regression")
class Regression(Task):
    """A number per sample."""

    target = Target("float32")
    outputs = 1
    metrics = (Metric("mse", "MSE", "", "The mean square error.", higher=False),)

    def losses(self, logits, target):
        return (logits[:, 0].float() - target).square()

    def score(self, logits, target):
        return float(self.loss(logits, target))


@tasks.register("test_segments")
class Segments(Task):
    """A class for each of four segments of a sample."""

    target = Target("int64", (SEGMENTS,))
    metrics = (Metric("accuracy", "accuracy", "%", "The fraction of segments whose class is predicted."),)

    @property
    def outputs(self):
        return self.classes * SEGMENTS

    def losses(self, logits, target):
        logits = logits.view(len(target), self.classes, SEGMENTS)
        return torch.nn.functional.cross_entropy(logits, target, reduction="none").mean(dim=1)

    def score(self, logits, target):
        return float((logits.view(len(target), self.classes, SEGMENTS).argmax(1) == target).float().mean())


def cache_of(task: str) -> SyntheticCache:
    cache = SyntheticCache(2)
    index = cache.clips.label.to_numpy()
    values = {"test_regression": index / 2 - 0.5, "test_segments": [[i] * 3 + [0] for i in index]}[task]
    cache.clips["label"] = list(values)
    return cache


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize(("task", "shape"), [("test_regression", ()), ("test_segments", (SEGMENTS,))])
def test_a_run_learns_targets_of_other_types_and_shapes(task, shape, resident):
    cache, target = cache_of(task), tasks[task].target
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident, target) for s in SPLITS}
    assert loaders["train"].label.shape == (SPLITS["train"], *shape)
    assert loaders["train"].label.dtype == getattr(torch, target.dtype)
    batch = next(loaders["val"].batches(4))
    assert torch.equal(batch.label, loaders["val"].label[:4])
    run = Trainer(replace(spec(cache, epochs=8), task=task), 0, cache, loaders, CPU)
    losses = [run.epoch(epoch)["loss"] for epoch in range(8)]
    assert losses[-1] < losses[0] / 2
    primary = tasks[task].metrics[0].name
    assert run.score("train")[f"train_{primary}"] < 0.3 if primary == "mse" else run.score("val")["val_accuracy"] > 0.4


def test_classes_are_what_they_were():
    label = np.array([2, 0, 1], np.int32)
    found = targets(label, tasks["classification"].target)
    assert found.dtype == np.int64 and found.tolist() == [2, 0, 1]


@pytest.mark.parametrize("label", [np.arange(3), np.array([[1, 2]] * 3)])
def test_labels_of_another_shape_are_said(label):
    with pytest.raises(UserError, match=r"^expected labels of shape \(4,\) for the task, but got \("):
        targets(label, Segments.target)
