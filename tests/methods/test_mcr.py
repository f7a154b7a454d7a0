"""MCR: the three games' values and gradients, with and without the bias, and the parts of the loss."""

import math

import pytest
import torch

from pipeline_src.methods.mcr import MCR, contrastive, divergence, jensen_shannon, pairs, rivalry
from tests.methods import golden, small
from tests.synthetic import setting

NAMES = ["0", "1"]
NEUTRAL = {"initial": "random", "weight": 0, "unimodal_weight": 0, "contrastive_weight": 0, "reconstruction_weight": 0}


def game(arrays: dict, kind: str, bias: bool) -> tuple[torch.Tensor, dict, list]:
    """R of a game, its J by (permuted, trained), and features and weights as leaves."""
    features = {m: arrays[f"features_{m}"].clone().requires_grad_() for m in NAMES}
    weights = {m: arrays[f"weight_{m}"].clone().requires_grad_() for m in NAMES}
    predict = lambda parts: sum(f @ weights[m].T for m, f in parts.items()) + bias * arrays["bias"]  # noqa: E731
    logits = sum(features[m] @ weights[m].T for m in NAMES) + arrays["bias"]
    terms = {
        (a, j): (n, divergence(features, a, j, arrays["order"], logits, predict)) for a, j, n in pairs(kind, NAMES)
    }
    return (
        sum(n * j for n, j in terms.values()),
        {k: j for k, (_, j) in terms.items()},
        [*features.values(), *weights.values()],
    )


@pytest.mark.parametrize("form", ["released", "paper"])
def test_the_games(form):
    arrays, _ = golden.load("mcr_1")
    for kind in ("greedy", "independent", "collaborative"):
        total, terms, leaves = game(arrays, kind, bias=form == "paper")
        # The greedy total is 0: an absolute limit.
        assert abs(float(total.detach()) - float(arrays[f"{form}/{kind}"])) < 1e-6
        for (a, j), value in terms.items():
            name = f"jsd_{'all' if j is None else 'enc' + j}_{'sa' if a == '0' else 'sv'}"
            assert golden.apart(value.detach(), arrays[f"{form}/{name}"]) < 1e-5
        if kind == "greedy":
            total.backward()
            names = ["features_0", "features_1", "weight_0", "weight_1"]
            for leaf, name in zip(leaves, names, strict=True):
                expected = arrays[f"{form}/grad/{name}"]
                if name.startswith("features"):
                    assert golden.apart(leaf.grad, expected) < 1e-5
                else:  # those of the pairs cancel
                    assert leaf.grad.abs().max() < 1e-6 and expected.abs().max() < 1e-6


@pytest.mark.parametrize("count", [2, 3])
def test_one_pass_gives_the_greedy_game_pair_by_pair(count):
    rng = torch.Generator().manual_seed(0)
    names = ["a", "b", "c"][:count]
    features = {m: torch.randn(5, 4, generator=rng, requires_grad=True) for m in names}
    weights = {m: torch.randn(4, 3, generator=rng) for m in names}
    predict = lambda parts: torch.stack([(f @ weights[m]).tanh() for m, f in parts.items()]).prod(dim=0)  # noqa: E731
    order = torch.rand(6, 5, generator=rng).argsort(dim=1)
    logits = predict(features)
    total, values = rivalry(features, order, logits, predict)
    terms = {(a, j): divergence(features, a, j, order, logits, predict) for a in names for j in names}
    torch.testing.assert_close(values, torch.stack([terms[a, a] for a in names]).detach())
    expected = sum(n * terms[a, j] for a, j, n in pairs("greedy", names))
    assert total.item() == 0 == pytest.approx(expected.item(), abs=1e-6)
    ours, theirs = (torch.autograd.grad(x, list(features.values()), retain_graph=True) for x in (total, expected))
    assert min(float(g.abs().max()) for g in theirs) > 1e-3
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_the_pairs_of_three_modalities():
    names = ["a", "b", "c"]
    assert sum(n for _, _, n in pairs("greedy", names)) == 0
    assert {(a, j): n for a, j, n in pairs("greedy", names)} == {
        (a, j): -2 if a == j else 1 for a in names for j in names
    }
    assert pairs("independent", names) == [(a, a, -1) for a in names]
    assert pairs("collaborative", names) == [(a, None, -1) for a in names]


def test_divergence_by_hand():
    far, even = torch.tensor([100.0, -100.0]), torch.zeros(2)
    assert float(jensen_shannon(far, -far)) == pytest.approx(math.log(2))
    assert float(jensen_shannon(far, far)) == 0
    mean = 0.75 * math.log(1 / 0.75) + 0.25 * math.log(1 / 0.25)  # entropy of the mean of (1, 0) and (1/2, 1/2)
    assert float(jensen_shannon(far, even)) == pytest.approx(mean - math.log(2) / 2)


def test_contrastive_by_hand():
    """Two samples at right angles, equal in both modalities: cos 1 and 0."""
    x, labels = torch.eye(2), torch.tensor([0, 1])
    assert float(contrastive(x, 3 * x, labels, 1.0)) == pytest.approx(-math.log(math.e / (math.e + 1)))
    same = -(math.log(math.e / (math.e + 1)) + math.log(1 / (math.e + 1))) / 2  # both are positives
    assert float(contrastive(x, x, torch.zeros(2), 1.0)) == pytest.approx(same)


@pytest.mark.parametrize("fusion", ["concat", "film"])
def test_without_its_terms_it_is_joint_training_bit_for_bit(fusion):
    joint, ours = small.run("joint", fusion), small.run("mcr", fusion, params=NEUTRAL)
    joint.epoch(0)
    ours.epoch(0)
    assert small.same_weights(joint, ours)


def test_encoders_start_from_the_baselines():
    run = small.run("mcr")
    for m in run.model.modalities:
        theirs = run.context.run(m).encoders[m].state_dict()
        assert all(torch.equal(x, theirs[name]) for name, x in run.model.encoders[m].state_dict().items())
    before = {name: x.clone() for name, x in run.context.run("m0").state_dict().items()}
    run.epoch(0)
    assert all(torch.equal(x, before[name]) for name, x in run.context.run("m0").state_dict().items())
    assert MCR.requires(MCR.Params(initial="random"), setting()) == {}


def test_what_each_term_reaches():
    run = small.run("mcr")
    run.model.extra["maps"]["m0"] = torch.nn.Linear(
        run.model.fusion.dims["m0"], run.model.fusion.dims["m1"], bias=False
    )
    batch, features, output = small.forward(run)
    losses = run.method.loss(run.context, output, batch)
    assert losses["game"].item() == pytest.approx(0, abs=1e-7)
    reached = {}
    for name, value in losses.items():
        run.model.zero_grad(set_to_none=True)
        value.backward(retain_graph=True)
        reached[name] = {".".join(n.split(".")[:2]) for n, p in run.model.named_parameters() if p.grad is not None}
    encoders = {"encoders.m0", "encoders.m1"}
    assert reached["game"] == encoders  # what it adds to the fusion's weights cancels out
    assert reached["contrastive"] == encoders | {"extra.maps"}
    assert reached["reconstruction"] == encoders | {"extra.decoder"}
    rebuilt = run.model.extra["decoder"](output.logits)
    expected = ((rebuilt - torch.cat(list(features.values()), dim=1)) ** 2).mean()
    torch.testing.assert_close(losses["reconstruction"], expected)


def test_as_released_permuted_predictions_have_no_bias():
    run = small.run("mcr", params={"bias": "released", "game": "independent", "weight": 1.0})
    with torch.no_grad():
        run.model.fusion.joint.bias += torch.tensor([5.0, 0.0, -5.0])
    batch, _, output = small.forward(run)
    apart = run.method.loss(run.context, output, batch)["game"].item()
    run.method.params = run.method.params.model_copy(update={"bias": "kept"})
    assert apart < -0.1 and apart < run.method.loss(run.context, output, batch)["game"].item() - 0.05


@pytest.mark.parametrize("kind", ["greedy", "independent", "collaborative"])
def test_three_modalities(kind):
    row = small.run("mcr", "sum", 3, {"game": kind}).epoch(0)
    values = [row[f"divergence/m{i}"] for i in range(3)]
    assert all(0 < value < math.log(2) for value in values)
    expected = 0 if kind == "greedy" else -0.1 * sum(values)
    assert row["game"] == pytest.approx(expected, abs=1e-6)


def test_what_it_refuses_and_marks():
    refuses = lambda asked, **params: MCR.refuses(MCR.Params(**params), asked)  # noqa: E731
    assert refuses(setting(modalities=1)) == "expected two modalities or more, but got 1"
    assert "hidden states" in refuses(setting("mmtm"))
    assert refuses(setting("film"), bias="released") == "expected a linear fusion with bias: released, but got 'film'"
    assert refuses(setting("film")) is None and refuses(setting("sum"), bias="released") is None
    assert "form of ours" in MCR.extension(MCR.Params(), setting())
    assert "ordered pairs" in MCR.extension(MCR.Params(), setting(modalities=3))
    assert MCR.extension(MCR.Params(contrastive_weight=0, reconstruction_weight=0), setting()) is None
