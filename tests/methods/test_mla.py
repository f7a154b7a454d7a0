"""MLA: the authors' updates with and without their projection, their weights of the prediction, and those by hand."""

import math

import pytest
import torch
from torch import nn

from pipeline_src.methods.base import Batch, Setting, methods
from pipeline_src.methods.mla import MLA, batch_weights, entropy_weights, project
from pipeline_src.models.base import fusions
from pipeline_src.models.fusions.base import Features
from pipeline_src.models.multimodal import MultimodalModel
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.methods import golden
from tests.methods.test_agm import context
from tests.synthetic import SyntheticCache, setting, spec

CPU = torch.device("cpu")
SIZES = {"audio": 7, "visual": 8}
PREFIXES = {f"encoders.{m}.": f"{m}_net." for m in SIZES} | {"fusion.classifier.": "fusion_module.fc_out."}


def trainer(method: str = "mla", params: dict | None = None, modalities: int = 2, **training) -> Trainer:
    cache = SyntheticCache(modalities)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in ("train", "val", "test")}
    run = Trainer(spec(cache, "shared", method, params, **training), 0, cache, loaders, CPU)
    run.method.on_train_start(run.context)
    return run


@pytest.mark.parametrize(("kind", "projection", "batches"), [("released", "none", 3), ("written", "written", 2)])
def test_the_authors_updates(kind, projection, batches):
    """Gradients of the classifier at each update, the projection, and the weights after the last."""
    arrays, meta = golden.load("mla_1")
    close = {"released": 1e-6, "written": 5e-5}[kind]  # written divides by numbers near zero
    encoders = {
        m: nn.Sequential(nn.Flatten(), nn.Linear(n, 8), nn.ReLU(), nn.Linear(8, 16), nn.ReLU())
        for m, n in SIZES.items()
    }
    model = MultimodalModel(encoders, fusions["shared"](dict.fromkeys(SIZES, 16), 6)).train()
    for name, parameter in model.named_parameters():
        parameter.data.copy_(arrays["param/" + theirs(name)])
    ctx = context(model, torch.optim.SGD(model.parameters(), **meta["optimizer"]), 48, 6)
    method, seen = MLA(MLA.Params(projection=projection)), []
    ctx.update = lambda update=ctx.update: (
        seen.append((model.fusion.classifier.weight.grad.clone(), method.projection)),
        update(),
    )
    ctx.batches = batches
    for ctx.batch in range(batches):
        inputs, rows = {m: arrays[f"input_{m}"][ctx.batch] for m in SIZES}, torch.arange(16)
        method.step(ctx, Batch(inputs, arrays["labels"][ctx.batch], rows, rows))
    assert len(seen) == 2 * batches and ctx.step == 2 * batches
    for i, (gradient, p) in enumerate(seen):
        assert golden.apart(gradient, arrays[f"{kind}/grad_head/{i}"]) < close, i
        if kind == "written":
            assert golden.apart(p, arrays[f"written/projection/{i}"]) < close, i
    for name, parameter in model.named_parameters():
        assert golden.apart(parameter.detach(), arrays[f"{kind}/param_last/{theirs(name)}"]) < close, name
    logged = ctx.logged()
    losses = torch.tensor([logged["loss"], *(logged[f"unimodal_loss/{m}"] for m in SIZES)])
    assert golden.apart(losses, arrays[f"{kind}/loss"]) < 1e-6


def theirs(name: str) -> str:
    return next(name.replace(ours, other) for ours, other in PREFIXES.items() if name.startswith(ours))


def test_weights_of_the_prediction():
    arrays, _ = golden.load("mla_1")
    logits = {m: arrays[f"logits_{m}"] for m in ("audio", "visual", "text")}
    two, three = torch.stack(list(logits.values())[:2]), torch.stack(list(logits.values()))
    assert golden.apart(entropy_weights(two).T, arrays["paper/gate2"]) < 1e-6
    assert golden.apart(entropy_weights(three).T, arrays["paper/gate3"]) < 1e-6
    assert golden.apart(batch_weights(two)[:, 0], arrays["released/gate2"]) < 1e-6
    for kind, expected, count in (
        ("entropy", "paper/fused2", 2),
        ("entropy", "paper/fused3", 3),
        ("entropy", "tcmax/fused2", 2),
        ("released", "released/fused2", 2),
    ):
        method = MLA(MLA.Params(fusion=kind))
        method.unimodal = lambda model, features: dict(features)
        features = Features(dict(list(logits.items())[:count]))
        assert golden.apart(method.logits(None, features), arrays[expected]) < 1e-6
        turned = Features(dict(reversed(features.items())))
        torch.testing.assert_close(method.logits(None, turned), method.logits(None, features))


def test_weights_by_hand():
    """Entropies 0 and ln 2: the sure modality weighs twice as much. Even and given weights."""
    logits = {"a": torch.tensor([[100.0, 0.0]]), "b": torch.tensor([[1.0, 1.0]])}
    weights = entropy_weights(torch.stack(list(logits.values())))
    assert weights[:, 0].tolist() == pytest.approx([2 / 3, 1 / 3])
    for params, expected in (
        ({}, [67.0, 1 / 3]),
        ({"fusion": "mean"}, [50.5, 0.5]),
        ({"fusion": "fixed", "weights": {"a": 0.55, "b": 0.45}}, [55.45, 0.45]),
    ):
        method = MLA(MLA.Params(**params))
        method.unimodal = lambda model, features: dict(features)
        assert method.logits(None, Features(logits))[0].tolist() == pytest.approx(expected)


def test_the_papers_projection_leaves_earlier_features_alone():
    """P h shrinks to damping / (damping + |h|^2) of h, and what is orthogonal to h passes."""
    h, other = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([-4.0, 3.0, 2.0])
    p = project(torch.eye(3), h, 0.5)
    torch.testing.assert_close(p @ h, h * 0.5 / 25.5)
    torch.testing.assert_close(p @ other, other)
    torch.testing.assert_close(p, p.T)


def test_the_papers_projection_comes_into_force_at_the_next_update():
    plain, projected = trainer(), trainer(params={"projection": "paper"})
    gradients = {}
    for run in (plain, projected):
        of = gradients[run] = []
        update, weight = run.context.update, run.model.fusion.classifier.weight
        run.context.update = lambda of=of, update=update, weight=weight: (of.append(weight.grad.clone()), update())
        run.epoch(0)
    first, second = gradients[plain], gradients[projected]
    assert torch.equal(first[0], second[0])
    assert second[1].norm() < first[1].norm()


@pytest.mark.parametrize("projection", ["written", "paper"])
def test_resumed_it_goes_on_with_its_projection(projection):
    params = {"projection": projection}
    whole, begun, resumed = (trainer(params=params, modalities=3, lr=0.001) for _ in range(3))
    whole.epoch(0)
    with pytest.raises(StopIteration):
        begun.epoch(0, iter([None]).__next__)
    tensors, position = begun.snapshot()
    resumed.restore({key: value.clone() for key, value in tensors.items()}, position)
    resumed.epoch(0)
    ours, other = resumed.state_dict(), whole.state_dict()
    assert ours.keys() == other.keys() and "method/projection" in ours
    assert all(torch.equal(ours[name], other[name]) for name in ours)
    assert all(torch.isfinite(p).all() for p in resumed.model.parameters())


def test_each_turn_trains_one_encoder_and_the_classifier_and_costs_no_more():
    run = trainer(modalities=3)
    moved, update = [], run.context.update

    def noted():
        moved.append({name.split(".")[1] for name, p in run.model.named_parameters() if p.grad is not None})
        update()

    run.context.update = noted
    run.epoch(0)
    assert moved[:3] == [{"m0", "classifier"}, {"m1", "classifier"}, {"m2", "classifier"}]
    ctx = run.context
    assert (ctx.forwards, ctx.backwards, ctx.step) == (26, 26, 12)
    assert ctx.logged()["loss"] == pytest.approx(sum(ctx.logged()[f"unimodal_loss/m{i}"] for i in range(3)) / 3)


def test_the_unimodal_logits_are_the_classifiers():
    run = trainer(modalities=3)
    model = run.model.eval()
    features = Features({m: torch.randn(4, d) for m, d in model.fusion.dims.items()})
    narrow = model.fusion.narrow(features)
    for m, z in run.method.unimodal(model, features).items():
        torch.testing.assert_close(z, model.fusion.classifier(narrow[m]))
    assert math.isclose(model.fusion.weight, 1 / 3)


def test_it_refuses():
    refuses, params = methods["mla"].refuses, MLA.Params
    assert refuses(params(), setting("shared", 3)) is None
    assert "shared" in refuses(params(), setting("concat"))
    assert "two modalities" in refuses(params(), setting("shared", 1))
    assert "weights of m0, m1, but got m0" in refuses(params(fusion="fixed", weights={"m0": 1.0}), setting("shared"))
    other = Setting(("m0", "m1"), "shared", 10, "regression")
    assert "entropy" in refuses(params(), other) and refuses(params(fusion="mean"), other) is None
