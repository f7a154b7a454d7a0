"""Losses, confidences and metrics of the tasks, against scikit-learn, SciPy and numbers worked by hand."""

import itertools

import numpy as np
import pytest
import torch
from scipy import special, stats
from sklearn import metrics

from pipeline_src.core.errors import UserError
from pipeline_src.tasks.base import tasks
from pipeline_src.tasks.segments import cut, cut_shape
from tests.tasks.tasked import trainer

RNG = np.random.default_rng(3)


def test_a_name_is_the_same_metric_in_every_task():
    every = [metric for task in tasks for metric in tasks[task].metrics]
    for one, other in itertools.combinations(every, 2):
        assert one.name != other.name or one == other, one.name
    assert all(tasks[task].metrics[0].whole is False for task in tasks)


def test_regression_as_scipy_and_scikit_learn():
    task = tasks["regression"](0)
    truth = RNG.uniform(-3, 3, 50).astype(np.float32)
    logits = (truth + RNG.normal(size=50))[:, None].astype(np.float32)
    found = task.evaluate(logits, truth, whole=True)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(truth, logits[:, 0]))
    assert found["correlation"] == pytest.approx(stats.pearsonr(truth, logits[:, 0]).statistic)
    assert found["sign_accuracy"] == metrics.accuracy_score(truth >= 0, logits[:, 0] >= 0)
    assert task.score(torch.tensor(logits), torch.tensor(truth)) == pytest.approx(found["mae"], abs=1e-6)
    assert task.by_sample(task.predicted(logits), truth).mean() == pytest.approx(found["mae"])
    assert task.evaluate(np.ones((3, 1)), truth[:3], whole=False)["correlation"] == 0.0


def test_confidence_is_exp_of_minus_the_loss():
    z, y = torch.tensor([[1.0], [-2.0]]), torch.tensor([1.5, -2.0])
    assert tasks["regression"](0).confidence(z, y).tolist() == pytest.approx([np.exp(-0.5), 1.0])
    logits, label = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1.0, 0.0, 1.0]])
    truth = special.expit([2.0, 1.0, 0.5])  # the probability that each label has its true value
    assert tasks["multilabel"](3).confidence(logits, label).item() == pytest.approx(truth.prod() ** (1 / 3))
    z, y = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([2])
    of_class = tasks["classification"](3).confidence(z, y)
    assert of_class.item() == pytest.approx(special.softmax([2.0, 0.0, 1.0])[2])
    assert torch.equal(tasks["segments"](3).confidence(z, y), of_class)


def test_multilabel_as_scikit_learn():
    task, label = tasks["multilabel"](4), (RNG.random((60, 4)) < 0.4).astype(np.float32)
    label[:, 3] = 0  # a label that never occurs is left out
    logits = (2 * label - 1 + 1.5 * RNG.normal(size=label.shape)).astype(np.float32)
    found = task.evaluate(logits, label, whole=True)
    assert found["map"] == pytest.approx(metrics.average_precision_score(label[:, :3], logits[:, :3]))
    assert found["micro_f1"] == pytest.approx(metrics.f1_score(label, logits > 0, average="micro", zero_division=0))
    assert found["exact_match"] == pytest.approx(metrics.accuracy_score(label, logits > 0))
    assert task.score(torch.tensor(logits), torch.tensor(label)) == pytest.approx(found["map"])
    both = task.ensemble([logits, -logits])
    assert special.expit(both) == pytest.approx((special.expit(logits) + special.expit(-logits)) / 2, abs=1e-6)


def test_segments_are_scored_one_by_one_and_the_last_class_is_the_background():
    task = tasks["segments"](3)
    label = np.array([0, 2, 1, 1, 2, 2])  # three samples of two segments
    logits = np.eye(3)[[0, 2, 1, 0, 0, 2]]
    found = task.evaluate(logits, label, whole=True)
    assert found["segment_accuracy"] == pytest.approx(4 / 6)
    assert found["event_accuracy"] == pytest.approx(2 / 3)
    predicted = task.predicted(logits)
    assert task.by_sample(predicted.reshape(3, 2), label.reshape(3, 2)).tolist() == [1.0, 0.5, 0.5]
    assert task.confusion(predicted.reshape(3, 2), label.reshape(3, 2)).tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 2]]
    assert task.events(torch.tensor(label)).tolist() == [True, False, True, True, False, False]
    assert task.of_samples(torch.tensor(label), 3).tolist() == [0, 1, 2]


def test_probes_of_numbers_and_of_lists_find_what_is_there():
    x = RNG.normal(size=(200, 4))
    truth = 2 * x[:, 0] - 1
    (found,) = tasks["regression"](0).probe(x[:150], truth[:150], [x[150:]], 1.0, 100)
    assert found.shape == (50, 1) and np.abs(found[:, 0] - truth[150:]).mean() < 0.1
    label = np.stack([x[:, 0] > 0, x[:, 1] > 0, np.zeros(200)], axis=1).astype(np.float32)
    task = tasks["multilabel"](3)
    (found,) = task.probe(x[:150], label[:150], [x[150:]], 1.0, 500)
    assert np.isfinite(found).all() and (task.predicted(found) == label[150:]).mean() > 0.9


@pytest.mark.parametrize(
    ("layout", "shape"), [("frames", (6, 3, 4, 4)), ("spectrogram", (5, 14)), ("sequence", (6, 2))]
)
def test_inputs_are_cut_in_time(layout, shape):
    x = torch.tensor(RNG.normal(size=(2, *shape)))
    rows = cut(x, layout, 3)
    assert rows.shape == (6, *cut_shape("m", layout, shape, 3))
    for sample, segment in itertools.product(range(2), range(3)):
        whole = x[sample, :, 4 * segment : 4 * segment + 4] if layout == "spectrogram" else None
        whole = x[sample, 2 * segment : 2 * segment + 2] if whole is None else whole
        assert torch.equal(rows[3 * sample + segment], whole)


@pytest.mark.parametrize(("layout", "shape"), [("frames", (5, 3, 4, 4)), ("tokens", (6,)), ("spectrogram", (5, 2))])
def test_what_cannot_be_cut_says_so(layout, shape):
    with pytest.raises(UserError, match=r"^m: expected "):
        cut_shape("m", layout, shape, 3)


@pytest.mark.parametrize("task", ["regression", "multilabel", "segments"])
def test_streamed_and_resident_runs_are_equal(task):
    one, other = (trainer(task, resident=resident, epochs=1) for resident in (True, False))
    one.epoch(0), other.epoch(0)
    assert one.score("val") == other.score("val")
    assert all(torch.equal(x, other.model.state_dict()[k]) for k, x in one.model.state_dict().items())


def test_pmr_of_segments_has_no_prototype_of_the_background():
    run = trainer("segments", "pmr", epochs=2)
    run.epoch(0)
    assert run.method.has.tolist() == [True, True, False]
    features, label = run.context.collect("train")
    assert len(label) == 2 * len(run.loaders["train"]) == len(features["m0"])
