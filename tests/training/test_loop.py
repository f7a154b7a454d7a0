"""The loop: schedule, hooks in their order, scores against a plain count, and state that is complete."""

import json

import pytest
import torch

from pipeline_src.methods.base import Method, MethodParams, Phase
from pipeline_src.models.fusions.base import Features
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.synthetic import SPLITS, SyntheticCache, spec

CPU = torch.device("cpu")


def make(modalities: int = 2, seed: int = 0, resident: bool = True, **training) -> Trainer:
    cache = SyntheticCache(modalities)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident) for s in SPLITS}
    return Trainer(spec(cache, **training), seed, cache, loaders, CPU)


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.model.parameters()]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_two_runs_are_bit_for_bit_the_same_and_another_seed_is_not():
    first, again, streamed, other = make(), make(), make(resident=False), make(seed=1)
    for trainer in (first, again, streamed, other):
        trainer.epoch(0)
    assert equal(weights(first), weights(again))
    assert equal(weights(first), weights(streamed))
    assert not equal(weights(first), weights(other))


def test_training_learns():
    trainer = make(lr=0.02)
    losses = [trainer.epoch(epoch)["loss"] for epoch in range(6)]
    assert losses[-1] < 0.7 * losses[0]
    assert trainer.score("test")["test_accuracy"] > 0.6


def test_learning_rate_steps_down():
    trainer = make(lr=0.08, lr_step=2, lr_gamma=0.5)
    assert [trainer.epoch(epoch)["lr"] for epoch in range(5)] == [0.08, 0.08, 0.04, 0.04, 0.02]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "adagrad"])
def test_resuming_is_exact(optimizer):
    whole, begun, resumed = (make(optimizer=optimizer, lr=1e-3) for _ in range(3))
    whole.epoch(0), whole.epoch(1)
    begun.epoch(0)
    resumed.load_state_dict(begun.state_dict())
    resumed.epoch(1)
    assert equal(weights(whole), weights(resumed))
    assert whole.context.forwards == resumed.context.forwards == 52
    assert whole.context.step == resumed.context.step == 8


class PauseError(Exception):
    """Stands for whatever ends training within an epoch."""


def noisy(seed: int = 0) -> Trainer:
    """With two phases, a network that drops out, and an epoch that changes the method once."""

    class Doubled(Method):
        scale = torch.ones(())

        def before_epoch(self, ctx):
            self.scale = self.scale * 2
            ctx.log("scale", self.scale)
            return [Phase("first"), Phase("second")]

        def loss(self, ctx, output, batch):
            ctx.log("rng", torch.rand((), generator=ctx.rng))
            ctx.log("phase", float(ctx.phase.name == "second"))
            return {"loss": self.scale * super().loss(ctx, output, batch)["loss"]}

        def state_dict(self):
            return {"scale": self.scale}

        def load_state_dict(self, state):
            self.scale = state["scale"]

    trainer = make(seed=seed, lr=1e-3)
    trainer.method = Doubled(MethodParams())
    encode = trainer.model.encode
    dropout = torch.nn.functional.dropout
    trainer.model.encode = lambda x: Features(
        {m: dropout(f, 0.3, trainer.model.training) for m, f in encode(x).items()}
    )
    return trainer


@pytest.mark.parametrize("steps", range(1, 9))  # of an epoch's 8: also at the end of each phase
def test_going_on_after_any_step_is_exact(steps):
    whole, begun, resumed = noisy(), noisy(), noisy()
    rows = [whole.epoch(epoch) for epoch in range(3)]
    left = [8 + steps]

    def pulse():
        left[0] -= 1
        if left[0] == 0:
            raise PauseError

    begun.epoch(0, pulse)
    with pytest.raises(PauseError):
        begun.epoch(1, pulse)
    tensors, position = begun.snapshot()
    torch.rand(3)  # what else the process does
    resumed.restore({k: v.clone() for k, v in tensors.items()}, json.loads(json.dumps(position)))
    again = [resumed.epoch(epoch) for epoch in (1, 2)]
    assert all(row.pop("seconds") > 0 for row in rows + again)
    assert again == rows[1:]
    assert equal(weights(whole), weights(resumed))
    ours, theirs = whole.state_dict(), resumed.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_trained_epoch_is_not_trained_again():
    begun, resumed = noisy(), noisy()
    row = begun.epoch(0)
    resumed.restore(*begun.snapshot())
    assert resumed.epoch(0) == row
    assert equal(weights(begun), weights(resumed))


def test_scores_count_every_clip_of_the_split():
    trainer = make()
    trainer.epoch(0)
    trainer.model.eval()
    batch = next(trainer.loaders["test"].batches(1000))
    with torch.no_grad():
        output = trainer.model(trainer.transform(batch.inputs))
        shares = trainer.model.fusion.unimodal(output.features)
    expected = {"test_accuracy": (output.logits.argmax(1) == batch.label).float().mean()}
    expected |= {f"test_accuracy/{m}": (z.argmax(1) == batch.label).float().mean() for m, z in shares.items()}
    assert trainer.score("test") == pytest.approx({k: float(v) for k, v in expected.items()})
    assert len(batch.index) == SPLITS["test"]


def test_scoring_changes_nothing():
    trainer = make()
    trainer.epoch(0)
    before = {k: v.clone() for k, v in trainer.state_dict().items()}
    trainer.score("val")
    assert all(torch.equal(before[k], v) for k, v in trainer.state_dict().items())


class Spy(Method):
    """Notes its calls; keeps half of each batch and doubles the loss."""

    def __init__(self):
        super().__init__(MethodParams())
        self.calls, self.rows = [], []

    def before_epoch(self, ctx):
        self.calls.append("before_epoch")
        return [Phase("first"), Phase("second")]

    def on_features(self, ctx, features, batch):
        self.calls.append("on_features")
        return features, torch.arange(len(batch.label)) % 2 == 0

    def loss(self, ctx, output, batch):
        self.calls.append("loss")
        self.rows.append(len(batch.label))
        assert len(output.logits) == len(batch.label) == len(batch.inputs["m0"])
        ctx.log("phase", 1.0 if ctx.phase.name == "second" else 0.0)
        part = super().loss(ctx, output, batch)["loss"]
        return {"loss": part, "more": part}

    def after_backward(self, ctx, output, batch):
        self.calls.append("after_backward")
        assert ctx.model.encoders["m0"].conv1.weight.grad is not None

    def after_epoch(self, ctx):
        self.calls.append("after_epoch")


def test_hooks_come_in_the_order_of_the_design():
    trainer = make()
    trainer.method = Spy()
    row = trainer.epoch(0)
    step = ["on_features", "loss", "after_backward"]
    assert trainer.method.calls == ["before_epoch", *(step * 8), "after_epoch"]  # two phases of four batches
    assert trainer.method.rows == [4, 4, 4, 1] * 2
    assert row["phase"] == 0.5
    assert row["more"] == row["loss"]
