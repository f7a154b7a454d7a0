"""Observers change nothing, bit for bit, and their numbers are those of a plain computation."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from pipeline_src.core.errors import UserError
from pipeline_src.methods.base import Setting, methods
from pipeline_src.methods.relearning import assign, purity
from pipeline_src.observers.base import SECONDS, Observer, ObserverParams, observers
from pipeline_src.tasks.base import tasks
from pipeline_src.training import observe
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from pipeline_src.training.observe import Between, Observers
from tests.synthetic import SPLITS, SyntheticCache, setting, spec, stand_ins
from tests.tasks import tasked

CPU = torch.device("cpu")
EVERY = {name: observers[name].Params() for name in observers}


def make(method: str = "joint", fusion: str = "concat", modalities: int = 2, **training) -> Trainer:
    """A run with every observer."""
    cache = SyntheticCache(modalities)
    what = replace(spec(cache, fusion, method, **{"epochs": 2, **training}), observers=EVERY)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in SPLITS}
    trainer = Trainer(what, 0, cache, loaders, CPU, stand_ins(what, cache))
    trainer.method.on_train_start(trainer.context)
    return trainer


def train(trainer: Trainer, seeing: Observers | None) -> list[dict]:
    rows = []
    for epoch in range(trainer.schedule.epochs):
        row = trainer.epoch(epoch) | trainer.score("val")
        rows.append(row | (seeing.observe(epoch) if seeing else {}))
        del row["seconds"]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def declared() -> set[str]:
    return {q.name for name in observers for q in observers[name].quantities} | {SECONDS.name}


TAKEN = [name for name in methods if methods[name].refuses(methods[name].Params(), setting(epochs=1000)) is None]


@pytest.mark.parametrize(("method", "fusion"), [*((m, "concat") for m in TAKEN), ("joint", "mmtm"), ("joint", "film")])
def test_a_run_with_observers_has_the_bits_of_one_without(method, fusion):
    bare, watched = make(method, fusion), make(method, fusion)
    before, rows = train(bare, None), train(watched, Observers(watched))
    assert [{k: v for k, v in row.items() if k.partition("/")[0] not in declared()} for row in rows] == before
    ours, theirs = bare.snapshot(), watched.snapshot()
    assert ours[0].keys() == theirs[0].keys()
    assert all(torch.equal(ours[0][name], theirs[0][name]) for name in ours[0])  # weights, optimiser, generators, costs
    assert {name for row in rows for name in (key.partition("/")[0] for key in row)} >= declared() - {"purity_on_test"}
    assert all(math.isfinite(value) for row in rows for value in row.values())


def test_no_observer_declares_what_another_or_a_method_logs():
    names = [q.name for name in observers for q in observers[name].quantities]
    assert len(names) == len(set(names))
    assert not set(names) & {q.name for name in methods for q in methods[name].quantities}


def test_observers_look_after_every_nth_epoch_and_the_last():
    trainer = make(epochs=5)
    seeing = Observers(trainer)
    seeing.every = {name: observers[name](observers[name].Params(every=2)) for name in ("scores", "probe")}
    seeing.every["purity"] = observers["purity"](observers["purity"].Params(every=4))
    assert [set(seeing.due(epoch)) for epoch in range(5)] == [
        set(),
        {"scores", "probe"},
        set(),
        {"scores", "probe", "purity"},
        {"scores", "probe", "purity"},
    ]
    assert seeing.observe(0) == {}


@pytest.fixture
def seen():
    """A run after an epoch, what its observers say, and of train: features, logits, unimodal logits, labels."""
    trainer = make(track_test=True)
    trainer.epoch(0)
    row = Observers(trainer).observe(1)
    trainer.model.eval()
    batch = next(trainer.loaders["train"].batches(1000))
    with torch.no_grad():
        output = trainer.model(trainer.transform(batch.inputs))
        return trainer, row, output, trainer.model.fusion.unimodal(output.features), batch.label


def test_scores(seen):
    _, row, output, unimodal, label = seen
    score = {m: torch.softmax(z, 1)[torch.arange(len(label)), label].mean() for m, z in unimodal.items()}
    fused = torch.softmax(output.logits, 1)[torch.arange(len(label)), label].mean()
    expected = {f"score_on_train/{m}": s for m, s in score.items()} | {"score_on_train": fused}
    expected |= {"ratio_on_train/m0": score["m0"] / score["m1"], "ratio_on_train/m1": score["m1"] / score["m0"]}
    expected |= {"loss_on_train": cross_entropy(output.logits, label)}
    expected |= {f"accuracy_on_train/{m}": (z.argmax(1) == label).float().mean() for m, z in unimodal.items()}
    assert {key: row[key] for key in expected} == pytest.approx({k: float(v) for k, v in expected.items()}, rel=1e-5)
    assert row["score_on_val"] != row["score_on_train"]


def test_gradients(seen):
    trainer, row, *_, label = seen
    batch = next(trainer.loaders["train"].batches(1000))
    inputs = trainer.transform(batch.inputs)
    for m, encoder in trainer.model.encoders.items():
        weights = list(encoder.parameters())
        features = trainer.model.encode(inputs)
        losses = trainer.model.fusion(features), trainer.model.fusion.unimodal(features)[m]
        g, u = (
            torch.cat([x.flatten() for x in torch.autograd.grad(cross_entropy(z, label), weights, retain_graph=True)])
            for z in losses
        )
        angle = math.degrees(math.acos(float(g @ u / (g.norm() * u.norm()))))
        assert row[f"gradient_norm/{m}"] == pytest.approx(float(g.norm()), rel=1e-4)
        assert row[f"unimodal_gradient/{m}"] == pytest.approx(float(u.norm()), rel=1e-4)
        assert row[f"gradient_angle/{m}"] == pytest.approx(angle, abs=0.01)
        assert 0 < angle < 180


def test_gradients_of_fewer_samples_are_of_the_same_ones_in_every_epoch(seen):
    trainer = seen[0]
    one = observers["gradients"](observers["gradients"].Params(samples=5))
    values = [one.observe(Between(trainer, epoch)) for epoch in (0, 1)]
    assert values[0] == values[1]
    assert values[0]["gradient_norm/m0"] != pytest.approx(seen[1]["gradient_norm/m0"], rel=1e-3)


def test_purity_is_that_of_relearning(seen):
    _, row, output, _, label = seen
    for m, features in output.features.items():
        assert row[f"purity_on_train/{m}"] == purity(assign(features, 3, "minmax", 10), label)
        assert row[f"purity_gap/{m}"] == abs(row[f"purity_on_train/{m}"] - row[f"purity_on_val/{m}"])
        assert 0 < row[f"purity_on_test/{m}"] <= 1
    trainer = make(track_test=False)
    assert not any("test" in key for key in Observers(trainer).observe(1))


def test_probe_is_that_of_the_task(seen):
    trainer, row, output, *_, label = seen
    val = trainer.loaders["val"]
    batch = next(val.batches(1000))
    with torch.no_grad():
        held = trainer.model(trainer.transform(batch.inputs)).features
    for m, features in output.features.items():
        (logits,) = trainer.task.probe(features.numpy(), label.numpy(), [held[m].numpy()], 1.0, 1000)
        assert row[f"probe_on_val/{m}"] == (logits.argmax(1) == val.label.numpy()).mean()
    half = observers["probe"](observers["probe"].Params(samples=13)).observe(Between(trainer, 0))
    assert set(half) == {"probe_on_val/m0", "probe_on_val/m1"}


def test_a_model_of_one_modality_is_observed_without_gradients():
    assert observers["gradients"].refuses(EVERY["gradients"], Setting(("m0",), "concat", 3)) is not None
    assert all(observers[n].refuses(EVERY[n], Setting(("m0",), "concat", 3)) is None for n in EVERY if n != "gradients")
    assert observers["purity"].refuses(EVERY["purity"], Setting(("m0",), "concat", 3, task="regression")) is not None
    trainer = make(modalities=1)
    seeing = Observers(trainer)
    del seeing.every["gradients"]
    row = seeing.observe(1)
    assert "score_on_train" in row and "probe_on_val/m0" in row and not any("ratio" in key for key in row)


class Stand(Observer):
    """Does what it is told."""

    def __init__(self, does):
        super().__init__(ObserverParams())
        self.observe = does


def test_generators_modes_and_costs_are_put_back_whatever_an_observer_does():
    trainer = make()
    seeing = Observers(trainer)

    def does(run):
        torch.manual_seed(1), random.seed(1), np.random.seed(1)
        run.model.train()
        return {"nothing": math.nan, "one": torch.ones(())}

    seeing.every = {"does": Stand(does)}
    trainer.model.encoders["m0"].eval()
    modes = [part.training for part in trainer.model.modules()]
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), trainer.context.forwards
    row = seeing.observe(0)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), trainer.context.forwards
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    assert [part.training for part in trainer.model.modules()] == modes
    assert row.keys() == {"one", SECONDS.name}


@pytest.mark.parametrize(
    "writes",
    [
        lambda run: torch.nn.init.zeros_(run.model.fusion.joint.bias),
        lambda run: run.task.loss(
            run.model.fusion({"m0": torch.ones(2, 8), "m1": torch.ones(2, 8)}), run.label("train")[:2]
        ).backward(),
        lambda run: run.model.train() and run.model.encode(next(run.batches("train")).inputs),
    ],
)
def test_an_observer_that_writes_to_the_model_is_an_error(writes):
    trainer = make()
    seeing = Observers(trainer)

    def does(run):
        with torch.enable_grad():
            writes(run)
        return {}

    seeing.every = {"does": Stand(does)}
    with pytest.raises(RuntimeError, match="observer 'does': expected it to change nothing"):
        seeing.observe(0)


def test_an_observer_without_a_value_leaves_the_run_alone(caplog):
    trainer = make()
    seeing = Observers(trainer)

    def fails(run):
        raise UserError("expected features, but got none")

    seeing.every = {"fails": Stand(fails), "scores": observers["scores"](EVERY["scores"])}
    with caplog.at_level("WARNING", observe.__name__):
        row = seeing.observe(0)
    assert "score_on_val" in row
    assert "observe fails  no value after epoch 1: expected features, but got none" in caplog.text


def test_an_observer_cannot_read_test_unless_params_track_it():
    with pytest.raises(KeyError, match="expected one of train, val, but got 'test'"):
        Between(make(track_test=False), 0).seen("test")


@pytest.mark.parametrize("task", [name for name in tasks if name != "classification"])
def test_runs_of_every_task_are_observed(task):
    trainer = tasked.trainer(task, track_test=True)
    every = {name: one for name, one in EVERY.items() if observers[name].refuses(one, tasked.setting(task)) is None}
    assert {"scores", "gradients", "probe"} <= every.keys()
    trainer.spec = replace(trainer.spec, observers=every)
    row = Observers(trainer).observe(trainer.schedule.epochs - 1)
    assert {f"{name}/m0" for name in ("score_on_val", "ratio_on_train", "gradient_angle", "probe_on_val")} <= row.keys()
    loss = row["loss_on_train"]
    trainer.model.eval()
    seen = Between(trainer, 0).seen("train")
    assert loss == pytest.approx(float(trainer.task.loss(seen.logits, seen.label)))
    if task == "segments":  # each is a row
        assert len(seen.label) == 2 * SPLITS["train"] and len(seen.features["m0"]) == 2 * SPLITS["train"]
        assert 0 < row["purity_on_test/m0"] <= 1
        assert ("accuracy_on_train" in row) is False
