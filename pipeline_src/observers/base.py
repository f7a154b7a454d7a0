"""An observer reads a run between two epochs: any method, joint training included. It changes no result.

An observer is a plug-in: one file, a class that is registered where it stands and declares its quantities as a method
does. What it computes joins the epoch's line of metrics.jsonl, so that the report, MLflow and DVC's plots draw it. It
runs under `training.observe`, which keeps every generator of random numbers, the mode of the model and its tensors as
they were. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import Field

from pipeline_src.core.params import EPOCHS, Section
from pipeline_src.core.registry import Registry
from pipeline_src.methods.base import Batch, Method, Quantity, Setting

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch
    from torch import Generator, Tensor

    from pipeline_src.models.multimodal import MultimodalModel
    from pipeline_src.tasks.base import Task

__all__ = ["SECONDS", "Observed", "Observer", "ObserverParams", "Pass", "Setting", "observers"]

observers = Registry("pipeline_src.observers", "observer")

SECONDS = Quantity(
    "observer_seconds",
    "s",
    "The time that the observers take, which the seconds of training leave out.",
    of="model",
    detail=True,
)


@dataclass(frozen=True)
class Pass:
    """One pass over a split, in evaluation mode and without augmentation, as float32. Where samples have segments, each
    is a row.

    features  {m: (N, D_m)}, on the CPU
    logits    (N, C), the method's prediction
    unimodal  {m: (N, C)}, what the model predicts from each modality; empty for a model of one
    label     (N, ...), the task's targets
    """

    features: dict[str, Tensor]
    logits: Tensor
    unimodal: dict[str, Tensor]
    label: Tensor


class Observed(Protocol):
    """A run as observers see it. `splits` names what may be read: train, val, and test if params.yaml tracks it."""

    model: MultimodalModel
    method: Method
    task: Task
    epoch: int  # from 0, the one that has ended
    splits: tuple[str, ...]
    device: torch.device

    def seen(self, split: str) -> Pass:
        """The pass over a split, made once for all observers of an epoch."""
        ...

    def label(self, split: str) -> Tensor:
        """The targets (N, ...) of a split; a row per segment where samples have segments."""
        ...

    def samples(self, split: str) -> int:
        """How many samples a split has."""
        ...

    def batches(self, split: str, rows: Tensor | None = None) -> Iterator[Batch]:
        """Batches of the samples `rows` (default: all) of a split as the model reads them, without augmentation."""
        ...

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the run."""
        ...

    def generator(self, *name: object) -> Generator:
        """A generator for one named use: the same in every epoch, for every method of the seed."""
        ...


class ObserverParams(Section):
    """Parameters of an observer."""

    affects = "train"  # by what metrics.jsonl holds: the weights of an observed run are those of any other

    every: int = Field(
        default=1, ge=1, le=EPOCHS, description="epochs from one observation to the next; the last is always observed"
    )


class Observer:
    """What is computed of a run when an epoch has ended."""

    Params: ClassVar[type[ObserverParams]] = ObserverParams
    quantities: ClassVar[tuple[Quantity, ...]] = ()
    name: ClassVar[str]  # that it is registered under

    def __init__(self, params: Any):
        self.params = params

    @classmethod
    def refuses(cls, params: Any, setting: Setting) -> str | None:
        """Why it cannot observe a run in this setting, or None; such runs go without it. `params` is of type Params."""
        return None

    def observe(self, run: Observed) -> dict[str, float]:
        """Values of the declared quantities: `name/m` of a modality m, or `name` of the model.

        What is not finite is left out. Raises UserError where there is no value this time; training goes on.
        """
        raise NotImplementedError
