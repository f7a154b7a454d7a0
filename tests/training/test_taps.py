"""Fusions that read or write hidden states, through the loop and evaluation: training, exact resume, whose weights a
method changes, and removal in the tables.
"""

import functools

import numpy as np
import pytest
import torch

from pipeline_src.evaluation import run as evaluation
from pipeline_src.evaluation.metrics import contributions
from pipeline_src.methods.base import methods
from pipeline_src.models.fusions.base import only
from pipeline_src.tasks.base import tasks
from pipeline_src.training.assemble import Assembly
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.models.tapped import READS, WRITES
from tests.synthetic import SyntheticCache, spec

CPU = torch.device("cpu")
EPOCHS = 3
PARAMS = {
    "joint": {},
    "ogm": {"alpha": 0.9},
    "ogm_ge": {},
    "opm": {"q_base": 0.9},
    "opm_ogm": {},
    "pmr": {"momentum": 0.5},
    "relearning": {"every": 1, "times": 1},
}
LAYOUTS = {2: ("spectrogram", "frames"), 3: ("frames", "sequence", "tokens")}


def trainer(method: str, fusion: str, modalities: int = 2) -> Trainer:
    cache = SyntheticCache(modalities, layouts=LAYOUTS[modalities])
    how = spec(cache, fusion, method, PARAMS[method], epochs=EPOCHS, lr=0.01)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in ("train", "val", "test")}
    run = Trainer(how, 0, cache, loaders, CPU)
    run.method.on_train_start(run.context)
    return run


def test_the_methods_of_the_first_papers_are_here():
    assert set(PARAMS) <= set(methods) and len(PARAMS) >= 7


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("fusion", [READS, WRITES])
@pytest.mark.parametrize("method", list(PARAMS))
def test_trains_and_resumes_exactly(method, fusion, modalities):
    whole = trainer(method, fusion, modalities)
    before = {name: p.clone() for name, p in whole.model.named_parameters()}
    rows = [whole.epoch(epoch) for epoch in range(EPOCHS)]
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in rows)
    assert all(not torch.equal(p, before[name]) for name, p in whole.model.fusion.named_parameters("fusion"))

    begun = trainer(method, fusion, modalities)
    begun.epoch(0)
    with pytest.raises(StopIteration):
        begun.epoch(1, iter([None]).__next__)  # ends after its second step
    resumed = trainer(method, fusion, modalities)
    tensors, position = begun.snapshot()
    resumed.restore({name: value.clone() for name, value in tensors.items()}, position)
    again = [resumed.epoch(epoch) for epoch in range(1, EPOCHS)]
    times = ("seconds", "diagnosis_seconds")
    bare = [[{k: v for k, v in row.items() if k not in times} for row in of] for of in (again, rows[1:])]
    assert bare[0] == bare[1]
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert resumed.score("val") == whole.score("val")


def gradients_of_a_step(method: str, fusion: str) -> tuple[Trainer, dict[str, torch.Tensor]]:
    run = trainer(method, fusion)
    run.model.train()
    run.context.start_epoch(0)
    run.method.before_epoch(run.context)
    batch = next(run.loaders["train"].batches(8))
    run.method.step(run.context, batch._replace(inputs=run.transform(batch.inputs)))
    return run, {name: p.grad.clone() for name, p in run.model.named_parameters()}


@pytest.mark.parametrize("fusion", [READS, WRITES])
def test_ogm_scales_encoders_and_never_the_exchange(fusion):
    _, joint = gradients_of_a_step("joint", fusion)
    run, ogm = gradients_of_a_step("ogm", fusion)
    k = {m: float(run.context.sums[f"coefficient/{m}"]) for m in run.model.modalities}
    assert min(k.values()) < 1 and max(k.values()) == 1, k
    for name, gradient in joint.items():
        _, m, *_ = name.split(".")
        factor = k[m] if name.startswith("encoders.") and gradient.dim() > 1 else 1.0
        torch.testing.assert_close(ogm[name], factor * gradient, rtol=1e-5, atol=1e-8, msg=name)
    assert any(name.startswith("fusion.squeezes" if fusion == WRITES else "fusion.maps") for name in joint)


@pytest.mark.parametrize("fusion", [READS, WRITES])
def test_relearning_resets_encoders_and_never_the_exchange(fusion):
    run = trainer("relearning", fusion)
    run.method.params = run.method.params.model_copy(update={"strength": float("inf")})
    initial = {name: p.clone() for name, p in run.model.named_parameters()}
    run.epoch(0), run.epoch(1)
    trained = {name: p.clone() for name, p in run.model.named_parameters()}
    run.context.start_epoch(2)
    run.method.before_epoch(run.context)
    for name, p in run.model.named_parameters():
        assert torch.equal(p, (initial if name.startswith("encoders.") else trained)[name]), name
        assert not torch.equal(initial[name], trained[name]), name


@pytest.mark.parametrize("fusion", [READS, WRITES])
def test_opm_drops_features_after_the_last_exchange(fusion):
    """And leaves what the fusion reads of the encoders, as it does what the modality has told the others."""
    run = trainer("opm", fusion)
    seen = {}
    fusion_of = run.model.fusion

    def noting(features):
        seen.update(features=features)
        return type(fusion_of).forward(fusion_of, features)

    fusion_of.forward = noting
    run.model.train()
    run.method.next_q = torch.tensor([1.0, 0.0])
    batch = next(run.loaders["train"].batches(8))
    batch = batch._replace(inputs=run.transform(batch.inputs))
    run.method.step(run.context, batch)
    features = seen["features"]
    assert not features["m0"].any() and features["m1"].any()
    if fusion == READS:
        assert all(state.x.any() for state in features.hidden["m0"])
    else:
        run.model.eval()
        with torch.no_grad():
            whole = run.model.encode(batch.inputs)
            assert not torch.allclose(only(whole, ["m1"])["m1"], run.model.encode(batch.inputs, ["m1"])["m1"])


def views(run: Trainer, split: str = "val"):
    """Logits and contributions of a split, as evaluation makes them, in batches of 4."""
    loader = run.loaders[split]

    def encoded(kept=None):
        for batch in loader.batches(4):
            yield run.model.encode(run.transform(batch.inputs), kept)

    built = Assembly(run.model, run.method, tasks["classification"](3))
    predict = functools.partial(evaluation._logits, built, evaluation.joined(encoded()), encoded)
    with torch.no_grad():
        return evaluation._views(built, predict, loader.label)


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("fusion", [READS, WRITES, "mmtm", "concat"])
def test_evaluation_encodes_again_without_a_modality(fusion, modalities):
    run = trainer("joint", fusion, modalities)
    run.epoch(0)
    run.model.eval()
    loader = run.loaders["val"]
    label = loader.label.numpy()
    every = tuple(run.model.modalities)
    logits, worth = views(run)
    inputs = run.transform(next(loader.batches(len(loader))).inputs)

    @functools.cache
    def expected(kept: tuple[str, ...]) -> np.ndarray:
        with torch.no_grad():
            return run.model.predict(inputs, kept).numpy()

    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(logits["fused"], expected(every))
    for m in every:
        close(logits[f"{m}/removal"], expected((m,)))
        zeroed = run.model.fusion(only(run.model.encode(inputs), (m,))).detach().numpy()
        assert np.allclose(logits[f"{m}/removal"], zeroed, atol=1e-4) is (fusion not in (WRITES, "mmtm"))
    assert worth == contributions(list(every), lambda kept: float((expected(tuple(kept)).argmax(1) == label).mean()))


def test_a_view_that_a_fusion_does_not_support_is_left_out():
    run = trainer("joint", "concat")
    run.model.fusion.views = ("unimodal",)
    logits, worth = views(run)
    assert set(logits) == {"fused", "m0/unimodal", "m1/unimodal"} and worth == {}
    run.model.fusion.views = ("contributions",)
    logits, worth = views(run)
    assert set(logits) == {"fused"} and set(worth) == {"m0", "m1"}
