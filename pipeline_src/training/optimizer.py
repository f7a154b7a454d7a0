"""The optimizers, without PyTorch's compiler.

PyTorch's own import the compiler (`torch._dynamo`, 900 modules, as long as the rest of PyTorch takes) at their first
call, only to tell it to leave them alone. Nothing here is compiled.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from pipeline_src.training import device as devices

if TYPE_CHECKING:
    from pipeline_src.models.multimodal import MultimodalModel
    from pipeline_src.training.params import Training
    from pipeline_src.training.spec import RunSpec

Kind = TypeVar("Kind", bound=Optimizer)
BETA1 = 0.9  # of adam and adamw
TELL_THE_COMPILER = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")  # methods of an Optimizer


def optimizer(parameters: Iterable[torch.nn.Parameter] | list[dict[str, Any]], schedule: Training) -> Optimizer:
    """The optimizer of a schedule, for parameters or groups of them."""
    t, parameters = schedule, cast(list, list(parameters))
    together = _together(parameters)
    match t.optimizer:
        case "sgd":
            return uncompiled(SGD)(parameters, t.lr, momentum=t.momentum, weight_decay=t.weight_decay, foreach=together)
        case "adam":  # weight decay as part of the gradient
            return uncompiled(Adam)(parameters, t.lr, (BETA1, t.beta2), weight_decay=t.weight_decay, foreach=together)
        case "adamw":
            return uncompiled(AdamW)(parameters, t.lr, (BETA1, t.beta2), weight_decay=t.weight_decay, foreach=together)
        case "adagrad":
            return uncompiled(LazyAdagrad)(parameters, t.lr, weight_decay=t.weight_decay, foreach=together)


def _together(parameters: list[Any]) -> bool | None:
    """Whether all tensors are stepped in one operation: on a GPU, where those of one tensor after the other are three
    quarters of a small model's. None leaves it to PyTorch, which on a CPU takes one after the other.
    """
    tensors = [p for part in parameters for p in (part["params"] if isinstance(part, dict) else [part])]
    return True if tensors and devices.streams(tensors[0].device) else None


class LazyAdagrad(Adagrad):
    """Adagrad that begins its sums at a parameter's first step, as the other optimizers do, so that what is never
    stepped has no state.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.state.clear()


def groups(model: MultimodalModel, spec: RunSpec) -> list[dict[str, Any]]:
    """The parameters that are trained, those with one `factor` on the learning rate together, in the model's order.

    An encoder has its own factor; all else, a method's modules included, has the fusion's.
    """
    factors = {p: spec.encoders[m].lr_factor for m, of in model.encoders.items() for p in of.parameters()}
    found: dict[float, list[torch.nn.Parameter]] = {}
    for p in model.parameters():
        if p.requires_grad:
            found.setdefault(factors.get(p, spec.fusion_params.lr_factor), []).append(p)
    return [{"params": of, "factor": factor} for factor, of in found.items()]


def uncompiled(kind: type[Kind]) -> type[Kind]:
    """`kind` whose methods are those that PyTorch's decorators wrap; of these, only `no_grad` computes anything."""
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in TELL_THE_COMPILER}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(inspect.unwrap(kind.step))})
