"""CentralNet: its equations again in NumPy, its loss, and what removal leaves."""

import numpy as np
import pytest
import torch

from pipeline_src.models.base import fusions
from pipeline_src.models.fusions.base import Features
from pipeline_src.models.stages import State
from tests.methods.small import forward, run
from tests.models.test_taps import network

CHANNELS = {"a": (2, 6, 3), "b": (4, 4, 5), "c": (1, 2, 7)}
PLACES = {"a": (2, 3), "b": (2, 2, 2), "c": (5,)}


def by_hand(fusion, hidden: dict[str, list[np.ndarray]], every: list[str], sample: int) -> np.ndarray:
    """Joint logits (C,) of one sample; `hidden` holds the pooled states (B, C_m) of the kept modalities."""
    w = {name: p.detach().double().numpy() for name, p in fusion.named_parameters()}
    wide = [max(CHANNELS[m][tap] for m in every) for tap in range(3)]
    c = np.zeros(wide[0])
    for tap in range(3):
        s = w["mix"][tap, 0] * c
        for i, m in enumerate(every):
            if m in hidden:
                h = hidden[m][tap][sample]
                s[: len(h)] += w["mix"][tap, 1 + i] * h
        c = np.maximum(w[f"central.{tap}.weight"] @ s + w[f"central.{tap}.bias"], 0)
    return w["out.weight"] @ c + w["out.bias"]


@pytest.mark.parametrize("modalities", [2, 3])
def test_the_equations(modalities):
    every = list(CHANNELS)[:modalities]
    torch.manual_seed(modalities)
    dims = {"a": 2, "b": 3, "c": 4}
    fusion = fusions["centralnet"]({m: dims[m] for m in every}, 5, {m: CHANNELS[m] for m in every})
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter)
    padding = torch.arange(5).expand(7, 5) >= torch.tensor([[3], [5], [1], [2], [4], [5], [3]])
    states = {
        m: tuple(State(torch.randn(7, c, *PLACES[m]), padding if m == "c" else None) for c in CHANNELS[m])
        for m in every
    }
    features = {m: torch.randn(7, dims[m]) for m in every}
    for kept in (every, every[1:], every[:1], []):
        found = fusion(Features(features, {m: states[m] for m in kept}))
        pooled: dict[str, list[np.ndarray]] = {}
        for m in kept:
            pooled[m] = []
            for x, hidden in states[m]:
                values = x.double().flatten(2).numpy()
                real = np.ones(values[:, 0].shape, bool) if hidden is None else ~hidden.numpy()
                pooled[m].append(np.stack([v[:, r].mean(1) for v, r in zip(values, real, strict=True)]))
        for sample in range(7):
            expected = torch.from_numpy(by_hand(fusion, pooled, every, sample))
            torch.testing.assert_close(found[sample].double(), expected, rtol=1e-4, atol=1e-4)
    for m, z in fusion.unimodal(features).items():
        layer = fusion.classifiers[m]
        torch.testing.assert_close(z, features[m] @ layer.weight.T + layer.bias)


def test_the_loss_is_that_of_the_joint_and_of_every_unimodal_prediction():
    trainer = run("joint", "centralnet", 3)
    batch, features, output = forward(trainer)
    z = [output.logits, *trainer.model.fusion.unimodal(features).values()]
    expected = sum(torch.nn.functional.cross_entropy(part, batch.label) for part in z)
    torch.testing.assert_close(trainer.method.loss(trainer.context, output, batch)["loss"], expected)
    assert len(z) == 4


def test_every_weight_learns_and_one_modality_has_one_loss():
    trainer = run("joint", "centralnet")
    trainer.epoch(0)
    assert all(p.grad is not None and p.grad.any() for p in trainer.model.fusion.parameters())
    alone = run("joint", "centralnet", 1)
    batch, _, output = forward(alone)
    found = alone.method.loss(alone.context, output, batch)["loss"]
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(output.logits, batch.label))


def test_it_reads_and_changes_nothing():
    """Features and unimodal logits are those of the encoders by themselves."""
    model, inputs = network("mixed", "centralnet")
    plain, _ = network("mixed", "concat")
    model.eval(), plain.eval()
    with torch.no_grad():
        found, expected = model.encode(inputs), plain.encode(inputs)
        assert all(torch.equal(found[m], expected[m]) for m in expected)
        assert {len(states) for states in found.hidden.values()} == {1}  # the transformer has one tap
        without = model.predict(inputs, ["m0", "m2"])
        other = inputs | {"m1": inputs["m1"].flip(0)}
        assert torch.equal(model.predict(other, ["m0", "m2"]), without)
        assert not torch.allclose(model(other).logits, model(inputs).logits)
