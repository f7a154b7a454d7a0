"""AMST: what is trained in which epoch, in both modes; periods of 1 are MLA and joint training bit for bit."""

import pytest
import torch

from pipeline_src.methods.amst import AMST
from pipeline_src.methods.base import methods
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.synthetic import SyntheticCache, setting, spec

CPU = torch.device("cpu")


def trainer(method: str, params: dict, fusion: str = "shared", modalities: int = 2) -> Trainer:
    cache = SyntheticCache(modalities)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in ("train", "val", "test")}
    return Trainer(spec(cache, fusion, method, params, epochs=4), 0, cache, loaders, CPU)


def same(first: Trainer, second: Trainer) -> bool:
    pairs = zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    return all(torch.equal(p, q) for p, q in pairs)


@pytest.mark.parametrize(
    ("params", "fusion", "other", "settings"),
    [
        ({}, "shared", "mla", {"fusion": "mean"}),
        ({"mode": "joint"}, "concat", "joint", {}),
        ({"mode": "joint"}, "gated", "joint", {}),
    ],
)
def test_periods_of_one(params, fusion, other, settings):
    ours, theirs = trainer("amst", params, fusion, 3), trainer(other, settings, fusion, 3)
    for epoch in (0, 1):
        ours.epoch(epoch), theirs.epoch(epoch)
    assert same(ours, theirs)
    assert ours.score("val")["val_accuracy"] == theirs.score("val")["val_accuracy"]


@pytest.mark.parametrize(("mode", "fusion"), [("alternating", "shared"), ("joint", "shared"), ("joint", "film")])
def test_a_modality_is_trained_in_its_epochs_only(mode, fusion):
    run = trainer("amst", {"mode": mode, "period": {"m0": 3, "m1": 1, "m2": 2}}, fusion, 3)
    trained, steps, backwards, forwards = [], [], [], []
    for epoch in range(4):
        before = {m: [p.clone() for p in encoder.parameters()] for m, encoder in run.model.encoders.items()}
        run.epoch(epoch)
        now = {m: list(encoder.parameters()) for m, encoder in run.model.encoders.items()}
        trained.append([m for m in now if not all(map(torch.equal, before[m], now[m]))])
        ctx = run.context
        steps.append(ctx.step), backwards.append(ctx.reached), forwards.append(ctx.encoded)
    assert trained == [["m0", "m1", "m2"], ["m1"], ["m1", "m2"], ["m0", "m1"]]
    assert backwards == [26 * n for n in (3, 4, 6, 8)]
    assert steps == ([12, 16, 24, 32] if mode == "alternating" else [4, 8, 12, 16])
    assert forwards == (backwards if mode == "alternating" else [78, 156, 234, 312])


def test_the_prediction_is_the_mean_of_the_classifiers():
    run = trainer("amst", {}, modalities=3)
    features = {m: torch.randn(4, d) for m, d in run.model.fusion.dims.items()}
    parts = run.method.unimodal(run.model, features)
    torch.testing.assert_close(run.method.logits(run.model, features), torch.stack(list(parts.values())).mean(dim=0))
    joint = trainer("amst", {"mode": "joint"}, modalities=3).method.unimodal(run.model, features)
    torch.testing.assert_close(joint["m1"] * 3, parts["m1"])


def test_it_refuses():
    refuses, params = methods["amst"].refuses, AMST.Params
    assert refuses(params(), setting("shared", 4)) is None
    assert refuses(params(mode="joint"), setting("concat")) is None
    assert "shared" in refuses(params(), setting("concat"))
    assert "hidden states" in refuses(params(mode="joint"), setting("mmtm"))
    assert "two modalities" in refuses(params(), setting("shared", 1))
    assert "but got audio" in refuses(params(period={"audio": 2}), setting("shared"))
    assert "period of 1" in refuses(params(period={"m0": 2, "m1": 3}), setting("shared"))
