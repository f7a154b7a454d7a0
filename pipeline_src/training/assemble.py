"""A model with the modules of its method: what training, evaluation and the methods that require a run build alike."""

from collections.abc import Mapping
from typing import Any

import torch

from pipeline_src.core.seeding import seed_of
from pipeline_src.methods.base import Method, methods
from pipeline_src.models.multimodal import MultimodalModel, build
from pipeline_src.training.spec import RunSpec


def assemble(
    spec: RunSpec, inputs: Mapping[str, dict[str, Any]], classes: int, seed: int
) -> tuple[MultimodalModel, Method]:
    """The model with the initial weights of `seed`, on the CPU, and its method; see `models.multimodal.build`."""
    model = build(spec.encoders, spec.fusion, inputs, classes, seed)
    method = methods[spec.method](spec.params)
    add_modules(model, method, classes, seed)
    return model, method


def add_modules(model: MultimodalModel, method: Method, classes: int, seed: int) -> None:
    """Put the method's own modules into `model.extra`, their weights drawn under a seed of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "method"))
        model.extra.update(method.modules(dict(model.fusion.dims), classes))
