"""Every method with the fusions and two to four modalities: finite, resumes exactly, sees joint training's batches."""

import itertools
from collections.abc import Iterator
from functools import cache

import pytest
import torch

from pipeline_src.methods.base import methods
from pipeline_src.models.base import fusion_facts, fusion_refuses, fusions
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.synthetic import KINDS, SyntheticCache, encoder, setting, spec, stand_ins

CPU = torch.device("cpu")
EPOCHS = 2
FIRST = ("ogm", "ogm_ge", "opm", "opm_ogm", "pmr", "relearning")  # of the first three papers


def trainer(method: str, fusion: str, modalities: int, seed: int = 0, **training) -> Trainer:
    cache = SyntheticCache(modalities)
    what = spec(cache, fusion, method, epochs=EPOCHS, **training)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in ("train", "val", "test")}
    return Trainer(what, seed, cache, loaders, CPU, stand_ins(what, cache))


@cache
def batches_of_joint(modalities: int) -> list[torch.Tensor]:
    """The inputs of joint training's first epoch, whatever the fusion is."""
    run = trainer("joint", "concat", modalities)
    run.method.on_train_start(run.context)
    return watched(run)[1]


def watched(run: Trainer) -> tuple[dict[str, float], list[torch.Tensor]]:
    """Train the first epoch: its row, and the inputs of the first pass over all samples."""
    seen, step = [], run.method.step

    def noted(ctx, batch):
        if ctx.epoch == 0 and ctx.phase == run.at.phases[0]:
            seen.extend(x.clone() for x in batch.inputs.values())
        step(ctx, batch)

    run.method.step = noted
    return run.epoch(0), seen


def works(method: str, fusion: str, modalities: int) -> bool:
    """Whether the method takes this fusion and so many modalities, in a run that is long enough for anything."""
    plugin, asked = methods[method], setting(fusion, modalities, epochs=1000)
    network = dict.fromkeys(asked.modalities, encoder(**KINDS["spectrogram"][2]))
    return fusion_refuses(fusion, network) is None and plugin.refuses(plugin.Params(), asked) is None


def kind(fusion: str) -> tuple:
    """What a method can tell of a fusion: where unimodal logits come from, if it is linear, what it does at taps, and
    what it is trained by.
    """
    facts = fusion_facts(fusion)
    return facts.unimodal_by(), facts.linear, facts.reads, facts.writes, facts.unimodal_loss


def cases() -> Iterator[tuple[str, str, int]]:
    """Two modalities: the methods of the first three papers with every fusion, the others with one of each kind that
    they take. Three: every method with a fusion of each kind. Four: with one fusion. And joint training with every
    fusion and number: two fusions of one kind are alike, as far as a method sees.
    """
    for method, modalities in itertools.product(methods, (2, 3, 4)):
        taken = [fusion for fusion in fusions if works(method, fusion, modalities)]
        if method == "joint" or (modalities == 2 and method in FIRST):
            chosen = taken
        else:
            chosen = list({kind(fusion): fusion for fusion in reversed(taken)}.values())
            chosen = chosen[-1:] if modalities == 4 else chosen
        yield from ((method, fusion, modalities) for fusion in chosen)


CASES = list(cases())


def test_every_method_and_every_fusion_has_a_case_of_each_number_that_it_takes():
    found = {(name, modalities) for method, fusion, modalities in CASES for name in (method, fusion)}
    every = itertools.product(methods, fusions, (2, 3, 4))
    taken = {(name, case[2]) for case in every if works(*case) for name in case[:2]}
    assert found == taken and {method for method, _, _ in CASES} == set(methods)


@pytest.mark.parametrize(("method", "fusion", "modalities"), CASES)
def test_contract(method, fusion, modalities):
    whole = trainer(method, fusion, modalities)
    whole.method.on_train_start(whole.context)
    first, seen = watched(whole)
    rows = [first, *(whole.epoch(epoch) for epoch in range(1, EPOCHS))]
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in rows)
    assert all(torch.isfinite(p).all() for p in whole.model.parameters())
    assert all("loss" in row for row in rows)  # the log, the check for divergence and the plots of training read it
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
    for ours, theirs in zip(seen, batches_of_joint(modalities), strict=True):
        assert torch.equal(ours, theirs)
