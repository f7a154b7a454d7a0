"""AGM: the authors' training loop of four batches, their three-modality coefficients, Shapley values by hand."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipeline_src.methods.agm import AGM, coefficients, leads, shapley
from pipeline_src.methods.base import Batch, Context
from pipeline_src.models.base import fusions
from pipeline_src.models.multimodal import MultimodalModel
from pipeline_src.tasks.base import tasks
from tests.methods import golden

SIZES = {"audio": 7, "visual": 9}


def context(model: MultimodalModel, optimizer: torch.optim.Optimizer, samples: int, classes: int) -> Context:
    """A run of a toy model, whose batches need no transform."""
    split = SimpleNamespace(device=torch.device("cpu"), label=torch.zeros(samples, dtype=torch.int64))
    return Context(
        model,
        optimizer,
        {"train": split, "val": split},
        lambda inputs: inputs,
        nullcontext,
        task=tasks["classification"](classes),
        seed=0,
        epochs=10,
        batch_size=16,
    )


def test_four_batches_of_the_authors_loop():
    arrays, meta = golden.load("agm_1")
    encoders = {
        m: nn.Sequential(nn.Flatten(), nn.Linear(n, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 16))
        for m, n in SIZES.items()
    }
    for m, encoder in encoders.items():
        encoder.load_state_dict(golden.part(arrays, f"param/net.{m}_net."))
    fusion = fusions["concat"](dict.fromkeys(SIZES, 16), 6)
    fusion.joint.load_state_dict(golden.part(arrays, "param/net.fusion_module.fc_out."))
    model = MultimodalModel(encoders, fusion).train()
    ctx = context(model, torch.optim.SGD(model.parameters(), **meta["optimizer"]), 64, 6)
    method = AGM(AGM.Params(alpha=meta["alpha"], cap=meta["cap"]))
    method.on_train_start(ctx)
    names = {f"encoders.{m}.": f"net.{m}_net." for m in SIZES} | {"fusion.joint.": "net.fusion_module.fc_out."}
    logged: dict = {}
    ctx.log = lambda name, value: logged.update({name: value.detach()})
    for i in range(4):
        inputs, label = {m: arrays[f"input_{m}"][i] for m in SIZES}, arrays["labels"][i]
        rows = torch.arange(16)
        method.step(ctx, Batch(inputs, label, rows, rows))
        kappa = torch.stack([logged[f"coefficient/{m}"] for m in SIZES])
        assert golden.apart(kappa, arrays["coefficient"][i]) < 1e-5
        for name, parameter in model.named_parameters():
            theirs = next(name.replace(ours, other) for ours, other in names.items() if name.startswith(ours))
            assert golden.apart(parameter.grad, arrays[f"grad/{i}/{theirs}"]) < 2e-5, (i, name)
    assert golden.apart(method.running, arrays["running_score_last"]) < 1e-5


def test_three_modalities():
    arrays, meta = golden.load("agm3_1")
    names = meta["modalities"]
    values = {kept: arrays[f"logits_of_{'_'.join(kept)}"] for kept in _sets(names)}
    phi = shapley(names, lambda kept: values[tuple(kept)])
    task = tasks["classification"](5)
    for m in names:
        assert golden.apart(phi[m], arrays[f"phi_{m}"]) < 1e-5
    assert golden.apart(sum(phi.values()), arrays["logits_of_visual_audio_text"]) < 1e-5
    score = torch.stack([-task.confidence(phi[m], arrays["labels"]).log().mean() for m in names])
    ratio, reference = leads(score), leads(torch.tensor([meta["running_score"][m] for m in names]))
    kappa = coefficients(ratio, reference, meta["alpha"], meta["cap"])
    for i, m in enumerate(names):
        assert golden.apart(score[i], arrays[f"score_{m}"]) < 1e-5
        assert golden.apart(ratio[i], arrays[f"ratio_{m}"]) < 1e-5
        assert golden.apart(reference[i], arrays[f"reference_{m}"]) < 1e-5
        assert golden.apart(kappa[i], arrays[f"coefficient_{m}"]) < 1e-5


def _sets(names):
    from itertools import combinations

    return [kept for n in range(1, len(names) + 1) for kept in combinations(names, n)]


def test_shapley_by_hand():
    """Two modalities: phi_a = (F(ab) - F(b) + F(a)) / 2."""
    value = {("a",): 3.0, ("b",): 5.0, ("a", "b"): 10.0}
    phi = shapley(["a", "b"], lambda kept: torch.tensor([[value[kept]]]))
    assert {m: float(p) for m, p in phi.items()} == {"a": 4.0, "b": 6.0}


def test_the_modality_that_is_ahead_is_held_back():
    score = torch.tensor([0.5, 1.5])  # the first has the smaller loss
    ratio = leads(score)
    torch.testing.assert_close(ratio, torch.tensor([1.0, -1.0]).exp())
    kappa = coefficients(ratio, torch.ones(2), 1.0, 10.0)
    assert kappa[0] < 1 < kappa[1]
    assert coefficients(torch.tensor([0.0]), torch.tensor([50.0]), 1.0, 2.0).tolist() == pytest.approx([7.389056])
    assert coefficients(torch.tensor([0.0]), torch.tensor([3.0]), 1.0, None).tolist() == pytest.approx([20.085537])
    permuted = leads(torch.tensor([0.1, 0.7, 0.4])[[2, 0, 1]])
    torch.testing.assert_close(permuted, leads(torch.tensor([0.1, 0.7, 0.4]))[[2, 0, 1]])


@pytest.mark.parametrize("clip", [0.5, 100.0])
def test_large_gradients_of_the_fusion_clip_all(clip):
    method = AGM(AGM.Params(limit=1.0, clip=clip))
    model = nn.Module()
    model.fusion, model.encoder = nn.Linear(2, 2), nn.Linear(2, 2)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    ctx = SimpleNamespace(model=model, parameters=lambda of=model: dict(of.named_parameters()))
    method.after_backward(ctx, None, None)
    norm = float(torch.stack([p.grad.norm() for p in model.parameters()]).norm())
    assert norm == pytest.approx(min(clip, 12**0.5 * 2), rel=1e-4)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.9)
    method.after_backward(ctx, None, None)
    assert all(torch.equal(p.grad, torch.full_like(p, 0.9)) for p in model.parameters())
