"""CGGM: the authors' coefficients and direction loss, what is scaled, and both directions."""

import pytest
import torch

from pipeline_src.methods import cggm
from pipeline_src.methods.cggm import CGGM, coefficients, direction
from tests.methods import golden, small
from tests.synthetic import setting


def test_coefficients_and_direction():
    arrays, meta = golden.load("cggm_1")
    assert CGGM.Params().rho == meta["rho"]
    k = coefficients(arrays["accuracy_after"] - arrays["accuracy_before"])
    assert golden.apart(k, arrays["coefficient"]) < 1e-6
    assert golden.apart(direction(arrays["coefficient"], arrays["similarity"]), arrays["direction_loss"]) < 1e-6


def test_by_hand():
    assert coefficients(torch.tensor([0.3, 0.1])).tolist() == pytest.approx([0.25, 0.75])
    assert coefficients(torch.tensor([-0.1, 0.05])).tolist() == pytest.approx([-1, 2], rel=1e-5)  # D below 0
    assert coefficients(torch.tensor([0.25, -0.25])).abs().tolist() == pytest.approx([2.5e7] * 2)
    assert coefficients(torch.tensor([0.25, -0.25]), 0.1).tolist() == pytest.approx([-2.5, 2.5])
    assert coefficients(torch.tensor([-0.3, -0.1]), 0.5).tolist() == pytest.approx([0.2, 0.6])
    assert float(direction(torch.tensor([1.0, -0.5]), torch.tensor([0.5, -0.5]))) == pytest.approx(0.375)


def test_the_order_of_modalities_permutes_the_coefficients():
    gain, order = torch.tensor([0.3, -0.1, 0.2]), torch.tensor([2, 0, 1])
    torch.testing.assert_close(coefficients(gain)[order], coefficients(gain[order]))


@pytest.mark.parametrize("fusion", ["concat", "gated"])
def test_a_factor_of_one_is_joint_training_bit_for_bit(fusion, monkeypatch):
    monkeypatch.setattr(cggm, "coefficients", lambda gain, floor: torch.ones_like(gain))
    joint, ours = small.run("joint", fusion), small.run("cggm", fusion, params={"rho": 1.0, "clip": 1e30})
    joint.epoch(0)
    ours.epoch(0)
    assert small.same_weights(joint, ours)


def gradients(params: dict, second: bool = True):
    """A run, its losses and its gradients after one step's backward pass, of the second batch in a row or the first."""
    run = small.run("cggm", params=params)
    for _ in range(1 + second):
        batch, features, output = small.forward(run)
        losses = run.method.loss(run.context, output, batch)
    run.context.zero_grad()
    sum(losses.values()).backward()
    return run, losses, {name: p.grad.clone() for name, p in run.model.named_parameters()}, (batch, features, output)


def test_encoders_are_scaled():
    run, _, before, (batch, _, output) = gradients({"clip": 1e30}, second=False)
    right = [run.context.task.right(run.model.extra[m](output.features[m]), batch.label) for m in ("m0", "m1")]
    a = torch.stack([x.float().mean() for x in right])  # the first batch's gain is its accuracy
    run.method.after_backward(run.context, output, batch)
    for name, p in run.model.named_parameters():
        i = {"encoders.m0": 0, "encoders.m1": 1}.get(".".join(name.split(".")[:2]))
        factor = 1 if i is None else 1.3 * float((a.sum() - a[i]) / (a.sum() + 1e-8))
        torch.testing.assert_close(p.grad, factor * before[name])


def test_a_unimodal_loss_reaches_its_classifier_alone():
    run = small.run("cggm")
    batch, _, output = small.forward(run)
    run.context.zero_grad()
    run.method.loss(run.context, output, batch)["unimodal_loss/m0"].backward()
    assert {name.rsplit(".", 1)[0] for name, p in run.model.named_parameters() if p.grad is not None} == {"extra.m0"}


def test_the_clip_leaves_classifiers_alone():
    run, _, before, (batch, _, output) = gradients({"clip": 1e-3}, second=False)
    run.method.after_backward(run.context, output, batch)
    norm = torch.stack([p.grad.norm() for name, p in run.model.named_parameters() if not name.startswith("extra")])
    assert norm.norm().item() == pytest.approx(1e-3, rel=1e-2)
    assert torch.equal(run.model.extra["m0"].weight.grad, before["extra.m0.weight"])


def test_as_released_the_direction_changes_nothing():
    _, losses, released, _ = gradients({})
    _, _, without, _ = gradients({"direction": "paper", "weight": 0.0})
    assert "direction" not in losses
    assert all(torch.equal(g, without[name]) for name, g in released.items())


def test_the_papers_direction_uses_the_gradients_of_a_linear_fusions_weights():
    params = {"direction": "paper", "weight": 3.0, "floor": 0.1}
    run = small.run("cggm", params=params)
    batch, features, output = small.forward(run)
    run.method.coefficient = k = torch.tensor([0.75, -0.25])
    loss = run.method.loss(run.context, output, batch)["direction"]
    task, width = run.context.task, features["m0"].shape[1]
    joint = torch.autograd.grad(task.loss(output.logits, batch.label), run.model.fusion.joint.weight, retain_graph=True)
    cosine = []
    for m, block in zip(features, joint[0].split(width, dim=1), strict=True):
        own = run.model.extra[m]
        g = torch.autograd.grad(task.loss(own(features[m]), batch.label), own.weight, retain_graph=True)[0]
        cosine.append(torch.cosine_similarity(g.flatten(), block.flatten(), dim=0))
    torch.testing.assert_close(loss, 3 * direction(k, torch.stack(cosine)))
    run.context.zero_grad()
    loss.backward()
    reached = {name.split(".")[0] for name, p in run.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"encoders", "fusion"}


@pytest.mark.parametrize("params", [{}, {"direction": "paper"}, {"direction": "paper", "floor": 0.1}])
def test_three_modalities_stay_finite(params):
    run = small.run("cggm", "film", 3, params)
    rows = [run.epoch(epoch) for epoch in range(3)]
    assert all(torch.tensor(list(row.values())).isfinite().all() for row in rows)
    assert all(p.isfinite().all() for p in run.model.parameters())


def test_what_it_refuses_and_marks():
    assert CGGM.refuses(CGGM.Params(), setting(modalities=1)) == "expected two modalities or more, but got 1"
    assert "optimiser" in CGGM.extension(CGGM.Params(), setting())
    assert "direction" in CGGM.extension(CGGM.Params(direction="paper"), setting())
