"""Every method with every fusion and two to four modalities: finite, resumes exactly, sees joint training's batches."""

import itertools

import pytest
import torch

from pipeline_src.methods.base import methods
from pipeline_src.models.base import fusion_refuses, fusions
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.synthetic import KINDS, SyntheticCache, encoder, setting, spec, stand_ins

CPU = torch.device("cpu")
EPOCHS = 2


def trainer(method: str, fusion: str, modalities: int, seed: int = 0, **training) -> Trainer:
    cache = SyntheticCache(modalities)
    what = spec(cache, fusion, method, epochs=EPOCHS, **training)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in ("train", "val", "test")}
    return Trainer(what, seed, cache, loaders, CPU, stand_ins(what, cache))


def batches_seen(run: Trainer) -> list[torch.Tensor]:
    """Train an epoch and note the inputs of the first pass over all samples."""
    seen, step = [], run.method.step

    def noted(ctx, batch):
        if ctx.phase == run.at.phases[0]:
            seen.extend(x.clone() for x in batch.inputs.values())
        step(ctx, batch)

    run.method.step = noted
    run.method.on_train_start(run.context)
    run.epoch(0)
    return seen


def works(method: str, fusion: str, modalities: int) -> bool:
    """Whether the method takes this fusion and so many modalities, in a run that is long enough for anything."""
    plugin, asked = methods[method], setting(fusion, modalities, epochs=1000)
    network = dict.fromkeys(asked.modalities, encoder(**KINDS["spectrogram"][2]))
    return fusion_refuses(fusion, network) is None and plugin.refuses(plugin.Params(), asked) is None


CASES = [case for case in itertools.product(methods, fusions, (2, 3, 4)) if works(*case)]


def test_every_method_has_a_case():
    assert {method for method, _, _ in CASES} == set(methods)


@pytest.mark.parametrize(("method", "fusion", "modalities"), CASES)
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

    if whole.method.samples(whole.context) is not None:
        return  # it chooses what it sees
    pairs = zip(
        batches_seen(trainer(method, fusion, modalities)),
        batches_seen(trainer("joint", fusion, modalities)),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)
