"""QMF: the authors' fusion, history, ranks and gradients over four batches; and those of their RGB-D version."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipeline_src.methods.base import Batch, Output
from pipeline_src.methods.qmf import QMF, difficulty, energy, rank
from pipeline_src.models.fusions.base import Features
from pipeline_src.tasks.base import tasks
from tests.methods import golden


def context(logits: dict, samples: int, classes: int) -> SimpleNamespace:
    """A run whose features are the logits of the classifiers."""
    fusion = SimpleNamespace(unimodal_loss=False)
    model = SimpleNamespace(extra={m: nn.Identity() for m in logits}, modalities=list(logits), fusion=fusion)
    labels = torch.zeros(samples)
    task = tasks["classification"](classes)
    return SimpleNamespace(model=model, task=task, labels=lambda split: labels, log=lambda name, value: None)


def stepped(method: QMF, ctx: SimpleNamespace, logits: dict, label, index) -> tuple[dict, dict, torch.Tensor]:
    """Named losses, the logits as leaves with their gradients, and the prediction."""
    leaves = {m: z.clone().requires_grad_() for m, z in logits.items()}
    z = method.logits(ctx.model, Features(leaves))
    losses = method.loss(ctx, Output(Features(leaves), z), Batch({}, label, index, index))
    sum(losses.values()).backward()
    return losses, leaves, z


def test_four_batches():
    arrays, meta = golden.load("qmf_1")
    logits = {m: arrays[f"logits_{m}"] for m in meta["modalities"]}
    ctx = context(logits, meta["samples"], 6)
    method = QMF(QMF.Params())
    method.on_train_start(ctx)
    for i in range(4):
        batch = {m: z[i] for m, z in logits.items()}
        losses, leaves, fused = stepped(method, ctx, batch, arrays["labels"][i], arrays["index"][i])
        assert golden.apart(fused.detach(), arrays[f"fused/{i}"]) < 1e-6
        assert golden.apart(sum(losses.values()).detach(), arrays[f"loss/{i}"]) < 1e-6
        for m, leaf in leaves.items():
            assert golden.apart(method.history[m], arrays[f"history/{i}/{m}"]) < 1e-6
            assert golden.apart(losses[f"rank/{m}"].detach(), arrays[f"rank/{i}/{m}"]) < 1e-5
            assert golden.apart(leaf.grad, arrays[f"grad/{i}/logits_{m}"]) < 1e-5


def test_the_rgbd_version():
    arrays, meta = golden.load("qmf_rgbd_1")
    logits = {m: arrays[f"logits_{m}"] for m in meta["modalities"]}
    ctx = context(logits, meta["samples"], 10)
    method = QMF(QMF.Params(rank_weight=meta["lamb"], detach=False, history="after"))
    method.load_state_dict({f"history/{m}": arrays[f"history_before/{m}"] for m in logits})
    losses, leaves, fused = stepped(method, ctx, logits, arrays["labels"], arrays["index"])
    assert golden.apart(fused.detach(), arrays["fused"]) < 1e-6
    assert golden.apart(sum(losses.values()).detach(), arrays["loss"]) < 1e-6
    for m, leaf in leaves.items():
        assert golden.apart(method.history[m], arrays[f"history_after/{m}"]) < 1e-6
        assert golden.apart(leaf.grad, arrays[f"grad/logits_{m}"]) < 1e-5


def test_an_even_history_ranks_nothing():
    hardness = difficulty(torch.full((8,), 3.0), torch.arange(4))
    assert hardness.tolist() == [0.0] * 4
    assert float(rank(torch.randn(4, generator=torch.Generator().manual_seed(0)), hardness)) == 0


def test_by_hand():
    """u = 0 and 1, so d = -1 and 1: e = 0.5 and 0.2 have the right order, e = -1 and 0.7 lack 0.7 twice."""
    u = difficulty(torch.tensor([1.0, 3.0]), torch.tensor([0, 1]))
    assert u.tolist() == [0.0, 1.0]
    assert float(rank(torch.tensor([0.5, 0.2]), u)) == 0
    assert float(rank(torch.tensor([-1.0, 0.7]), u)) == pytest.approx(0.7)
    assert energy(torch.tensor([[0.0, 0.0]])).tolist() == pytest.approx([0.0693147])
