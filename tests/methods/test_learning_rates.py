"""MSLR and MSES: the factors and the epochs that come back in AGM's repository; what is scaled and what is restored."""

import pytest
import torch

from pipeline_src.methods.learning_rates import Stopping, progress, smoothed
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.methods import golden
from tests.synthetic import SyntheticCache, spec

CPU = torch.device("cpu")


def trainer(name: str, params: dict, fusion: str = "concat", epochs: int = 6, modalities: int = 2) -> Trainer:
    cache = SyntheticCache(modalities)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in ("train", "val", "test")}
    run = Trainer(spec(cache, fusion, name, params, epochs=epochs), 0, cache, loaders, CPU)
    run.method.on_train_start(run.context)
    return run


def test_the_factors_of_mslr():
    arrays, _ = golden.load("mslr_mses_1")
    accuracy = arrays["accuracy"].double()
    ours = torch.stack([progress(accuracy[: e + 1]) for e in range(len(accuracy))])
    assert golden.apart(ours, arrays["mslr"]) < 1e-6


def test_when_mses_stops_and_what_comes_back():
    arrays, meta = golden.load("mslr_mses_1")
    stopping, rates, restored = Stopping(["audio", "visual"], meta["mses"]["patience"]), [], []
    for epoch, loss in enumerate(arrays["loss"][: meta["mses"]["ended"]].tolist()):
        _, back = stopping.update(epoch, dict(zip(stopping.names, loss, strict=True)))
        if back is not None:
            restored.append([epoch + 1, stopping.at[back] + 1])  # theirs count from 1
        rates.append([float(not done) for done in stopping.finished.values()])
    assert restored == meta["mses"]["restored"]
    assert torch.equal(torch.tensor(rates), arrays["mses"].float())


def test_the_first_loss_is_not_smoothed():
    assert smoothed(float("nan"), 3.0) == 3.0 and smoothed(1.0, 3.0) == pytest.approx(1.8)


@pytest.mark.parametrize("fusion", ["concat", "sum", "gated"])
def test_a_rate_of_zero_leaves_a_modality_alone_and_one_is_joint_training(fusion):
    run, joint = trainer("mslr", {}, fusion), trainer("joint", {}, fusion)
    run.epoch(0), joint.epoch(0)
    assert all(torch.equal(p, q) for p, q in zip(run.model.parameters(), joint.model.parameters(), strict=True))
    run = trainer("mslr", {"initial": {"m0": 0.0}}, fusion)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.epoch(0)
    moved = {name for name, p in run.model.named_parameters() if not torch.equal(p, before[name])}
    assert not any(name.startswith("encoders.m0") for name in moved)
    assert any(name.startswith("encoders.m1") for name in moved)


def test_a_finished_modality_goes_back_and_stays(monkeypatch):
    run = trainer("mses", {"patience": 1}, epochs=5)
    losses = iter([{"m0": x, "m1": 1 / (i + 1)} for i, x in enumerate([1.0, 2.0, 3.0, 4.0, 5.0])])
    update = Stopping.update
    monkeypatch.setattr(Stopping, "update", lambda self, epoch, _: update(self, epoch, next(losses)))
    run.epoch(0)
    best = {name: p.detach().clone() for name, p in run.model.encoders["m0"].named_parameters()}
    run.epoch(1)
    run.epoch(2)  # two epochs after its best: finished
    assert run.method.stopping.finished == {"m0": True, "m1": False}
    run.epoch(3)
    now = dict(run.model.encoders["m0"].named_parameters())
    assert all(torch.equal(now[name], value) for name, value in best.items())
    assert "m0" not in run.method.saved


@pytest.mark.parametrize("name", ["mslr", "mses"])
def test_resumed_late_it_goes_on_exactly(name):
    params = {"patience": 1} if name == "mses" else {"initial": {"m1": 1.5}}
    whole, begun, resumed = (trainer(name, params, epochs=9) for _ in range(3))
    rows = [whole.epoch(e) for e in range(9)]
    for e in range(7):
        begun.epoch(e)
    tensors, position = begun.snapshot()
    resumed.restore({key: value.clone() for key, value in tensors.items()}, position)
    for e in (7, 8):
        row = resumed.epoch(e)
        assert {k: v for k, v in row.items() if k != "seconds"} == {k: v for k, v in rows[e].items() if k != "seconds"}
    assert all(torch.equal(a, b) for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True))


def test_permuting_the_modalities_permutes_the_factors():
    accuracy = torch.rand(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(progress(accuracy)[[2, 0, 1]], progress(accuracy[:, [2, 0, 1]]))
