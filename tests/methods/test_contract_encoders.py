"""Every method with every encoder, and every fusion with it: finite, and resumed exactly."""

from dataclasses import replace

import pytest
import torch

from pipeline_src.methods.base import methods
from pipeline_src.models.base import fusion_refuses, fusions
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.models.test_encoders import EVERY
from tests.synthetic import SyntheticCache, encoder, setting, spec, stand_ins

CPU = torch.device("cpu")
SMALL = {
    ("resnet", "frames"): {"width": 4, "depth": [1, 1]},
    ("resnet", "spectrogram"): {"width": 4, "depth": [1, 1]},
    ("convnet", "frames"): {"width": 4, "features": 8},
    ("convnet", "spectrogram"): {"width": 4, "features": 8},
    ("transformer", "sequence"): {"width": 8, "layers": 1, "heads": 2, "feedforward": 8, "dropout": 0.1},
    ("transformer", "tokens"): {"width": 8, "layers": 1, "heads": 2, "feedforward": 8, "dropout": 0.1, "words": 50},
    ("embedding", "tokens"): {"words": 50, "width": 8},
}
for layout, patch in (("frames", [8, 8]), ("spectrogram", [6, 6])):  # the first stage is all that differs
    SMALL["transformer", layout] = {**SMALL["transformer", "sequence"], "patch": patch}


def fusion_for(method: str) -> str:
    """Concatenation, or else the first fusion that the method takes."""
    plugin = methods[method]
    taken = (f for f in ("concat", *fusions) if plugin.refuses(plugin.Params(), setting(f, epochs=1000)) is None)
    return next(taken)


def network(pair):
    """Encoders of both modalities."""
    return {"m0": encoder(pair[0], **SMALL[pair]), "m1": encoder("resnet", **SMALL["resnet", "spectrogram"])}


# Each method with each encoder that its fusion takes, and each fusion with each encoder. The residual network is in
# test_contract.
OTHERS = [pair for pair in SMALL if pair[0] != "resnet"]
PATCHES = [pair for pair in OTHERS if "patch" in SMALL[pair]]
PAIRS = [(method, fusion_for(method), pair) for method in methods for pair in OTHERS if pair not in PATCHES]
PAIRS += [("joint", fusion, pair) for fusion in fusions for pair in OTHERS if pair in PATCHES or fusion != "concat"]
PAIRS = [case for case in PAIRS if fusion_refuses(case[1], network(case[2])) is None]


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other are slower on networks this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_encoder_and_layout_is_here():
    assert set(SMALL) == set(EVERY)


def trainer(method, fusion, pair) -> Trainer:
    kind, layout = pair
    cache = SyntheticCache(2, layouts=(layout, "spectrogram"))
    what = spec(cache, fusion, method, epochs=2)
    what = replace(what, encoders={**what.encoders, "m0": encoder(kind, **SMALL[pair])})
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in ("train", "val", "test")}
    return Trainer(what, 0, cache, loaders, CPU, stand_ins(what, cache))


@pytest.mark.parametrize(
    ("method", "fusion", "pair"), PAIRS, ids=lambda part: part if isinstance(part, str) else "-".join(part)
)
def test_contract(method, fusion, pair):
    whole = trainer(method, fusion, pair)
    whole.method.on_train_start(whole.context)
    before = [p.clone() for p in whole.model.encoders["m0"].parameters()]
    rows = [whole.epoch(epoch) for epoch in range(2)]
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in rows)
    assert all(torch.isfinite(p).all() for p in whole.model.parameters())
    moved = [not torch.equal(a, b) for a, b in zip(before, whole.model.encoders["m0"].parameters(), strict=True)]
    assert any(moved), "nothing of the encoder was trained"

    begun = trainer(method, fusion, pair)
    begun.method.on_train_start(begun.context)
    begun.epoch(0)
    resumed = trainer(method, fusion, pair)
    resumed.load_state_dict({name: value.clone() for name, value in begun.state_dict().items()})
    resumed.epoch(1)
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_encoder_without_convolutions_is_said_where_only_they_are_scaled():
    run = trainer("ogm", "concat", ("embedding", "tokens"))
    run.method.params = run.method.params.model_copy(update={"weights": "conv"})
    with pytest.raises(
        Exception, match="expected the encoder of 'm0' to have such weights to train, but got none for 'conv'"
    ):
        run.epoch(0)
