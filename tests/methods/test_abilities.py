"""What a method may do with its step, each ability by a small method of its own, resumed bit for bit in both passes."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipeline_src.evaluation import run as evaluation
from pipeline_src.methods.base import Method, Phase, Requirement, Setting, methods
from pipeline_src.training import run as training
from pipeline_src.training.interrupt import Stop
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.synthetic import SPLITS, SyntheticCache, encoder, setting, spec, stand_ins
from tests.training import killed

CPU = torch.device("cpu")
STEPS = 8  # of an epoch: two passes of four batches


class TwoPasses(Method):
    def before_epoch(self, ctx):
        return [Phase("first", lr=0.5), Phase("second")]


@methods.register("test_alternating")
class Alternating(TwoPasses):
    """Encoders in turn, each with an update of its own."""

    def step(self, ctx, batch):
        for m in ctx.model.modalities:
            ctx.zero_grad()
            features = ctx.encode(batch, [m])
            with ctx.autocast():
                loss = ctx.task.loss(self.unimodal(ctx.model, features)[m], batch.label)
            ctx.log("loss", loss)
            ctx.backward(loss)
            ctx.update()


@methods.register("test_by_loss")
class ByLoss(TwoPasses):
    """Takes the gradients of each loss by itself, and adds them up."""

    def loss(self, ctx, output, batch):
        unimodal = self.unimodal(ctx.model, output.features)
        own = {f"loss_{m}": ctx.task.loss(z, batch.label) for m, z in unimodal.items()}
        return super().loss(ctx, output, batch) | own

    def backward(self, ctx, losses, output, batch):
        parameters = list(ctx.model.parameters())
        for value in losses.values():
            for p, g in zip(parameters, ctx.gradients(value, parameters), strict=True):
                p.grad = g if p.grad is None else p.grad + g


@methods.register("test_classifiers")
class Classifiers(TwoPasses):
    """Predicts the mean of classifiers of its own."""

    def modules(self, dims, classes):
        return {m: nn.Linear(size, classes) for m, size in dims.items()}

    def unimodal(self, model, features):
        return {m: model.extra[m](f) for m, f in features.items()}

    def logits(self, model, features):
        return torch.stack(list(self.unimodal(model, features).values())).mean(0)


@methods.register("test_chosen")
class Chosen(TwoPasses):
    """Visits half of the samples, some of them again without their first modality."""

    rows = lost = torch.zeros(0)

    def before_epoch(self, ctx):
        rows = torch.randperm(len(ctx.labels()), generator=ctx.rng)[:13]
        self.rows = torch.cat([rows, rows[:6]])
        self.lost = torch.arange(19) >= 13
        return super().before_epoch(ctx)

    def samples(self, ctx):
        return self.rows

    def on_features(self, ctx, features, batch):
        assert torch.equal(self.rows[batch.position], batch.index)
        lost = self.lost[batch.position]
        ctx.log("lost", lost.sum())
        return {**features, "m0": torch.where(lost[:, None], 0, features["m0"])}, None

    def state_dict(self):
        return {"rows": self.rows, "lost": self.lost}

    def load_state_dict(self, state):
        self.rows, self.lost = state["rows"], state["lost"]


@methods.register("test_returning")
class Returning(TwoPasses):
    """Tries a pass out, goes back to where it began, and trains."""

    before: dict = {}  # noqa: RUF012

    def before_epoch(self, ctx):
        self.before = ctx.save()
        return super().before_epoch(ctx)

    def step(self, ctx, batch):
        if ctx.phase.name == "second" and ctx.batch == 0:
            ctx.go_back(self.before)
        super().step(ctx, batch)

    def state_dict(self):
        return self.before

    def load_state_dict(self, state):
        self.before = state


@methods.register("test_taught")
class Taught(TwoPasses):
    """Draws features to those of unimodal runs, and the prediction to that of joint training."""

    @classmethod
    def requires(cls, params, setting):
        return {m: Requirement(m) for m in setting.modalities} | {"fused": Requirement(None)}

    def loss(self, ctx, output, batch):
        losses = super().loss(ctx, output, batch)
        for m, f in output.features.items():
            taught = ctx.run(m).encode({m: batch.inputs[m]})[m]
            losses[f"distance_{m}"] = (f - taught).square().mean()
        losses["fused"] = (output.logits - ctx.run("fused")(batch.inputs).logits).square().mean()
        return losses


OURS = ["alternating", "by_loss", "classifiers", "chosen", "returning", "taught"]


def trainer(method: str, seed: int = 0, modalities: int = 2, resident: bool = True, **how) -> Trainer:
    cache = SyntheticCache(modalities)
    what = spec(cache, "concat", method, **how)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident) for s in SPLITS}
    return Trainer(what, seed, cache, loaders, CPU, stand_ins(what, cache))


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def bare(row: dict) -> dict:
    return {k: v for k, v in row.items() if k != "seconds"}


class PauseError(Exception):
    """Stands for whatever ends training."""


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", OURS)
def test_going_on_is_exact_within_both_passes(name, optimizer):
    steps = {"chosen": 6}.get(name, STEPS)  # 19 visits are three batches
    whole = trainer(f"test_{name}", optimizer=optimizer, lr=1e-3)
    rows = [whole.epoch(epoch) for epoch in range(2)]
    assert all(torch.isfinite(p).all() for p in whole.model.parameters())
    for stop in (1, steps // 2, steps // 2 + 1, steps - 1):
        begun, resumed = (trainer(f"test_{name}", optimizer=optimizer, lr=1e-3) for _ in range(2))
        left = [stop]

        def pulse(left=left):
            left[0] -= 1
            if left[0] == 0:
                raise PauseError

        begun.epoch(0)
        with pytest.raises(PauseError):
            begun.epoch(1, pulse)
        tensors, position = begun.snapshot()
        resumed.restore({k: v.clone() for k, v in tensors.items()}, json.loads(json.dumps(position)))
        assert bare(resumed.epoch(1)) == bare(rows[1])
        assert equal(resumed.state_dict(), whole.state_dict())


@pytest.mark.parametrize("name", OURS)
def test_encoders_and_fusion_start_as_in_joint_training(name):
    ours, joint = trainer(f"test_{name}").model.state_dict(), trainer("joint").model.state_dict()
    assert equal({k: v for k, v in ours.items() if not k.startswith("extra.")}, joint)


def test_an_encoder_that_is_left_out_stays_as_it_is_and_costs_nothing():
    run = trainer("joint", modalities=3)
    ctx, batch = run.context, next(run.loaders["train"].batches(8))
    batch = batch._replace(inputs=run.transform(batch.inputs))
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    run.model.train()
    features = ctx.encode(batch, ["m1"])
    assert not features["m0"].any() and features["m1"].any()
    run.method.unimodal(run.model, features)["m1"].sum().backward()
    ctx.update()
    changed = {k.split(".")[1] for k, v in run.model.state_dict().items() if not torch.equal(v, before[k])}
    assert "m1" in changed and not changed & {"m0", "m2"}
    assert ctx.forwards == ctx.backwards == pytest.approx(8 / 3)


def test_costs_are_counted_where_they_happen():
    def cost(name):
        run = trainer(name)
        run.epoch(0)
        return run.context.forwards, run.context.backwards, run.context.step

    assert cost("joint") == (26, 26, 4)
    assert cost("test_alternating") == (52, 52, 16)
    assert cost("test_by_loss") == (52, 26 * 2 * 2, 8)  # the joint loss reaches all encoders, the others one each
    assert cost("test_chosen") == (38, 38, 6)
    assert cost("test_taught") == (52 * 3, 52, 8)  # both teachers, which make one whole, and the fused model


def test_evaluation_mode_and_blank_inputs():
    run = trainer("joint")
    ctx, batch = run.context, next(run.loaders["train"].batches(8))
    batch = batch._replace(inputs=run.transform(batch.inputs))
    run.model.train()
    frozen = run.model.encoders["m1"].eval()
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    still = ctx.encode(batch, training=False)
    shown, blank = ctx.encode_blank(batch)
    assert equal(run.model.state_dict(), before)  # no running statistic has moved
    assert run.model.training and not frozen.training
    assert still["m0"].requires_grad and blank["m0"].requires_grad
    run.model.eval()
    inputs = {m: torch.zeros_like(x[:1]) for m, x in batch.inputs.items()}
    for m, f in run.model.encode(inputs).items():
        torch.testing.assert_close(blank[m], f)
        torch.testing.assert_close(shown[m], still[m])


def test_gradients_loss_by_loss_add_up():
    whole, parts = trainer("test_by_loss"), trainer("test_by_loss")
    parts.method.backward = super(ByLoss, parts.method).backward
    whole.epoch(0), parts.epoch(0)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_modules_are_seeded_trained_and_kept():
    first, again, other = trainer("test_classifiers"), trainer("test_classifiers"), trainer("test_classifiers", seed=1)
    name = "extra.m0.weight"
    start = first.model.state_dict()[name].clone()
    assert torch.equal(start, again.model.state_dict()[name])
    assert not torch.equal(start, other.model.state_dict()[name])
    first.epoch(0)
    assert not torch.equal(start, first.model.state_dict()[name])
    assert f"optimizer/momentum_buffer/{name}" in first.state_dict()


@pytest.mark.parametrize("name", ["joint", "test_classifiers"])
def test_the_prediction_is_the_same_in_training_and_evaluation(name, tmp_path, monkeypatch):
    monkeypatch.setitem(killed.CELLS, name, (name, {}, "sgd", True))
    one, cache, loaders = killed.cell(name, tmp_path)
    params = SimpleNamespace(
        resources=SimpleNamespace(train=SimpleNamespace(threads=1, mem_mb=1000)),
        training=SimpleNamespace(checkpoint_minutes=10),
    )
    training._train(one, cache, loaders, CPU, params, None, Stop())
    evaluation._evaluate(one, cache, loaders, CPU)
    record = json.loads(one.record.read_text())
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    row = rows[record["selected"]["epoch"]]
    found = {
        (r["split"], r["modality"], r["metric"]): r["value"] for r in json.loads(one.metrics.read_text())["metrics"]
    }
    for split in ("val", "test"):
        assert found[split, "fused", "accuracy"] == row[f"{split}_accuracy"]
        for m in ("m0", "m1"):
            assert found[split, m, "accuracy_unimodal"] == row[f"{split}_accuracy/{m}"]


@pytest.mark.parametrize("resident", [True, False])
def test_samples_are_chosen_and_repeated(resident):
    run, seen = trainer("test_chosen", resident=resident), []
    step = run.method.step
    run.method.step = lambda ctx, batch: (seen.append(batch), step(ctx, batch))
    row = run.epoch(0)
    for visits in (seen[:3], seen[3:]):
        position = torch.cat([batch.position for batch in visits])
        assert sorted(position.tolist()) == list(range(19))
        index = torch.cat([batch.index for batch in visits])
        assert torch.equal(index, run.method.rows[position])
        assert torch.equal(torch.cat([batch.label for batch in visits]), run.context.labels()[index])
    assert row["lost"] == pytest.approx(2.0)  # six of 19 visits in three batches
    assert [batch.label.numel() for batch in seen] == [8, 8, 3] * 2


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_going_back_leaves_nothing_of_what_was_tried(optimizer):
    run = trainer("test_returning", optimizer=optimizer)
    run.epoch(0)
    saved = run.context.save()
    kept = {k: v.clone() for k, v in saved.items()}
    run.context.go_back(saved)
    run.epoch(1)
    assert equal(saved, kept)  # training on leaves the copies alone
    # A pass that does nothing in the place of the one that is taken back.
    tried = trainer("test_returning", optimizer=optimizer)
    tried.method.step = lambda ctx, batch: None if ctx.phase.name == "first" else Method.step(tried.method, ctx, batch)
    tried.epoch(0)
    again = trainer("test_returning", optimizer=optimizer)
    again.epoch(0)
    assert equal(again.model.state_dict(), tried.model.state_dict())


def test_a_required_run_is_frozen_and_in_evaluation_mode():
    run = trainer("test_taught")
    teacher = run.context.run("m1")
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    run.epoch(0)
    assert run.context.run("m1") is teacher
    assert equal(teacher.state_dict(), before) and not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert teacher.modalities == ["m1"] and run.context.run("fused").modalities == ["m0", "m1"]


def test_each_pass_has_its_learning_rate():
    run, rates = trainer("test_alternating", lr=0.04), []
    step = run.method.step
    run.method.step = lambda ctx, batch: (rates.append(ctx.optimizer.param_groups[0]["lr"]), step(ctx, batch))
    run.epoch(0)
    assert rates == [0.02] * 4 + [0.04] * 4


def test_a_method_that_requires_says_so():
    assert methods["test_taught"].requires(methods["test_taught"].Params(), setting()) == {
        "m0": Requirement("m0"),
        "m1": Requirement("m1"),
        "fused": Requirement(None),
    }
    assert methods["joint"].requires(methods["joint"].Params(), setting()) == {}


def test_what_the_tests_register_is_not_there_for_users():
    assert not [name for name in methods if name.startswith("test_")]


@pytest.mark.parametrize(
    ("asked", "needs", "why"),
    [
        (Setting(("a",), "concat", 1), {"modalities": 2}, "expected two modalities or more, but got 1"),
        (Setting(("a",), "concat", 1), {"modalities": 4}, "expected 4 modalities or more, but got 1"),
        (Setting(("a",), "concat", 1, "regression"), {"classes": True}, "expected task classification or segments, "),
        (Setting(("a",), "concat", 1, "segments"), {"whole": True}, "expected a task with one label per sample, as "),
        (Setting(("a", "b"), "film", 1), {"additive": True}, "expected a fusion that is a sum over modalities, but "),
        (Setting(("a", "b"), "film", 1), {"linear": True}, "expected a fusion that is linear in each modality (con"),
        (Setting(("a", "b"), "mmtm", 1), {"no_taps": True}, "expected a fusion of features alone, but got 'mmtm', w"),
        (Setting(("a", "b"), "mmtm", 1), {"no_writes": True}, "expected a fusion that leaves hidden states alone, "),
    ],
)
def test_what_a_setting_lacks_is_said_and_only_that(asked, needs, why):
    assert asked.lacks(**needs).startswith(why)
    assert asked.lacks() is None
    everything = {"modalities": 2, **dict.fromkeys(("classes", "additive", "linear", "no_taps", "no_writes"), True)}
    assert Setting(("a", "b"), "concat", 1).lacks(**everything) is None


def test_names_that_are_no_modalities_are_said():
    asked = Setting(("a", "b"), "concat", 1)
    assert asked.unknown("rates", {"c": 1, "b": 2}) == "expected rates of a, b, but got c"
    assert asked.unknown("rates", ["b", "joint"], ("joint",)) is None


@methods.register("test_nine")
class Nine(Method):
    """Visits nine samples: a batch of eight, and one more."""

    def samples(self, ctx):
        return torch.arange(9)


@methods.register("test_dropping")
class Dropping(Method):
    """Drops every row of the first batch, and all but one of the second."""

    def on_features(self, ctx, features, batch):
        return features, torch.arange(len(batch.label)) < ctx.batch


def with_maps_of_one_pixel(method: str, train: int) -> Trainer:
    """A run whose encoders end in maps of one pixel, which batch normalisation cannot train on one sample of."""
    cache = SyntheticCache(2, splits=SPLITS | {"train": train})
    what = spec(cache, "concat", method)
    deep = {m: encoder("resnet", width=4, depth=[1] * 6) for m in cache.modalities}
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in ("train", "val", "test")}
    return Trainer(replace(what, encoders=deep), 0, cache, loaders, CPU)


@pytest.mark.parametrize(("method", "train", "batches"), [("joint", 25, 3), ("joint", 9, 1), ("test_nine", 26, 1)])
def test_no_training_batch_has_one_sample(method, train, batches):
    run = with_maps_of_one_pixel(method, train)
    row = run.epoch(0)
    assert torch.isfinite(torch.tensor(row["loss"]))
    assert (run.at.batch, run.context.batches, run.context.step) == (0, batches, batches)
    one = next(run.loaders["train"].batches(1))
    with pytest.raises(ValueError, match="more than 1 value per channel"):  # else this test would show nothing
        run.method.step(run.context, one._replace(inputs=run.transform(one.inputs)))


def test_a_batch_of_which_no_row_is_kept_changes_nothing():
    run = trainer("test_dropping")
    row = run.epoch(0)
    assert run.context.step == 3 and run.context.counts["loss"] == 3, "of four batches"
    assert torch.isfinite(torch.tensor(row["loss"]))
