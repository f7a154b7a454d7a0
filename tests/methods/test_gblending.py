"""Gradient-Blending: weights from losses, what both estimates measure, and that an estimate leaves no trace."""

import pytest
import torch

from pipeline_src.methods.gblending import GBlending, _untrained, blend, gains
from tests.methods import golden, small
from tests.synthetic import setting

ONLINE = {"mode": "online", "super_epoch": 2}


def test_weights_from_losses():
    arrays, _ = golden.load("gblending_1")
    start, end = (torch.stack([arrays[f"train_loss_{i}"], arrays[f"val_loss_{i}"]]) for i in (0, 1))
    assert golden.apart(blend(*gains(start, end)), arrays["weights"]) < 1e-6
    order = torch.tensor([2, 0, 1])
    assert golden.apart(blend(*gains(start[:, order], end[:, order])), arrays["weights"][order]) < 1e-6


def test_by_hand():
    """G = 1, 0.5; O = 0.5, 1: quotients 4 and 0.5."""
    start = torch.tensor([[2.0, 2.0], [2.0, 2.0]])
    end = torch.tensor([[0.5, 0.5], [1.0, 1.5]])
    assert [x.tolist() for x in gains(start, end)] == [[1.0, 0.5], [0.5, 1.0]]
    assert blend(*gains(start, end)).tolist() == pytest.approx([8 / 9, 1 / 9])


@pytest.mark.parametrize(
    ("generalisation", "overfitting", "expected"),
    [
        ([-1.0, 1.0], [1.0, 1.0], [0.0, 1.0]),  # what gets worse has no weight
        ([-1.0, -2.0], [1.0, 1.0], [0.5, 0.5]),
        ([1e-8, 1e-8], [0.0, 1e-4], [0.5, 0.5]),  # O^2 is 1e-8 at least
        ([float("nan"), 1.0], [float("nan"), 1.0], [0.0, 1.0]),
    ],
)
def test_limits_of_the_quotient(generalisation, overfitting, expected):
    assert blend(torch.tensor(generalisation), torch.tensor(overfitting)).tolist() == pytest.approx(expected)


def test_offline_starts_from_the_first_weights_of_the_required_runs():
    """Runs that have not been trained have gained nothing."""
    run = small.run("gblending")
    fresh = small.run("joint").model
    for name in ("m0", "m1", "joint"):  # the stand-ins are of another seed
        model = run.context.run(name)
        for m, encoder in model.encoders.items():
            encoder.load_state_dict(fresh.encoders[m].state_dict())
        model.fusion.load_state_dict(_untrained(model.fusion, run.context).state_dict())
    assert run.method.measured.abs().max() > 1e-3
    run.method.on_train_start(run.context)
    assert run.method.measured.abs().max() < 1e-6
    joint = run.context.run("joint").fusion.state_dict()
    assert all(torch.equal(value, joint[name]) for name, value in fresh.fusion.state_dict().items())


@pytest.mark.parametrize("fusion", ["concat", "film"])
def test_all_weight_on_the_joint_loss_is_joint_training_bit_for_bit(fusion):
    joint, ours = small.run("joint", fusion), small.run("gblending", fusion, params={"weights": {"joint": 1.0}})
    joint.epoch(0)
    ours.epoch(0)
    assert small.same_weights(joint, ours)


def test_the_weighted_losses():
    run = small.run("gblending", params={"weights": {"m0": 0.25, "joint": 2.0}})
    batch, features, output = small.forward(run)
    losses = run.method.loss(run.context, output, batch)
    task = run.context.task
    torch.testing.assert_close(losses["loss"], 2 * task.loss(output.logits, batch.label))
    own = task.loss(run.model.extra["m0"](features["m0"]), batch.label)
    torch.testing.assert_close(losses["unimodal_loss/m0"], 0.25 * own)
    assert losses["unimodal_loss/m1"].item() == 0


@pytest.mark.parametrize("modalities", [2, 3])
def test_online_trains_each_output_from_the_same_weights_and_puts_them_back(modalities):
    run = small.run("gblending", "sum", modalities, ONLINE, epochs=4, lr_step=9)
    seen: dict[str, list] = {}
    before = {name: x.clone() for name, x in run.context.state().items()}
    step = run.method.step

    def noted(ctx, batch):
        if ctx.batch == 0 and ctx.phase.name not in seen:
            step(ctx, batch)
            seen[ctx.phase.name] = [
                k for k, v in ctx.model.state_dict().items() if not torch.equal(v, before[f"model/{k}"])
            ]
        else:
            step(ctx, batch)

    run.method.step = noted
    row = run.epoch(0)
    names = run.model.modalities
    assert list(seen) == [f"estimate {k}" for k in (*names, "joint")] + ["blend"]
    for m in names:  # the first step of a modality's estimate moves its encoder and its classifier alone
        assert {k.split(".")[0] + "." + k.split(".")[1] for k in seen[f"estimate {m}"]} == {
            f"encoders.{m}",
            f"extra.{m}",
        }
    assert not any(k.startswith("extra") for k in seen["estimate joint"])
    weights = [row[f"weight/{m}"] for m in names] + [row["joint_weight"]]
    assert sum(weights) == pytest.approx(1)
    # Two passes for each of the outputs and one that trains; measuring is without gradients.
    assert run.context.backwards == pytest.approx((2 * 2 + 1) * 26)
    held = run.method.weights.clone()
    run.epoch(1)
    assert torch.equal(held, run.method.weights) and run.context.backwards == pytest.approx(6 * 26)
    run.epoch(2)
    assert not torch.equal(held, run.method.weights)


@pytest.mark.parametrize("stop", [0, 3, 4, 16, 23, 24])
def test_online_resumes_exactly_within_any_pass(stop):
    whole = small.run("gblending", params=ONLINE)
    row = whole.epoch(0)  # six passes of estimates and one of training, four steps each
    begun = small.run("gblending", params=ONLINE)
    with pytest.raises(StopIteration):
        begun.epoch(0, iter([None] * stop).__next__)
    tensors, position = begun.snapshot()
    resumed = small.run("gblending", params=ONLINE)
    resumed.restore({name: value.clone() for name, value in tensors.items()}, position)
    again = resumed.epoch(0)
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in row.items() if k != "seconds"}
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_what_it_requires_and_refuses():
    required = {k: v.modality for k, v in GBlending.requires(GBlending.Params(), setting()).items()}
    assert required == {"m0": "m0", "m1": "m1", "joint": None}
    assert GBlending.requires(GBlending.Params(**ONLINE), setting()) == {}
    assert GBlending.requires(GBlending.Params(weights={"m0": 1}), setting()) == {}
    for params, asked, why in [
        ({}, setting(modalities=1), "expected two modalities or more, but got 1"),
        ({}, setting("mmtm"), "expected a fusion that leaves hidden states alone, but got 'mmtm'"),
        ({"weights": {"m0": 1, "x": 1}}, setting(), "expected weights of m0, m1, joint, but got x"),
        ({"weights": {"m0": 0}}, setting(), "expected a weight above 0, but got none"),
        (ONLINE, setting(epochs=1), "expected super_epoch of training.epochs = 1 at most, but got 2"),
    ]:
        assert GBlending.refuses(GBlending.Params(**params), asked) == why
    assert GBlending.extension(GBlending.Params(), setting()) and not GBlending.extension(
        GBlending.Params(**ONLINE), setting()
    )
