"""MBT: the whole model again in NumPy, for two and three modalities, and what removal leaves."""

import numpy as np
import pytest
import torch

from pipeline_src.models.base import encoders, fusion_refuses, fusions
from pipeline_src.models.multimodal import MultimodalModel, build
from tests.models import attention
from tests.synthetic import SyntheticCache

PUBLISHED = {"pool": "class", "norm": "before", "activation": "gelu"}
LAYOUTS = ("sequence", "spectrogram", "tokens")
OWN = {"tokens": {"words": 50}, "spectrogram": {"patch": [6, 5]}, "sequence": {}}
HEADS, WIDTH = 2, 8


def network(
    modalities: int, layers: int = 3, fusion: str = "mbt", **how
) -> tuple[MultimodalModel, dict[str, torch.Tensor], SyntheticCache]:
    """A model of transformers without dropout, every weight drawn, and a batch of 6 samples."""
    cache = SyntheticCache(modalities, layouts=LAYOUTS)
    small = {"kind": "transformer", "width": WIDTH, "layers": layers, "heads": HEADS, "feedforward": 12, "dropout": 0.0}
    params = {
        m: encoders["transformer"].Params(**small | OWN[info["layout"]] | how) for m, info in cache.modalities.items()
    }
    model = build(params, fusion, cache.modalities, 3, seed=0)
    torch.manual_seed(1)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    rows = cache.rows("train")[:6]
    inputs = {m: torch.from_numpy(cache.gather(m, rows)) for m in cache.modalities}
    inputs = {m: x.long() if cache.modalities[m]["layout"] == "tokens" else x.float() for m, x in inputs.items()}
    return model.eval(), inputs, cache


def by_hand(model: MultimodalModel, inputs, kept: list[str], sample: int, joined: int, before: bool) -> dict:
    """Logits {m: (C,)} of the kept modalities of one sample; the last `joined` layers share tokens."""
    inside = attention.gelu if before else attention.relu
    h, hidden = {}, {}
    for m in kept:
        steps, padding = model.encoders[m].read(inputs[m])
        h[m], hidden[m] = steps[sample].detach().double().numpy(), padding[sample].numpy()
    tokens = model.fusion.tokens.detach().double().numpy().T
    names = [name for name, _ in model.encoders[kept[0]].named_children() if name.startswith("layer")]
    for i, name in enumerate(names):
        after = []
        for m in kept:
            layer, count = getattr(model.encoders[m], name), len(h[m])
            if i < len(names) - joined:
                h[m] = attention.layer(h[m], hidden[m], layer, HEADS, before, inside)
                continue
            both = np.concatenate([h[m], tokens])
            out = attention.layer(both, np.append(hidden[m], [False] * len(tokens)), layer, HEADS, before, inside)
            h[m] = out[:count]
            after.append(out[count:])
        tokens = np.mean(after, axis=0) if after else tokens
    found = {}
    for m in kept:
        f = h[m][0] if before else h[m][~hidden[m]].mean(0)
        if before:
            f = attention.norm(f[None], attention.weights(model.encoders[m]), f"{names[-1]}.norm")[0]
        found[m] = attention.linear(f, attention.weights(model.fusion), "classifier")
    return found


@pytest.mark.parametrize("how", [PUBLISHED, {"pool": "mean"}], ids=["published", "plain"])
@pytest.mark.parametrize(("modalities", "layers", "joined"), [(2, 3, 2), (3, 2, 1), (2, 6, 4)])
def test_the_equations(modalities, layers, joined, how):
    model, inputs, _ = network(modalities, layers, **how)
    every = model.modalities
    assert len(model.taps["m0"]) == joined + 1 and model.fusion.tokens.shape == (WIDTH, 4)
    with torch.no_grad():
        for kept in (every, every[1:], every[:1]):
            found, features = model.predict(inputs, kept), model.encode(inputs, kept)
            unimodal = model.fusion.unimodal(features)
            for sample in range(6):
                expected = by_hand(model, inputs, kept, sample, joined, how is PUBLISHED)
                constant = model.fusion.classifier.bias.double().numpy()  # features of zero
                z = [expected.get(m, constant) for m in every]
                close = {"rtol": 1e-3, "atol": 1e-4}
                torch.testing.assert_close(found[sample].double(), torch.from_numpy(np.mean(z, axis=0)), **close)
                for m in kept:
                    torch.testing.assert_close(unimodal[m][sample].double(), torch.from_numpy(expected[m]), **close)


def test_features_know_the_other_modalities_and_a_removed_one_tells_nothing():
    model, inputs, _ = network(3, **PUBLISHED)
    other = inputs | {"m0": inputs["m0"].flip(0)}
    with torch.no_grad():
        assert not torch.allclose(model.encode(other)["m1"], model.encode(inputs)["m1"])
        assert torch.equal(model.predict(other, ["m1", "m2"]), model.predict(inputs, ["m1", "m2"]))


def test_every_weight_learns():
    model, inputs, _ = network(3, **PUBLISHED)
    model.train()
    model(inputs).logits.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.fusion.tokens.grad.any()


def test_one_modality_shares_no_tokens():
    model, inputs, _ = network(1, **PUBLISHED)
    assert model.taps == {} and [name for name, _ in model.fusion.named_parameters()] == [
        "classifier.weight",
        "classifier.bias",
    ]
    assert torch.equal(model(inputs).logits, model.fusion.unimodal(model.encode(inputs))["m0"])


def test_encoders_that_do_not_suit_are_refused():
    def params(kind="transformer", width=8, layers=2):
        own = {"heads": 2, "feedforward": 8} if kind == "transformer" else {}
        return encoders[kind].Params(**{"width": width} | ({"layers": layers} if own else {"depth": [1, 1]}) | own)

    def refusal(second, fusion="mbt"):
        return fusion_refuses(fusion, {"a": params(), "b": second})

    assert refusal(params()) is None and fusion_refuses("mbt", {"a": params("resnet")}) is None
    assert refusal(params("resnet")) == (
        "expected encoders of steps (embedding, transformer) for fusion 'mbt', but got 'resnet' for b"
    )
    assert refusal(params(layers=1)) == "expected encoders with 2 taps or more for fusion 'mbt', but got 1 in b"
    assert refusal(params(width=4)) == "expected encoders of one width for fusion 'mbt', but got 8 for a, 4 for b"
    assert refusal(params(layers=1), "mult") is None
    assert "mbt" in fusions and "mult" in fusions
