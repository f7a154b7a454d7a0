"""ReconBoost: the authors' losses and gradient, whose turn it is, what each part trains, and what it starts from."""

import pytest
import torch

from pipeline_src.methods.base import methods
from pipeline_src.methods.reconboost import ReconBoost, agreement, boosting, turn
from pipeline_src.tasks.base import tasks
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.methods import golden
from tests.synthetic import SyntheticCache, setting, spec, stand_ins

CPU = torch.device("cpu")


def trainer(params: dict, modalities: int = 2, fusion: str = "shared_mlp", **training) -> Trainer:
    cache = SyntheticCache(modalities)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in ("train", "val", "test")}
    what = spec(cache, fusion, "reconboost", params, **{"epochs": 6} | training)
    run = Trainer(what, 0, cache, loaders, CPU, stand_ins(what, cache))
    run.method.on_train_start(run.context)
    return run


def weights(run: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def moved(before: dict, after: dict) -> set[str]:
    """Encoders, fusion and rate of which a parameter or a buffer has changed."""
    changed = [name for name, value in after.items() if not torch.equal(value, before[name])]
    return {".".join(name.split(".")[: 2 if name.startswith("encoders") else 1]) for name in changed}


def test_the_authors_losses():
    arrays, meta = golden.load("reconboost_1")
    z, others, label = arrays["logits"].requires_grad_(), arrays["logits_others"], arrays["labels"]
    task = tasks["classification"](6)
    weight1, weight2 = meta["weight1"], meta["weight2"]
    loss = boosting(task.losses(z, label), task.confidence(others, label), weight1, weight2, 6)
    assert golden.apart(loss.detach(), arrays["loss"]) < 1e-6
    value = agreement(z, others)
    assert golden.apart(value, arrays["agreement"]) < 1e-6
    (loss.mean() + meta["alpha"] * value).backward()
    assert golden.apart(z.grad, arrays["grad"]) < 1e-6
    assert torch.equal(agreement(z, others, "paper"), value)
    (gradient,) = torch.autograd.grad(agreement(z, others, "paper"), z)
    assert gradient.abs().max() > 1e-4


def test_whose_turn_it_is():
    """Two epochs of boosting and one of rectifying: stage, boosts, begins a part."""
    assert [turn(e, 2, 1) for e in range(5)] == [
        (0, True, True),
        (0, True, False),
        (0, False, True),
        (1, True, True),
        (1, True, False),
    ]


@pytest.mark.parametrize("still", [False, True])
@pytest.mark.parametrize("fusion", ["shared_mlp", "sum"])
def test_what_each_part_trains(still, fusion):
    """The others' parameters stay while one is boosted; their running statistics do with `still`."""
    run = trainer({"still": still}, 3, fusion)
    names = list(run.model.encoders)
    for epoch in range(6):
        before = weights(run)
        run.epoch(epoch)
        after = weights(run)
        if epoch % 2:
            assert moved(before, after) == {*(f"encoders.{m}" for m in names), "fusion", "extra"}
            continue
        m = names[epoch // 2]
        parameters = {name for name, _ in run.model.named_parameters()}
        assert moved(before, {name: after[name] for name in parameters}) == {f"encoders.{m}", "fusion"}
        everything = {f"encoders.{name}" for name in ([m] if still else names)}
        assert moved(before, after) == {*everything, "fusion"}
        if fusion == "sum":
            assert all(torch.equal(before[n], after[n]) for n in parameters if n.startswith("fusion") and m not in n)


def test_each_part_has_a_new_optimiser():
    run = trainer({"boost": 2})
    counts = []
    zero_grad = run.context.zero_grad
    run.context.zero_grad = lambda: (counts.append((run.at.epoch, len(run.optimizer.state))), zero_grad())
    for epoch in range(3):
        run.epoch(epoch)
    first = dict(reversed(counts))
    assert first[0] == 0 and first[1] > 0 and first[2] == 0


def test_cost():
    run = trainer({}, 3)
    run.epoch(0)
    assert run.context.forwards == 26 and run.context.backwards == pytest.approx(26 / 3)
    run.epoch(1)
    assert run.context.forwards == 52 and run.context.backwards == pytest.approx(26 + 26 / 3)
    assert run.context.step == 8


def test_the_rate_multiplies_prediction_and_terms():
    run = trainer({}, 3)
    model = run.model.eval()
    features = {m: torch.randn(4, d) for m, d in model.fusion.dims.items()}
    assert torch.equal(run.method.logits(model, features), model.fusion(features))
    model.extra["rate"].nu.data.fill_(1.5)
    z, parts = run.method.logits(model, features), run.method.unimodal(model, features)
    torch.testing.assert_close(z, 1.5 * model.fusion(features))
    torch.testing.assert_close(sum(parts.values()), z)


def test_it_starts_from_the_baselines_where_asked():
    plain, run = trainer({}), trainer({"pretrained": True})
    for m, encoder in run.model.encoders.items():
        theirs = run.context.run(m).encoders[m].state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in encoder.state_dict().items())
        assert moved(weights(plain), weights(run)) >= {f"encoders.{m}"}
    asked = methods["reconboost"].requires
    assert asked(ReconBoost.Params(), setting()) == {}
    assert {m: r.modality for m, r in asked(ReconBoost.Params(pretrained=True), setting()).items()} == {
        "m0": "m0",
        "m1": "m1",
    }


@pytest.mark.parametrize("epoch", [2, 3])
def test_resumed_in_the_second_stage_it_goes_on_exactly(epoch):
    whole, begun, resumed = (trainer({"agreement": "paper"}, 3) for _ in range(3))
    for e in range(epoch + 1):
        whole.epoch(e)
    for e in range(epoch):
        begun.epoch(e)
    with pytest.raises(StopIteration):
        begun.epoch(epoch, iter([None]).__next__)
    tensors, position = begun.snapshot()
    resumed.restore({key: value.clone() for key, value in tensors.items()}, position)
    resumed.epoch(epoch)
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_it_refuses():
    refuses, params = methods["reconboost"].refuses, ReconBoost.Params
    assert refuses(params(), setting("shared_mlp", 3)) is None
    assert "sum over modalities" in refuses(params(), setting("film"))
    assert "two modalities" in refuses(params(), setting("sum", 1))
    assert "at least 16" in refuses(params(boost=4, rectify=4), setting("sum"))
    extension = methods["reconboost"].extension
    assert extension(params(), setting("concat")) and extension(params(), setting("shared_mlp")) is None
