"""A model with the modules of its method: what training, evaluation and the methods that require a run build alike."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from pipeline_src.core.seeding import seed_of
from pipeline_src.methods.base import Method, methods
from pipeline_src.models.multimodal import MultimodalModel, build
from pipeline_src.tasks.base import Task, tasks
from pipeline_src.tasks.segments import cut_shape
from pipeline_src.training.spec import RunSpec


class Assembly(NamedTuple):
    """What a spec stands for; the model has the initial weights of a seed and is on the CPU."""

    model: MultimodalModel
    method: Method
    task: Task


def assemble(spec: RunSpec, inputs: Mapping[str, dict[str, Any]], classes: int, seed: int) -> Assembly:
    """Model, method and task of a spec, for samples with inputs {m: {"layout", "shape"}}; see `multimodal.build`."""
    task = tasks[spec.task](classes)
    if spec.segments:
        shapes = {m: cut_shape(m, inputs[m]["layout"], tuple(inputs[m]["shape"]), spec.segments) for m in spec.encoders}
        inputs = {m: {**inputs[m], "shape": shape} for m, shape in shapes.items()}
    model = build(spec.encoders, spec.fusion, inputs, task.outputs, seed, spec.fusion_params, spec.init)
    method = methods[spec.method](spec.params)
    add_modules(model, method, task.outputs, seed)
    return Assembly(model, method, task)


def add_modules(model: MultimodalModel, method: Method, outputs: int, seed: int) -> None:
    """Put the method's own modules into `model.extra`, their weights drawn under a seed of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "method"))
        model.extra.update(method.modules(dict(model.fusion.dims), outputs))
