"""MMTM: the authors' numbers, the equations by hand for two to four modalities, and what the last tap amounts to."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_src.models.base import fusions
from pipeline_src.models.fusions.mmtm import Exchange
from pipeline_src.models.stages import State
from tests.models.test_taps import network

GOLDEN = Path(__file__).parents[1] / "golden/greedy_mmtm_1.npz"


def golden_exchange(case) -> Exchange:
    """The authors' module of two modalities, 16 channels each, with their weights."""
    exchange = Exchange({"0": 16, "1": 16})
    names = {"squeeze": "fc_squeeze", "excite.0": "fc_visual", "excite.1": "fc_skeleton"}
    state = {
        f"{n}.{k}": torch.from_numpy(case[f"param/{of}.{k}"]) for n, of in names.items() for k in ("weight", "bias")
    }
    exchange.load_state_dict(state)
    return exchange


@pytest.mark.parametrize("call", [0, 1, 2])  # those out of curation, which is the Greedy method's
def test_the_exchange_is_the_authors(call):
    case = np.load(GOLDEN)
    assert not json.loads(str(case["meta"]))["modes"][call]["curation_mode"]
    fusion = fusions["mmtm_last"]({"0": 16, "1": 16}, 3, {"0": (16,), "1": (16,)})
    fusion.exchanges[0] = golden_exchange(case)
    x = {m: torch.from_numpy(case[f"in/{call}/{m}"]).requires_grad_() for m in ("0", "1")}
    found = fusion.exchange(0, {m: State(value) for m, value in x.items()})
    (found["0"].square().sum() + 2 * found["1"].square().sum()).backward()
    layers = fusion.exchanges[0]
    grads = {
        "in/0": x["0"],
        "in/1": x["1"],
        "fc_squeeze.weight": layers.squeeze.weight,
        "fc_squeeze.bias": layers.squeeze.bias,
        "fc_visual.weight": layers.excite["0"].weight,
        "fc_visual.bias": layers.excite["0"].bias,
        "fc_skeleton.weight": layers.excite["1"].weight,
        "fc_skeleton.bias": layers.excite["1"].bias,
    }
    compared = 0
    for m in ("0", "1"):
        torch.testing.assert_close(found[m], torch.from_numpy(case[f"out/{call}/{m}"]))
    for name in case.files:
        if name.startswith(f"grad/{call}/"):
            expected = torch.from_numpy(case[name])
            atol = 1e-5 * float(expected.abs().max())
            torch.testing.assert_close(grads[name.removeprefix(f"grad/{call}/")].grad, expected, rtol=1e-5, atol=atol)
            compared += 1
    assert compared == 8


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_the_equations_for_any_number_of_modalities(modalities):
    channels = dict(list({"a": 6, "b": 3, "c": 4, "d": 5}.items())[:modalities])
    places = {"a": (2, 3), "b": (2, 2, 2), "c": (5,), "d": (4, 1)}
    torch.manual_seed(modalities)
    fusion = fusions["mmtm_last"](dict.fromkeys(channels, 2), 3, {m: (c,) for m, c in channels.items()})
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter)
    states = {m: State(torch.randn(7, c, *places[m])) for m, c in channels.items()}
    padding = torch.arange(5).expand(7, 5) >= torch.tensor([[3], [5], [1], [2], [4], [5], [3]])
    if "c" in states:
        states["c"] = State(states["c"].x, padding)
    w = {n: p.detach().double().numpy() for n, p in fusion.exchanges[0].named_parameters()}
    assert w["squeeze.weight"].shape == (2 * sum(channels.values()) // 4, sum(channels.values()))
    for kept in (list(channels), list(channels)[1:]):
        found = fusion.exchange(0, {m: states[m] for m in kept})
        assert list(found) == kept
        for sample in range(7):
            s = []
            for m, c in channels.items():
                values = states[m].x[sample].double().numpy().reshape(c, -1)
                if states[m].padding is not None:
                    values = values[:, ~states[m].padding[sample].numpy()]
                s.append(values.mean(axis=1) if m in kept else np.zeros(c))
            e = np.maximum(w["squeeze.weight"] @ np.concatenate(s) + w["squeeze.bias"], 0)
            for m in kept:
                factor = 1 / (1 + np.exp(-(w[f"excite.{m}.weight"] @ e + w[f"excite.{m}.bias"])))
                expected = states[m].x[sample].double() * torch.from_numpy(factor).reshape(-1, *[1] * len(places[m]))
                torch.testing.assert_close(found[m][sample].double(), expected, rtol=1e-4, atol=1e-5)


def test_the_joint_logits_are_the_mean_of_the_classifiers():
    fusion = fusions["mmtm"]({"a": 2, "b": 1}, 2)
    with torch.no_grad():
        for m, weight, bias in (("a", [[1.0, 2.0], [0.0, 1.0]], [1.0, 0.0]), ("b", [[3.0], [-1.0]], [0.0, 2.0])):
            fusion.classifiers[m].weight.copy_(torch.tensor(weight))
            fusion.classifiers[m].bias.copy_(torch.tensor(bias))
    features = {"a": torch.tensor([[1.0, 1.0]]), "b": torch.tensor([[2.0]])}
    assert {m: z.tolist() for m, z in fusion.unimodal(features).items()} == {"a": [[4.0, 1.0]], "b": [[6.0, 0.0]]}
    assert fusion(features).tolist() == [[5.0, 0.5]]


@pytest.mark.parametrize("name", ["pictures", "texts"])
def test_at_the_last_tap_of_a_residual_network_it_scales_the_features(name):
    """Average pooling and the factors of channels commute, so that features alone would do."""
    model, inputs = network(name, "mmtm_last")
    plain, _ = network(name, "concat")
    model.eval(), plain.eval()
    with torch.no_grad():
        pooled, found = plain.encode(inputs), model.encode(inputs)
        factors = model.fusion.exchanges[0](pooled)
        for m in model.modalities:
            torch.testing.assert_close(found[m], pooled[m] * factors[m])


@pytest.mark.parametrize(
    ("name", "fusion", "taps"),
    [("pictures", "mmtm", 2), ("texts", "mmtm", 1), ("convnets", "mmtm", 3), ("convnets", "mmtm_last", 1)],
)
def test_as_many_taps_as_the_encoders_have(name, fusion, taps):
    model, inputs = network(name, fusion)
    assert {len(of) for of in model.taps.values()} == {taps} and len(model.fusion.exchanges) == taps
    model(inputs).logits.square().sum().backward()
    assert all(p.grad is not None for p in model.fusion.parameters())
