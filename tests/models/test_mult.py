"""MulT: the crossmodal transformers and the rest again in NumPy, on sequences of different lengths."""

import numpy as np
import pytest
import torch

from pipeline_src.models.base import fusions
from pipeline_src.models.stages import State
from pipeline_src.models.steps import sine
from tests.models import attention
from tests.models.test_mbt import network

WIDTH, CLASSES = 10, 3
LENGTHS = {"a": 4, "b": 7, "c": 3}


def made(modalities: int):
    """The fusion with every weight drawn, states of 5 samples, and what of them is padding."""
    every = list(LENGTHS)[:modalities]
    fusion = fusions["mult"](dict.fromkeys(every, WIDTH), CLASSES, dict.fromkeys(every, (WIDTH,)))
    torch.manual_seed(modalities)
    for p in fusion.parameters():
        torch.nn.init.normal_(p, std=0.3)
    states = {}
    for m in every:
        padding = torch.rand(5, LENGTHS[m]) < 0.3
        padding[:, 0] = False
        states[m] = State(torch.randn(5, WIDTH, LENGTHS[m]), padding)
    return fusion.eval(), states


def cross(x: np.ndarray, other: np.ndarray | None, hidden: np.ndarray, module) -> np.ndarray:
    """A stack of crossmodal layers on one sample."""

    def placed(h):
        return np.sqrt(h.shape[1]) * h + sine(*h.shape).double().numpy()

    x, key = placed(x), None if other is None else placed(other)
    for part in module.layers:
        w = attention.weights(part)
        query = attention.norm(x, w, "norm1")
        seen = query if key is None else attention.norm(key, w, "norm1")
        heads = 5
        x = x + attention.attention(query, seen, hidden, w, "attention", heads)
        inner = attention.relu(attention.linear(attention.norm(x, w, "norm2"), w, "feedforward.0"))
        x = x + attention.linear(inner, w, "feedforward.3")
    return attention.norm(x, attention.weights(module), "norm")


@pytest.mark.parametrize("modalities", [2, 3])
def test_the_exchange(modalities):
    fusion, states = made(modalities)
    every = list(states)
    assert [len(fusion.cross["a"]["b"].layers), len(fusion.memory["a"].layers)] == [5, 3]
    for kept in (every, every[1:], every[:1]):
        with torch.no_grad():
            found = fusion.exchange(0, {m: states[m] for m in kept})
        assert list(found) == kept
        for m in kept:
            assert torch.equal(found[m].padding, states[m].padding)
            for sample in range(5):
                x = {j: states[j].x[sample].double().numpy().T for j in kept}
                hidden = {j: states[j].padding[sample].numpy() for j in kept}
                parts = [
                    cross(x[m], x[j], hidden[j], fusion.cross[m][j]) if j in kept else np.zeros_like(x[m])
                    for j in every
                    if j != m
                ]
                expected = cross(np.concatenate(parts, axis=1), None, hidden[m], fusion.memory[m])
                real = ~states[m].padding[sample]
                torch.testing.assert_close(
                    found[m].x[sample].double().T[real], torch.from_numpy(expected)[real], rtol=1e-3, atol=1e-3
                )


@pytest.mark.parametrize("modalities", [2, 3])
def test_the_prediction_and_its_unimodal_logits(modalities):
    fusion, states = made(modalities)
    every, w = list(states), attention.weights(fusion)
    wide = (modalities - 1) * WIDTH
    assert fusion.dims == dict.fromkeys(every, wide)
    features = {m: torch.randn(5, wide) for m in every}

    def expected(kept):
        v = np.concatenate([f.double().numpy() * (m in kept) for m, f in features.items()], axis=1)
        v = v + attention.linear(attention.relu(attention.linear(v, w, "inner")), w, "outer")
        return torch.from_numpy(attention.linear(v, w, "out"))

    with torch.no_grad():
        close = {"rtol": 1e-3, "atol": 1e-4}
        torch.testing.assert_close(fusion(features).double(), expected(every), **close)
        for m, z in fusion.unimodal(features).items():
            torch.testing.assert_close(z.double(), expected([m]), **close)


def test_a_removed_modality_is_not_encoded_and_its_features_are_zero():
    """The whole model, against its encoders' stages, the exchange and the prediction one by one."""
    model, inputs, _ = network(3, layers=0, fusion="mult", pool="last", positions="none")
    assert model.taps == dict.fromkeys(model.modalities, ("read",))
    with torch.no_grad():
        for kept in (["m0", "m1", "m2"], ["m1", "m2"], ["m0"], []):
            read = {m: model.encoders[m].read(inputs[m]) for m in kept}
            exposed = {m: model.encoders[m].expose(state) for m, state in read.items()}
            written = model.fusion.exchange(0, exposed) if kept else {}
            features = {m: torch.zeros(6, 16) for m in model.modalities}
            for m, state in written.items():
                last = [int((~hidden).nonzero().max()) for hidden in state.padding]
                features[m] = state.x[torch.arange(6), :, last]
            torch.testing.assert_close(model.predict(inputs, kept), model.fusion(features))
        other = inputs | {"m0": inputs["m0"].flip(0)}
        assert torch.equal(model.predict(other, ["m1", "m2"]), model.predict(inputs, ["m1", "m2"]))
        assert not torch.allclose(model.encode(other)["m1"], model.encode(inputs)["m1"])


def test_one_modality_is_a_linear_classifier():
    fusion = fusions["mult"]({"a": WIDTH}, CLASSES)
    f = torch.randn(5, WIDTH)
    assert torch.equal(fusion({"a": f}), fusion.out(f))
    assert len(list(fusion.parameters())) == 2


def test_dropout_is_on_in_training_alone():
    fusion, states = made(2)
    with torch.no_grad():
        assert torch.equal(fusion.exchange(0, states)["a"].x, fusion.exchange(0, states)["a"].x)
        fusion.train()
        assert not torch.equal(fusion.exchange(0, states)["a"].x, fusion.exchange(0, states)["a"].x)
