"""Joint training with unimodal losses: what is added to joint training, and nothing without weight."""

import pytest
import torch

from pipeline_src.methods.base import Output
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.synthetic import SyntheticCache, spec

CPU = torch.device("cpu")


def trained(name: str, fusion: str, **params) -> Trainer:
    cache = SyntheticCache(2)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in ("train", "val", "test")}
    run = Trainer(spec(cache, fusion, name, params), 0, cache, loaders, CPU)
    run.method.on_train_start(run.context)
    run.epoch(0)
    return run


@pytest.mark.parametrize("fusion", ["concat", "gated"])
def test_weight_zero_is_joint_training_bit_for_bit(fusion):
    joint, ours = trained("joint", fusion), trained("joint_unimodal", fusion, weight=0.0)
    theirs = ours.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in joint.model.state_dict().items())


def test_the_loss_is_the_sum_and_each_classifier_learns_from_its_own():
    run = trained("joint_unimodal", "concat", weight=2.0)
    assert set(run.model.extra) == {"m0", "m1"}
    batch = next(iter(run.loaders["train"].batches(8)))
    batch = batch._replace(inputs=run.transform(batch.inputs))
    run.context.zero_grad()
    features = run.context.encode(batch)
    output = Output(features, run.model.fusion(features))
    losses = run.method.loss(run.context, output, batch)
    z = run.model.extra["m0"](features["m0"])
    torch.testing.assert_close(losses["unimodal_loss/m0"], 2 * torch.nn.functional.cross_entropy(z, batch.label))
    losses["unimodal_loss/m0"].backward()
    reached = {".".join(n.split(".")[:2]) for n, p in run.model.named_parameters() if p.grad is not None}
    assert reached == {"encoders.m0", "extra.m0"}
    joint = torch.nn.functional.cross_entropy(output.logits, batch.label)
    torch.testing.assert_close(losses["loss"], joint)


def test_the_prediction_is_the_fusions():
    run = trained("joint_unimodal", "sum")
    batch = next(iter(run.loaders["val"].batches(8)))
    features = run.context.encode(batch._replace(inputs=run.transform(batch.inputs)))
    torch.testing.assert_close(run.method.logits(run.model, features), run.model.fusion(features))
