"""Every method with every fusion and two to four modalities: finite, resumes exactly, sees joint training's batches."""

import pytest
import torch

from pipeline_src.methods.base import methods
from pipeline_src.models.base import fusions
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.synthetic import SyntheticCache, spec

CPU = torch.device("cpu")
EPOCHS = 2


def trainer(method: str, fusion: str, modalities: int, seed: int = 0, **training) -> Trainer:
    cache = SyntheticCache(modalities)
    what = spec(cache, fusion, method, epochs=EPOCHS, **training)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in ("train", "val", "test")}
    return Trainer(what, seed, cache, loaders, CPU)


def batches_seen(run: Trainer) -> list[torch.Tensor]:
    """Train an epoch and note the inputs that the encoders learned from."""
    seen, encode = [], run.model.encode
    run.model.encode = lambda inputs: (seen.extend(inputs.values() if run.model.training else []), encode(inputs))[1]
    run.method.on_train_start(run.context)
    run.epoch(0)
    run.model.encode = encode
    return [x.clone() for x in seen]


@pytest.mark.parametrize("modalities", [2, 3, 4])
@pytest.mark.parametrize("fusion", list(fusions))
@pytest.mark.parametrize("method", list(methods))
def test_contract(method, fusion, modalities):
    whole = trainer(method, fusion, modalities)
    whole.method.on_train_start(whole.context)
    rows = [whole.epoch(epoch) for epoch in range(EPOCHS)]
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in rows)
    assert all(torch.isfinite(p).all() for p in whole.model.parameters())
    logged = {(name, bool(m)) for row in rows for name, _, m in (key.partition("/") for key in row)}
    declared = {(quantity.name, quantity.of == "modality") for quantity in methods[method].quantities}
    assert logged - {(name, False) for name in ("epoch", "lr", "seconds", "loss")} <= declared

    begun = trainer(method, fusion, modalities)
    begun.method.on_train_start(begun.context)
    begun.epoch(0)
    with pytest.raises(StopIteration):
        begun.epoch(1, iter([None]).__next__)  # ends after its second step
    resumed = trainer(method, fusion, modalities)
    tensors, position = begun.snapshot()
    resumed.restore({name: value.clone() for name, value in tensors.items()}, position)
    row = resumed.epoch(1)
    assert {k: v for k, v in row.items() if k != "seconds"} == {k: v for k, v in rows[1].items() if k != "seconds"}
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    pairs = zip(
        batches_seen(trainer(method, fusion, modalities)),
        batches_seen(trainer("joint", fusion, modalities)),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)
