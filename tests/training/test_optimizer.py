"""The optimizers give PyTorch's own bits, and training does not import the compiler."""

import subprocess
import sys
from typing import get_args

import pytest
import torch

from pipeline_src.training import optimizer as optimizers
from pipeline_src.training.optimizer import optimizer, uncompiled
from pipeline_src.training.params import Training
from tests.attacks.judge import environment
from tests.synthetic import SCHEDULE


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 1e-4}),
        (torch.optim.Adam, {"weight_decay": 1e-4}),
        (torch.optim.AdamW, {"weight_decay": 1e-2}),
        (torch.optim.Adagrad, {"weight_decay": 1e-4}),
    ],
)
def test_steps_and_state_are_pytorchs_own(kind, options):
    results = []
    for made in (kind, uncompiled(kind)):
        draw = torch.Generator().manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in ((3, 4), (5,))]
        first, second = (made(parameters, lr=0.1, **options) for _ in "12")
        for step in range(4):
            one = first if step < 2 else second
            for p in parameters:
                p.grad = torch.randn(p.shape, generator=draw)
            if step == 2:
                second.load_state_dict(first.state_dict())
            one.step()
            one.zero_grad()
            assert all(p.grad is None for p in parameters)
        results.append([p.detach() for p in parameters] + [x for s in second.state.values() for x in s.values()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("name", get_args(Training.model_fields["optimizer"].annotation))
def test_stepping_all_tensors_together_gives_the_same_numbers(name, monkeypatch):
    results = []
    for together in (None, True):
        monkeypatch.setattr(optimizers, "_together", lambda parameters, together=together: together)
        draw = torch.Generator().manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in ((3, 4), (5,), (2,))]
        one = optimizer(parameters, schedule(optimizer=name, momentum=0.9, weight_decay=1e-2))
        for step in range(4):
            for i, p in enumerate(parameters):  # the last has no gradient now and then, as in alternating training
                p.grad = torch.randn(p.shape, generator=draw) if i < 2 or step % 2 else None
            one.step()
        results.append([p.detach() for p in parameters])
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)


def schedule(**changes) -> Training:
    values = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, **changes}
    return Training.model_validate({**SCHEDULE, **values})


STEPPED = {  # of a weight 1 by the gradients 2 and 1 at learning rate 0.1 without decay
    "sgd": 1 - 0.1 * 2 - 0.1 * 1,
    "adagrad": 1 - 0.1 * 2 / 2 - 0.1 * 1 / 5**0.5,  # by the root of the sum of squares
    # m / (1 - 0.9^t) over the root of v / (1 - 0.999^t): 1 at the first step
    "adam": 1 - 0.1 - 0.1 * ((0.9 * 0.2 + 0.1) / 0.19) / ((0.999 * 0.004 + 0.001) / 0.001999) ** 0.5,
}


@pytest.mark.parametrize("name", STEPPED)
def test_two_steps_by_hand(name):
    p = torch.nn.Parameter(torch.ones(1))
    one = optimizer([p], schedule(optimizer=name))
    for gradient in (2.0, 1.0):
        p.grad = torch.tensor([gradient])
        one.step()
    assert p.item() == pytest.approx(STEPPED[name], rel=1e-5)


def test_beta2_is_that_of_the_schedule():
    for name in ("adam", "adamw"):
        (group,) = optimizer([torch.nn.Parameter(torch.ones(1))], schedule(optimizer=name, beta2=0.99)).param_groups
        assert group["betas"] == (0.9, 0.99)


def test_only_adamw_keeps_the_decay_out_of_its_gradient():
    moved = {}
    for name in ("adam", "adamw", "adagrad", "sgd"):
        p = torch.nn.Parameter(torch.ones(1))
        one = optimizer([p], schedule(optimizer=name, weight_decay=0.5))
        p.grad = torch.zeros(1)
        one.step()
        moved[name] = 1 - p.item()
    assert [moved["adam"], moved["adagrad"]] == pytest.approx([0.1, 0.1], rel=1e-5)  # of a gradient 0.5, scaled to 1
    assert [moved["adamw"], moved["sgd"]] == pytest.approx([0.1 * 0.5] * 2, rel=1e-5)


def test_adagrad_has_no_state_of_a_parameter_that_was_never_stepped_and_begins_again_where_it_is_dropped():
    p, idle = (torch.nn.Parameter(torch.ones(1)) for _ in "12")
    one = optimizer([p, idle], schedule(optimizer="adagrad"))
    assert not one.state
    for _ in "12":
        one.state.pop(p, None)
        p.grad = torch.ones(1)
        one.step()
    assert list(one.state) == [p] and one.state[p]["sum"].item() == 1


CODE = """
import sys
import torch
from pipeline_src.training import device
from pipeline_src.training.optimizer import LazyAdagrad, uncompiled
device.deterministic(torch.device("cpu"), 1)
assert torch.are_deterministic_algorithms_enabled()
for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, LazyAdagrad):
    p = torch.nn.Parameter(torch.ones(3))
    one = uncompiled(kind)([p], lr=0.1)
    p.sum().backward()
    one.step()
    one.zero_grad()
    one.load_state_dict(one.state_dict())
found = [name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules]
assert not found, found
"""


def test_the_compiler_is_not_imported():
    done = subprocess.run([sys.executable, "-c", CODE], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
