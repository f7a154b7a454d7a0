"""The optimizers give PyTorch's own bits, and training does not import the compiler."""

import subprocess
import sys

import pytest
import torch

from pipeline_src.training.optimizer import uncompiled
from tests.attacks.judge import environment


@pytest.mark.parametrize(
    ("kind", "options"),
    [(torch.optim.SGD, {"momentum": 0.9, "weight_decay": 1e-4}), (torch.optim.AdamW, {"weight_decay": 1e-2})],
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


CODE = """
import sys
import torch
from pipeline_src.training import device
from pipeline_src.training.optimizer import uncompiled
device.deterministic(torch.device("cpu"), 1)
assert torch.are_deterministic_algorithms_enabled()
for kind in (torch.optim.SGD, torch.optim.AdamW):
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
