"""Modality-drop: how draws are distributed, what a step sees of them, and what they leave alone."""

import pytest
import torch

from pipeline_src.methods.base import Setting
from pipeline_src.methods.modality_drop import ModalityDrop, draw
from tests.methods.small import forward, run, same_weights


def test_draws_follow_the_probabilities_given_that_one_is_kept():
    kept = draw([0.5, 0.2], 40_000, torch.Generator().manual_seed(0))
    assert bool(kept.any(dim=1).all())
    # Of the four draws, the one of chance .5 x .2 = .1 counts as not made.
    dropped = (~kept).float().mean(dim=0)
    assert dropped.tolist() == pytest.approx([0.5 * 0.8 / 0.9, 0.5 * 0.2 / 0.9], abs=0.01)


def test_of_three_modalities_two_may_go():
    kept = draw([0.9, 0.9, 0.9], 2_000, torch.Generator().manual_seed(0))
    assert set(kept.sum(dim=1).tolist()) == {1, 2, 3}


@pytest.mark.parametrize("unit", ["sample", "batch"])
def test_what_is_dropped_is_zero_and_the_rest_untouched(unit):
    trainer = run("modality_drop", params={"probability": 0.5, "unit": unit})
    batch, features, _ = forward(trainer)
    changed, rows = trainer.method.on_features(trainer.context, features, batch)
    assert rows is None
    zero = torch.stack([(f == 0).all(dim=1) for f in changed.values()])
    assert not bool(zero.all(dim=0).any())
    for (m, f), gone in zip(changed.items(), zero, strict=True):
        assert torch.equal(f[~gone], features[m][~gone])
    if unit == "batch":
        assert bool((zero == zero[:, :1]).all())


def test_without_probability_it_is_joint_training_bit_for_bit():
    one, other = run("joint"), run("modality_drop", params={"probability": 0.0})
    for trainer in (one, other):
        trainer.epoch(0)
    assert same_weights(one, other)


def test_by_modality():
    names = list(run("joint").model.modalities)
    trainer = run("modality_drop", params={"probability": {names[0]: 0.9}})
    batch, features, _ = forward(trainer)
    changed, _ = trainer.method.on_features(trainer.context, features, batch)
    assert torch.equal(changed[names[1]], features[names[1]])
    assert bool((changed[names[0]] == 0).all(dim=1).any())


def test_what_it_refuses():
    params = ModalityDrop.Params
    assert "two modalities" in ModalityDrop.refuses(params(), Setting(("a",), "concat", 10))
    assert "hidden states" in ModalityDrop.refuses(params(), Setting(("a", "b"), "mmtm", 10))
    wrong = ModalityDrop.refuses(params(probability={"c": 0.5}), Setting(("a", "b"), "concat", 10))
    assert "expected probabilities of a, b, but got c" in wrong
