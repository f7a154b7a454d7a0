"""AMCo: the mass of each modality, how many classes are masked, and what a step makes of it."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from pipeline_src.methods.amco import AMCo, masked_classes, mass
from pipeline_src.methods.base import Setting
from tests.methods.small import forward, run


def test_mass_worked_by_hand():
    # Two modalities, one sample, two classes: e^0 + e^0 against e^ln3 + e^0, that is 2 against 4.
    z = torch.stack([torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]).log()])
    torch.testing.assert_close(mass(z), torch.tensor([2 / 6, 4 / 6]))
    swapped = mass(z.flip(0))
    torch.testing.assert_close(swapped, mass(z).flip(0))
    assert float(mass(torch.randn(3, 5, 4)).sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("epoch", "batch", "gone"),
    [(0, 100, 0), (5, 0, 0), (1, 1, 5), (2, 1, 8), (1, 3, 10), (3, 1, 10), (9, 9, 10)],  # sin 30, 60, 90 degrees of 10
)
def test_masked_classes(epoch, batch, gone):
    assert masked_classes(epoch, batch, 10, rate=0.1, eps=0.3) == gone


def losses_at(epoch: int, batch_number: int, dependent: list[bool], **params):
    trainer = run("amco", params=params)
    batch, features, output = forward(trainer)
    ctx, method = trainer.context, trainer.method
    ctx.epoch, ctx.batch = epoch, batch_number
    method.dependent = torch.tensor(dependent)
    return trainer, batch, features, method.loss(ctx, output, batch)


def test_a_modality_that_is_not_dependent_keeps_its_logits():
    trainer, batch, features, losses = losses_at(5, 5, [False, False])
    z = trainer.model.fusion(features)
    assert float(losses["loss"]) == pytest.approx(cross_entropy(z, batch.label).item(), rel=1e-6)
    for m, part in trainer.model.fusion.unimodal(features).items():
        assert float(losses[f"unimodal_loss/{m}"]) == pytest.approx(cross_entropy(part, batch.label).item(), rel=1e-6)


@pytest.mark.parametrize("mask_unimodal", [True, False])
def test_a_dependent_modality_is_masked_whole_late_in_training(mask_unimodal):
    trainer, batch, features, losses = losses_at(5, 5, [True, False], mask_unimodal=mask_unimodal)
    first, second = trainer.model.fusion.unimodal(features).items()
    assert float(losses["loss"]) == pytest.approx(cross_entropy(second[1], batch.label).item(), rel=1e-6)
    alone = cross_entropy(torch.zeros_like(first[1]) if mask_unimodal else first[1], batch.label)
    assert float(losses[f"unimodal_loss/{first[0]}"]) == pytest.approx(float(alone), rel=1e-6)
    trainer.context.backward(sum(losses.values()))
    reached = any(p.grad is not None and bool(p.grad.any()) for p in trainer.model.encoders[first[0]].parameters())
    assert reached == (not mask_unimodal)
    assert AMCo.extension(trainer.method.params, Setting(("a", "b"), "concat", 10)) == (
        None if mask_unimodal else "AMCo with unimodal losses that are not masked"
    )


def test_some_classes_are_masked_in_between():
    trainer, batch, features, losses = losses_at(1, 1, [True, True])
    classes = trainer.context.classes
    z = torch.stack(list(trainer.model.fusion.unimodal(features).values()))
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(0))
    candidates = []
    for gone in torch.combinations(order, masked_classes(1, 1, classes, 0.1, 0.3)):
        keep = torch.ones(classes).index_fill(0, gone, 0)
        candidates.append(float(cross_entropy((z * keep).sum(dim=0), batch.label)))
    assert min(abs(value - float(losses["loss"])) for value in candidates) < 1e-6


def test_the_flags_follow_the_mass_and_start_anew_in_each_epoch():
    trainer, _, features, _ = losses_at(5, 5, [False, False])
    s = mass(torch.stack(list(trainer.model.fusion.unimodal(features).values())))
    assert torch.equal(trainer.method.dependent, s > 0.5)
    _, batch, features, losses = losses_at(5, 0, [True, True])
    assert float(losses["loss"]) == pytest.approx(float(cross_entropy(trainer.model.fusion(features), batch.label)))


def test_what_it_refuses():
    refuses = AMCo.refuses
    assert "sum over modalities" in refuses(AMCo.Params(), Setting(("a", "b"), "film", 10))
    assert "two modalities" in refuses(AMCo.Params(), Setting(("a",), "concat", 10))
    assert "classification" in refuses(AMCo.Params(), Setting(("a", "b"), "concat", 10, "regression"))
    assert refuses(AMCo.Params(), Setting(("a", "b", "c"), "sum", 10)) is None
