"""The optimizers, without PyTorch's compiler.

PyTorch's own import the compiler (`torch._dynamo`, 900 modules, as long as the rest of PyTorch takes) at their first
call, only to tell it to leave them alone. Nothing here is compiled.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch.optim import SGD, AdamW, Optimizer

if TYPE_CHECKING:
    from pipeline_src.training.params import Training

Kind = TypeVar("Kind", bound=Optimizer)
TELL_THE_COMPILER = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")  # methods of an Optimizer


def optimizer(parameters: Iterable[torch.nn.Parameter], schedule: Training) -> Optimizer:
    """The optimizer of a schedule."""
    t = schedule
    if t.optimizer == "sgd":
        return uncompiled(SGD)(parameters, t.lr, momentum=t.momentum, weight_decay=t.weight_decay)
    return uncompiled(AdamW)(parameters, t.lr, weight_decay=t.weight_decay)


def uncompiled(kind: type[Kind]) -> type[Kind]:
    """`kind` whose methods are those that PyTorch's decorators wrap; of these, only `no_grad` computes anything."""
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in TELL_THE_COMPILER}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(inspect.unwrap(kind.step))})
