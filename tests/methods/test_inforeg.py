"""InfoReg: the authors' gradients and weights over three batches, when the window is open, and the paper's form."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipeline_src.methods.base import Batch, Output
from pipeline_src.methods.inforeg import InfoReg, opened, pull
from pipeline_src.models.base import fusions
from pipeline_src.models.fusions.base import Features
from pipeline_src.models.multimodal import MultimodalModel
from pipeline_src.tasks.base import tasks
from tests.methods import golden, small
from tests.synthetic import setting

SIZES = {"audio": 4, "visual": 5}


def golden_run(arrays: dict, **params) -> tuple[InfoReg, SimpleNamespace]:
    """The golden case's model, of our parts, after two epochs."""
    encoders = {m: nn.Sequential(nn.Flatten(), nn.Linear(n, 512)) for m, n in SIZES.items()}
    for m, encoder in encoders.items():
        encoder.load_state_dict(golden.part(arrays, f"param/{m}_net."))
    fusion = fusions["concat"](dict.fromkeys(SIZES, 512), 6)
    fusion.joint.load_state_dict(golden.part(arrays, "param/head."))
    ctx = SimpleNamespace(
        model=MultimodalModel(encoders, fusion),
        task=tasks["classification"](6),
        labels=lambda split: torch.zeros(0),
        log=lambda name, value: None,
        parameters=lambda of: dict(of.named_parameters()),
    )
    method = InfoReg(InfoReg.Params(**params))
    method.traces = torch.tensor([[0.4, 0.3], [0.5, 0.4]])
    method.before_epoch(ctx)
    return method, ctx


def stepped(method: InfoReg, ctx: SimpleNamespace, arrays: dict, i: int) -> None:
    """Gradients of one batch."""
    label = arrays["labels"][i]
    features = Features(ctx.model.encode({m: arrays[f"input_{m}"][i] for m in SIZES}))
    output, batch = Output(features, ctx.model.fusion(features)), Batch({}, label, label, label)
    ctx.model.zero_grad()
    sum(method.loss(ctx, output, batch).values()).backward()
    method.after_backward(ctx, output, batch)


def test_an_epoch_of_three_batches():
    arrays, meta = golden.load("inforeg_1")
    method, ctx = golden_run(arrays)
    optimizer = torch.optim.SGD(ctx.model.parameters(), **meta["optimizer"])
    for i in range(3):
        stepped(method, ctx, arrays, i)
        for m in SIZES:
            for name, p in ctx.model.encoders[m].named_parameters():
                assert golden.apart(p.grad, arrays[f"grad/{i}/{m}_net.{name}"]) < 5e-6, (i, m, name)
        optimizer.step()
    for m in SIZES:
        for name, p in ctx.model.encoders[m].named_parameters():
            assert golden.apart(p.detach(), arrays[f"param_last/{m}_net.{name}"]) < 1e-6
    method.after_epoch(ctx)
    expected = torch.tensor([meta["trace_after"][m] for m in SIZES])
    assert golden.apart(method.traces[-1], expected) < 1e-5


def test_the_papers_form_adds_the_gradient_of_its_penalty():
    arrays, _ = golden.load("inforeg_1")
    method, ctx = golden_run(arrays, form="paper", unimodal_weight=0, threshold=-1)
    with torch.no_grad():
        for p in ctx.model.encoders.parameters():
            p += 0.01
    stepped(method, ctx, arrays, 1)
    ours = {name: p.grad.clone() for name, p in ctx.model.encoders.named_parameters()}
    label = arrays["labels"][1]
    features = Features(ctx.model.encode({m: arrays[f"input_{m}"][1] for m in SIZES}))
    task, logits = ctx.task, ctx.model.fusion.unimodal(features)
    s = {m: task.confidence(z, label).mean().item() for m, z in logits.items()}
    best, other = sorted(s, key=s.get, reverse=True)
    alpha = math.exp(0.9 * math.tanh(s[best] - s[other]))
    away = sum(((p - method.first[f"{best}.{k}"]) ** 2).sum() for k, p in ctx.model.encoders[best].named_parameters())
    ctx.model.zero_grad()
    (task.loss(ctx.model.fusion(features), label) + alpha / 2 * away).backward()
    plain = torch.zeros(2)
    for name, p in ctx.model.encoders.named_parameters():
        torch.testing.assert_close(ours[name], p.grad)
        if name.endswith("weight"):  # the paper's trace is of the loss, without the penalty
            i = list(SIZES).index(name.split(".")[0])
            g = p.grad - (alpha * 0.01 if name.startswith(best) else 0)
            plain[i] += g.square().mean()
    torch.testing.assert_close(method.trace, plain, rtol=1e-4, atol=0)


def test_the_pull_by_hand():
    score, beta = torch.tensor([3.0, 1.0]), torch.tensor([0.95, 0.1])
    assert pull(score, beta, "released").tolist() == pytest.approx([0.95 * math.exp(math.tanh(2)), 0])
    assert pull(score.flip(0), beta, "released").tolist() == pytest.approx([0, 0.1 * math.exp(math.tanh(2))])
    assert pull(score, beta, "paper").tolist() == pytest.approx([math.exp(0.95 * math.tanh(2)), 0])
    assert pull(torch.ones(2), beta, "released").tolist() == [0, 0]
    three = pull(torch.tensor([1.0, 4.0, 2.0]), torch.ones(3), "released")
    assert three.tolist() == pytest.approx([0, math.exp(math.tanh(2.5)), 0])


@pytest.mark.parametrize(
    ("traces", "window", "expected"),
    [
        ([], 1, True),
        ([1.0], 1, True),
        ([1.0, 1.04], 1, False),
        ([1.0, 1.06], 1, True),
        ([2.0, 1.0], 1, False),
        ([1.0] * 10, 10, True),  # the sum still grows: 9 to 10
        ([1.0] * 11, 10, False),
        ([1.0, *[1.0] * 9, 2.0], 10, True),  # 10 to 11
    ],
)
def test_when_the_window_is_open(traces, window, expected):
    column = torch.tensor(traces).reshape(-1, 1).expand(-1, 2)
    assert opened(column, window, 0.05).tolist() == [expected] * 2


def test_the_released_form_asks_audio_alone_the_papers_each_modality():
    traces = torch.tensor([[1.0, 1.0], [1.0, 2.0]])
    for form, expected in (("released", [False, False]), ("paper", [False, True])):
        method = InfoReg(InfoReg.Params(form=form, window=1))
        method.traces = traces
        assert method.open(["audio", "visual"]).tolist() == expected
    method = InfoReg(InfoReg.Params(window=1))
    method.traces = traces
    assert method.open(["visual", "audio"]).tolist() == [True, True]


def test_betas():
    beta = lambda **params: InfoReg(InfoReg.Params(**params)).beta(["audio", "visual", "text"])  # noqa: E731
    assert beta() == [0.95, 0.1, 0.95]
    assert beta(form="paper") == [0.9] * 3
    assert beta(beta=0.5) == [0.5] * 3
    assert beta(beta={"text": 0.2}) == [0.95, 0.1, 0.2]


@pytest.mark.parametrize("fusion", ["concat", "gated"])
def test_without_pull_and_unimodal_losses_it_is_joint_training_bit_for_bit(fusion):
    joint = small.run("joint", fusion)
    ours = small.run("inforeg", fusion, params={"beta": 0.0, "unimodal_weight": 0.0})
    for epoch in range(2):
        joint.epoch(epoch)
        row = ours.epoch(epoch)
    assert small.same_weights(joint, ours)
    assert row["trace/m0"] > 0 and row["pull/m0"] == 0


def test_the_order_of_modalities_permutes_the_factors():
    score, beta, order = torch.tensor([1.0, 5.0, 2.0]), torch.tensor([0.1, 0.2, 0.3]), torch.tensor([2, 0, 1])
    for form in ("released", "paper"):
        assert torch.equal(pull(score, beta, form)[order], pull(score[order], beta[order], form))


@pytest.mark.parametrize("form", ["released", "paper"])
def test_three_modalities(form):
    row = small.run("inforeg", "sum", 3, {"form": form}).epoch(0)
    assert sum(row[f"pull/m{i}"] > 0 for i in range(3)) >= 1


def test_what_it_refuses_and_marks():
    assert InfoReg.refuses(InfoReg.Params(), setting(modalities=1)) == "expected two modalities or more, but got 1"
    why = InfoReg.refuses(InfoReg.Params(beta={"m0": 1, "x": 1}), setting())
    assert why == "expected beta of m0, m1, but got x"
    assert "two modalities" in InfoReg.extension(InfoReg.Params(), setting(modalities=3))
    assert "named audio" in InfoReg.extension(InfoReg.Params(), setting())
    assert InfoReg.extension(InfoReg.Params(form="paper"), setting()) is None
