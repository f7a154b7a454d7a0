"""UMT: the distance to the teachers' features of the same inputs, and nothing without weight."""

import pytest
import torch

from pipeline_src.methods.umt import UMT
from tests.methods import small
from tests.synthetic import setting


@pytest.mark.parametrize("fusion", ["concat", "film", "gated"])
def test_weight_zero_is_joint_training_bit_for_bit_and_needs_no_teacher(fusion):
    joint, ours = small.run("joint", fusion), small.run("umt", fusion, params={"weight": 0.0})
    joint.epoch(0)
    ours.epoch(0)
    assert small.same_weights(joint, ours)
    assert UMT.requires(UMT.Params(weight=0.0), setting()) == {}


@pytest.mark.parametrize("modalities", [2, 3])
def test_the_distance_to_each_modalitys_teacher(modalities):
    run = small.run("umt", modalities=modalities, params={"weight": 3.0})
    batch, features, output = small.forward(run)
    losses = run.method.loss(run.context, output, batch)
    for m, f in features.items():
        teacher = run.context.run(m).encoders[m](batch.inputs[m])
        expected = 3 * ((f - teacher) ** 2).sum() / f.numel()
        torch.testing.assert_close(losses[f"distillation/{m}"], expected)
    losses["distillation/m0"].backward()
    reached = {".".join(n.split(".")[:2]) for n, p in run.model.named_parameters() if p.grad is not None}
    assert reached == {"encoders.m0"}


def test_a_teacher_is_frozen_in_evaluation_mode_and_unchanged_by_training():
    run = small.run("umt")
    teacher = run.context.run("m0")
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    run.epoch(0)
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_a_large_weight_brings_the_features_nearer():
    distances = []
    for weight in (1e-9, 10.0):
        run = small.run("umt", params={"weight": weight}, epochs=8, lr_step=8)
        rows = [run.epoch(epoch) for epoch in range(8)]
        distances.append(rows[-1]["distillation/m1"] / weight)
    assert distances[1] < 0.5 * distances[0]


def test_the_teachers_passes_are_counted():
    run, joint = small.run("umt"), small.run("joint")
    run.epoch(0)
    joint.epoch(0)
    assert run.context.forwards == 2 * joint.context.forwards
    assert run.context.backwards == joint.context.backwards


def test_what_it_requires_and_refuses():
    assert {k: v.modality for k, v in UMT.requires(UMT.Params(), setting(modalities=3)).items()} == {
        "m0": "m0",
        "m1": "m1",
        "m2": "m2",
    }
    assert UMT.refuses(UMT.Params(), setting(modalities=1)) == "expected two modalities or more, but got 1"
    assert UMT.extension(UMT.Params(), setting("mmtm_last")) and not UMT.extension(UMT.Params(), setting("film"))


def test_features_that_are_longer_than_the_teachers_are_refused():
    params = UMT.Params()
    assert UMT.refuses(params, setting("mult", 2)) is None and UMT.refuses(params, setting("mbt", 3)) is None
    why = UMT.refuses(params, setting("mult", 3))
    assert why == "expected features as long as the teachers', but got 'mult', which makes them longer"
