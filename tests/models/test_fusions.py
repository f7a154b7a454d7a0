"""Every fusion gives joint logits and unimodal logits of one modality alone; those of an additive fusion add up."""

import numpy as np
import pytest
import torch

from pipeline_src.models.base import FusionParams, fusion_facts, fusions
from pipeline_src.models.fusions.base import only

FREE = [name for name in fusions if not fusion_facts(name).steps]  # of the others see test_mbt and test_mult
DIMS = {"a": 5, "b": 3, "c": 4, "d": 2}


def some_features(modalities: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {m: torch.randn(7, DIMS[m], generator=generator) for m in list(DIMS)[:modalities]}


@pytest.mark.parametrize("modalities", [1, 2, 3, 4])
@pytest.mark.parametrize("name", FREE)
def test_unimodal_logits_are_of_that_modality_alone(name, modalities):
    features = some_features(modalities)
    fusion = fusions[name]({m: DIMS[m] for m in features}, 6)
    for parameter in fusion.parameters():  # a new bias is zero, and its part would not show
        torch.nn.init.normal_(parameter)
    logits, unimodal = fusion(features), fusion.unimodal(features)
    assert logits.shape == (7, 6)
    assert list(unimodal) == list(features)
    if fusion.additive:
        torch.testing.assert_close(sum(unimodal.values()), logits)
    other = some_features(modalities, seed=1)
    for m in features:
        mixed = {**other, m: features[m]}
        torch.testing.assert_close(fusion.unimodal(mixed)[m], unimodal[m])
        if modalities > 1:
            assert not torch.allclose(unimodal[m], logits)


def test_concat_by_hand():
    fusion = fusions["concat"]({"a": 2, "b": 1}, 2)
    with torch.no_grad():
        fusion.joint.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]]))
        fusion.joint.bias.copy_(torch.tensor([0.5, -2.0]))
    features = {"a": torch.tensor([[1.0, 1.0]]), "b": torch.tensor([[2.0]])}
    assert fusion(features).tolist() == [[9.5, -1.0]]
    assert fusion.unimodal(features)["a"].tolist() == [[3.25, -2.0]]
    assert fusion.unimodal(features)["b"].tolist() == [[6.25, 1.0]]


def test_sum_by_hand():
    fusion = fusions["sum"]({"a": 1, "b": 1}, 1)
    with torch.no_grad():
        for term, (weight, bias) in zip(fusion.terms.values(), [(2.0, 1.0), (3.0, -1.0)], strict=True):
            term.weight.fill_(weight)
            term.bias.fill_(bias)
    features = {"a": torch.tensor([[1.0]]), "b": torch.tensor([[1.0]])}
    assert fusion(features).item() == 5.0
    assert {m: z.item() for m, z in fusion.unimodal(features).items()} == {"a": 3.0, "b": 2.0}


def test_removal_sets_the_others_to_zero():
    features = some_features(3)
    kept = only(features, ["b"])
    assert kept["b"] is features["b"]
    assert not kept["a"].any() and not kept["c"].any() and features["a"].any()


@pytest.mark.parametrize("name", FREE)
def test_an_untrained_fusion_predicts_from_every_modality_alone(name):
    features = some_features(3)
    for z in fusions[name]({m: DIMS[m] for m in features}, 6).unimodal(features).values():
        assert (z.std(dim=0) > 1e-3).all()  # over the samples: removing the others leaves no constant


@pytest.mark.parametrize("name", [name for name in FREE if name not in ("mlp", "shared_mlp")])
def test_one_modality_is_a_linear_classifier(name):
    fusion = fusions[name]({"a": 5}, 3)
    f = some_features(1)["a"]
    (weight,) = (p for p in fusion.parameters() if p.dim() == 2)
    (bias,) = (p for p in fusion.parameters() if p.dim() == 1)
    assert fusion({"a": f}).tolist() == (f @ weight.T + bias).tolist()


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_several_layers_are_those_of_numpy(modalities):
    features = some_features(modalities)
    fusion = fusions["mlp"]({m: DIMS[m] for m in features}, 6)
    w = {name: p.detach().numpy() for name, p in fusion.named_parameters()}
    assert w["hidden.weight"].shape == (5, sum(DIMS[m] for m in features))

    def expected(kept):
        x = np.concatenate([f.numpy() if m in kept else 0 * f.numpy() for m, f in features.items()], axis=1)
        hidden = np.maximum(x @ w["hidden.weight"].T + w["hidden.bias"], 0)
        return torch.from_numpy(hidden @ w["out.weight"].T + w["out.bias"])

    torch.testing.assert_close(fusion(features).detach(), expected(list(features)), rtol=1e-4, atol=1e-5)
    for m, z in fusion.unimodal(features).items():
        torch.testing.assert_close(z.detach(), expected([m]), rtol=1e-4, atol=1e-5)


def constant_(layer: torch.nn.Linear, weight: list, bias: list) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))


@pytest.mark.parametrize("name", ["film", "film_reversed"])
def test_film_by_hand(name):
    by, on = ("a", "b") if name == "film" else ("b", "a")
    fusion = fusions[name]({"a": 1, "b": 1}, 2)
    constant_(fusion.film, [[2.0], [-1.0]], [0.5, 3.0])  # gamma = 2 f + 0.5, beta = -f + 3
    constant_(fusion.out, [[1.0], [-2.0]], [0.0, 1.0])
    features = {by: torch.tensor([[1.0]]), on: torch.tensor([[4.0]])}
    features = {m: features[m] for m in ("a", "b")}
    assert fusion(features).tolist() == [[16.0, -31.0]]  # (1 + 2.5) 4 + 2 = 16
    assert fusion.unimodal(features)[by].tolist() == [[2.0, -3.0]]  # the shift beta(1) = 2
    assert fusion.unimodal(features)[on].tolist() == [[9.0, -17.0]]  # (1 + 0.5) 4 + 3 = 9
    fusion.params = FusionParams(offset=0.0)  # as released
    assert fusion(features).tolist() == [[12.0, -23.0]]  # 2.5 x 4 + 2
    assert fusion.unimodal(features)[on].tolist() == [[5.0, -9.0]]  # 0.5 x 4 + 3


@pytest.mark.parametrize("name", ["gated", "gated_reversed"])
def test_gated_by_hand(name):
    by, on = ("a", "b") if name == "gated" else ("b", "a")
    fusion = fusions[name]({"a": 1, "b": 1}, 2)
    third = float(torch.tensor(3.0).log())  # sigmoid(log 3) = 3/4
    constant_(fusion.gate, [[third]], [0.0])
    constant_(fusion.content, [[2.0]], [-0.5])
    constant_(fusion.out, [[4.0], [-4.0]], [0.0, 1.0])
    features = {by: torch.tensor([[1.0]]), on: torch.tensor([[3.75]])}
    features = {m: features[m] for m in ("a", "b")}
    near = pytest.approx
    assert fusion(features)[0].tolist() == near([24.0, -23.0])  # 3/4 (1 + 7) = 6
    assert fusion.unimodal(features)[by][0].tolist() == near([1.5, -0.5])  # 3/4 (1 - 0.5) = 3/8
    assert fusion.unimodal(features)[on][0].tolist() == near([16.0, -15.0])  # 1/2 (1 + 7) = 4
    fusion.params = FusionParams(offset=0.0)  # as released
    assert fusion(features)[0].tolist() == near([21.0, -20.0])  # 3/4 x 7 = 5.25
    assert fusion.unimodal(features)[by][0].tolist() == near([-1.5, 2.5])  # 3/4 x -0.5


@pytest.mark.parametrize("name", ["film", "film_reversed", "gated", "gated_reversed"])
def test_the_direction_names_the_modulating_modality(name):
    fusion = fusions[name](DIMS, 6)
    assert fusion.by == ("d" if name.endswith("reversed") else "a")
    if name.startswith("film"):
        assert fusion.film.weight.shape == (2 * (sum(DIMS.values()) - DIMS[fusion.by]), DIMS[fusion.by])
    else:
        assert fusion.content.weight.shape == (5, sum(DIMS.values()) - DIMS[fusion.by])


@pytest.mark.parametrize("modalities", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["shared", "shared_mlp"])
def test_one_classifier_serves_every_modality(name, modalities):
    features = some_features(modalities)
    fusion = fusions[name]({m: DIMS[m] for m in features}, 6)
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter)
    weights = {n: p.detach().double() for n, p in fusion.named_parameters()}
    narrow = min(DIMS[m] for m in features)
    expected = {}
    for m, f in features.items():
        f = f.double()
        if DIMS[m] > narrow:
            f = f @ weights.pop(f"maps.{m}.weight").T
        if name == "shared":
            expected[m] = (f @ weights["classifier.weight"].T + weights["classifier.bias"]) / modalities
        else:
            hidden = (f @ weights["classifier.0.weight"].T + weights["classifier.0.bias"]).clamp(min=0)
            assert hidden.shape == (7, 256)
            expected[m] = hidden @ weights["classifier.2.weight"].T + weights["classifier.2.bias"]
    assert not any(n.startswith("maps.") for n in weights), "a map for longer features only"
    unimodal = fusion.unimodal(features)
    for m, z in expected.items():
        torch.testing.assert_close(unimodal[m].double(), z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fusion(features).double(), sum(expected.values()), rtol=1e-4, atol=1e-4)
