"""Metrics against numbers by hand and against an independent library."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics
from sklearn.metrics import classification_report
from sklearn.preprocessing import label_binarize

from pipeline_src.evaluation.metrics import contributions
from pipeline_src.tasks.classification import calibration, ranking

RNG = np.random.default_rng(0)


def test_by_hand():
    logits = np.log([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.5, 0.1, 0.4]])
    found = ranking(logits, np.array([0, 1, 1, 0]))  # class 2 does not occur
    # predicted 0 0 1 0: F1 of class 0 is 2 * (2/3) / (5/3) = 0.8, of class 1 2/3
    assert found["accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    # class 0 by score .7+ .6- .5+ .1-: (1 + 2/3) / 2; class 1 by .8+ .3+ .2- .1-: 1
    assert found["map"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)


def test_macro_f1_agrees_with_the_report():
    logits, label = RNG.normal(size=(200, 5)), RNG.integers(0, 5, 200)
    report = classification_report(label, logits.argmax(1), output_dict=True, zero_division=0)
    found = ranking(logits, label)
    assert found["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert found["accuracy"] == pytest.approx(report["accuracy"])


def test_a_perfect_ranking_has_map_one():
    label = RNG.integers(0, 4, 60)
    assert ranking(5.0 * label_binarize(label, classes=range(4)), label)["map"] == pytest.approx(1)


def test_calibration_by_hand():
    logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    found = calibration(logits, np.array([0, 1, 1, 1]))
    assert found["nll"] == pytest.approx(-np.mean(np.log([0.9, 0.1, 0.6, 0.6])))
    assert found["ece"] == pytest.approx((2 * abs(0.9 - 0.5) + 2 * abs(0.6 - 1.0)) / 4)


def test_certain_and_right_is_calibrated():
    assert calibration(np.array([[50.0, 0.0]]), np.array([0]))["ece"] == pytest.approx(0)


def test_contributions_by_hand():
    worth = {(): 0.1, ("a",): 0.5, ("v",): 0.3, ("a", "v"): 0.9}
    found = contributions(["a", "v"], worth.__getitem__)
    assert found == pytest.approx({"a": ((0.5 - 0.1) + (0.9 - 0.3)) / 2, "v": ((0.3 - 0.1) + (0.9 - 0.5)) / 2})


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_contributions_add_up_and_a_useless_modality_has_none(count):
    names = [f"m{i}" for i in range(count)]
    table: dict[tuple, float] = {}

    def value(subset: tuple) -> float:
        useful = tuple(m for m in subset if m != "m0")
        return table.setdefault(useful, RNG.random())

    found = contributions(names, value)
    assert sum(found.values()) == pytest.approx(value(tuple(names)) - value(()))
    assert found["m0"] == pytest.approx(0)


@pytest.mark.parametrize("seed", range(20))
def test_ranking_gives_the_bits_of_scikit_learn(seed):
    draw = np.random.default_rng(seed)
    count, classes = int(draw.integers(3, 600)), int(draw.integers(2, 12))
    label, logits = draw.integers(0, classes, count), draw.normal(size=(count, classes)).astype(np.float32)
    logits[np.arange(count), label] += draw.integers(0, 4)
    logits = np.round(logits, 1) if seed % 2 else logits  # many equal scores
    present, predicted, scores = np.unique(label), logits.argmax(1), softmax(logits, axis=1)
    assert ranking(logits, label) == {
        "accuracy": metrics.accuracy_score(label, predicted),
        "macro_f1": metrics.f1_score(label, predicted, labels=present, average="macro", zero_division=0),
        "map": np.mean([metrics.average_precision_score(label == c, scores[:, c]) for c in present]),
    }
