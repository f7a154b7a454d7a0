"""Every method with the fusions that join transformers inside: finite, and resumed exactly."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from pipeline_src.methods.base import methods
from pipeline_src.models.base import fusion_facts, fusions
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.methods.test_contract import FIRST
from tests.synthetic import SyntheticCache, encoder, setting, spec, stand_ins

CPU = torch.device("cpu")
STEPS = [fusion for fusion in fusions if fusion_facts(fusion).steps]
LAYOUTS = ("sequence", "tokens", "spectrogram")
SMALL = {"width": 8, "layers": 2, "heads": 2, "feedforward": 8, "dropout": 0.1, "pool": "class", "norm": "before"}
OWN = {"tokens": {"words": 50}, "spectrogram": {"patch": [6, 6]}, "sequence": {}}


def trainer(method: str, fusion: str, modalities: int) -> Trainer:
    cache = SyntheticCache(modalities, layouts=LAYOUTS)
    what = spec(cache, fusion, method, epochs=2)
    small = {m: encoder("transformer", **SMALL | OWN[about["layout"]]) for m, about in cache.modalities.items()}
    what = replace(what, encoders=small)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in ("train", "val", "test")}
    return Trainer(what, 0, cache, loaders, CPU, stand_ins(what, cache))


def cases() -> Iterator[tuple[str, str, int]]:
    """Both fusions with the methods of the first three papers, mbt with the others; three modalities with joint."""
    for method, fusion in itertools.product(methods, STEPS):
        plugin = methods[method]
        if plugin.refuses(plugin.Params(), setting(fusion, epochs=1000)) is None:
            if fusion == "mbt" or method in ("joint", *FIRST):
                yield method, fusion, 2
            if method in ("joint", "ogm"):
                yield method, fusion, 3


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("method", "fusion", "modalities"), list(cases()))
def test_contract(method, fusion, modalities):
    whole = trainer(method, fusion, modalities)
    whole.method.on_train_start(whole.context)
    before = {name: p.detach().clone() for name, p in whole.model.fusion.named_parameters()}
    rows = [whole.epoch(epoch) for epoch in range(2)]
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in rows)
    assert all(torch.isfinite(p).all() for p in whole.model.parameters())
    assert any(not torch.equal(p, before[name]) for name, p in whole.model.fusion.named_parameters())
    assert {"val_accuracy", "val_accuracy/m0", "val_accuracy/m1"} <= whole.score("val").keys()

    begun = trainer(method, fusion, modalities)
    begun.method.on_train_start(begun.context)
    begun.epoch(0)
    with pytest.raises(StopIteration):
        begun.epoch(1, iter([None]).__next__)  # ends after its second step
    resumed = trainer(method, fusion, modalities)
    tensors, position = begun.snapshot()
    resumed.restore({name: value.clone() for name, value in tensors.items()}, position)
    resumed.epoch(1)
    theirs = whole.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in resumed.state_dict().items())
