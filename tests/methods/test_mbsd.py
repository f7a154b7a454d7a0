"""MBSD: the distillation worked by hand, its weights, and more than two modalities."""

import math

import pytest
import torch

from pipeline_src.methods.base import Setting
from pipeline_src.methods.mbsd import MBSD, distillation
from tests.methods.small import forward, run


def test_one_sample_by_hand():
    first, second = torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2)  # probabilities .75, .25 and .5, .5
    truth = torch.tensor([[0.75], [0.5]])
    apart = math.log(3) ** 2 / 2
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)  # of the weaker from the stronger
    expected = 0.25 * (apart + divergence)
    assert float(distillation(first, second, truth, torch.tensor([True]))) == pytest.approx(expected, rel=1e-6)
    swapped = distillation(second, first, truth.flip(0), torch.tensor([True]))
    assert float(swapped) == pytest.approx(expected, rel=1e-6)


def test_nothing_is_learned_where_neither_is_right_or_both_are_as_sure():
    z = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    truth = torch.rand(2, 4, generator=torch.Generator().manual_seed(1))
    assert float(distillation(z[0], z[1], truth, torch.zeros(4, dtype=torch.bool))) == 0
    assert float(distillation(z[0], z[1], truth[:1].expand(2, 4), torch.ones(4, dtype=torch.bool))) == 0
    assert float(distillation(z[0], z[1], truth, torch.ones(4, dtype=torch.bool))) > 0


def test_the_weight_has_no_gradient():
    z = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    truth = z.softmax(dim=2)[:, :, 0]
    right = torch.ones(4, dtype=torch.bool)
    (one,) = torch.autograd.grad(distillation(z[0], z[1], truth, right), z, retain_graph=True)
    (other,) = torch.autograd.grad(distillation(z[0], z[1], truth.detach(), right), z)
    assert torch.equal(one, other)


def test_three_modalities_are_the_mean_over_pairs():
    trainer = run("mbsd", modalities=3)
    batch, features, output = forward(trainer)
    losses = trainer.method.loss(trainer.context, output, batch)
    parts = list(trainer.method.unimodal(trainer.model, features).values())
    truth = [z.softmax(dim=1).gather(1, batch.label[:, None])[:, 0] for z in parts]
    right = [z.argmax(dim=1) == batch.label for z in parts]
    pairs = [(0, 1), (0, 2), (1, 2)]
    terms = [distillation(parts[a], parts[b], torch.stack([truth[a], truth[b]]), right[a] | right[b]) for a, b in pairs]
    assert float(losses["distillation"]) == pytest.approx(float(sum(terms)) / 3, rel=1e-5)


def test_what_it_refuses_and_extends():
    assert "two modalities" in MBSD.refuses(MBSD.Params(), Setting(("a",), "concat", 10))
    assert "classification" in MBSD.refuses(MBSD.Params(), Setting(("a", "b"), "concat", 10, "regression"))
    assert "by pairs" in MBSD.extension(MBSD.Params(), Setting(("a", "b", "c"), "concat", 10))
    assert MBSD.extension(MBSD.Params(), Setting(("a", "b"), "concat", 10)) is None
