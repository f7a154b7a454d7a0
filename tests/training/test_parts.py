"""Encoders that are frozen, and a learning rate for each part of the model."""

from dataclasses import replace

import pytest
import torch

from pipeline_src.methods.base import methods
from pipeline_src.models.base import FusionParams, encoders
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.methods.test_contract_encoders import fusion_for
from tests.synthetic import SyntheticCache, setting, spec, stand_ins

CPU = torch.device("cpu")


def trainer(changes: dict, method: str = "joint", fusion: str | None = None, rate: float = 1.0, **training) -> Trainer:
    """A run before its first epoch; `changes` {m: what differs in its encoder's parameters}."""
    cache = SyntheticCache(2)
    what = spec(cache, fusion or fusion_for(method), method, epochs=2, **training)
    parts = {m: params.model_copy(update=changes.get(m, {})) for m, params in what.encoders.items()}
    what = replace(what, encoders=parts, fusion_params=FusionParams(lr_factor=rate))
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in ("train", "val", "test")}
    run = Trainer(what, 0, cache, loaders, CPU, stand_ins(what, cache))
    run.method.on_train_start(run.context)
    return run


def copied(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(value, before[name]) for name, value in module.state_dict().items())


TRAINS_ALL = ("cggm", "greedy", "inforeg", "mmpareto", "ogm", "ogm_ge", "opm_ogm")  # need every encoder's gradients


@pytest.mark.parametrize("method", [name for name in methods if name not in TRAINS_ALL])
def test_a_frozen_encoder_stays_and_the_others_learn(method):
    run = trainer({"m0": {"freeze": True}}, method)
    # MCR starts encoders from those trained alone; here these are stand-ins of another seed.
    before = {m: copied(encoder) for m, encoder in run.model.encoders.items()}
    row = run.epoch(0)
    assert all(torch.isfinite(torch.tensor(value)) for value in row.values())
    assert not moved(run.model.encoders["m0"], before["m0"]), "weights and running statistics stay"
    assert moved(run.model.encoders["m1"], before["m1"])
    assert not any(module.training for module in run.model.encoders["m0"].modules())
    optimized = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert not optimized & {id(p) for p in run.model.encoders["m0"].parameters()}


@pytest.mark.parametrize("method", TRAINS_ALL)
def test_methods_that_need_every_encoders_gradients_refuse_frozen_ones(method):
    asked = setting(fusion_for(method), epochs=1000)
    assert methods[method].refuses(methods[method].Params(), asked) is None
    why = methods[method].refuses(methods[method].Params(), asked._replace(frozen=("m0",)))
    assert why == "expected encoders that are trained, but got freeze for m0"


@pytest.mark.parametrize("fusion", ["mmtm", "centralnet"])
def test_a_frozen_encoder_meets_the_others_and_the_run_resumes(fusion):
    whole = trainer({"m0": {"freeze": True}}, fusion=fusion)
    start = copied(whole.model.encoders["m0"])
    rows = [whole.epoch(epoch) for epoch in range(2)]
    begun, resumed = (trainer({"m0": {"freeze": True}}, fusion=fusion) for _ in "12")
    begun.epoch(0)
    resumed.load_state_dict({name: value.clone() for name, value in begun.state_dict().items()})
    assert resumed.epoch(1)["loss"] == rows[1]["loss"]
    assert not moved(resumed.model.encoders["m0"], start)
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in resumed.state_dict().items())


def test_each_part_has_its_own_learning_rate():
    """Without momentum and decay the first step is the gradient times the rate."""
    plain = {"momentum": 0.0, "weight_decay": 0.0, "batch_size": 26}
    steps = {}
    for name, changes, rate in (("even", {}, 1.0), ("own", {"m0": {"lr_factor": 0.1}}, 2.0)):
        run = trainer(changes, rate=rate, **plain)
        before = {k: p.detach().clone() for k, p in run.model.named_parameters()}
        run.epoch(0)
        steps[name] = {k: p.detach() - before[k] for k, p in run.model.named_parameters()}
        assert run.context.step == 1
    for name, step in steps["own"].items():
        factor = {"encoders.m0": 0.1, "encoders.m1": 2.0 / 2.0}.get(".".join(name.split(".")[:2]), 2.0)
        torch.testing.assert_close(step, factor * steps["even"][name], rtol=1e-3, atol=1e-7)
    assert len(run.optimizer.param_groups) == 3


def test_a_methods_modules_learn_with_the_fusion():
    run = trainer({}, "joint_unimodal", rate=0.5)
    slow = next(group for group in run.optimizer.param_groups if group["factor"] == 0.5)
    assert {id(p) for p in slow["params"]} == {
        id(p) for part in (run.model.fusion, run.model.extra) for p in part.parameters()
    }


def test_the_default_is_one_group_in_the_models_order():
    run = trainer({})
    (group,) = run.optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in run.model.parameters()] and group["factor"] == 1


def test_the_address_holds_the_fusions_rate_only_where_it_differs():
    what = spec(SyntheticCache(2))
    assert "fusion_params" not in what.address()
    assert replace(what, fusion_params=FusionParams(lr_factor=0.1)).address()["fusion_params"]["lr_factor"] == 0.1


def test_a_frozen_encoder_has_no_learning_rate():
    with pytest.raises(ValueError, match="expected no `lr_factor`"):
        encoders["resnet"].Params(width=4, depth=[1], freeze=True, lr_factor=0.1)
