"""A balancing method is only its difference from joint training: hooks that the one training loop calls.

Nothing here imports torch, so that params.yaml and the grid are read without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from pipeline_src.core.lazy import torch
from pipeline_src.core.params import Section
from pipeline_src.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_src.models.multimodal import Output
    from pipeline_src.training.loader import Batch
    from pipeline_src.training.loop import Context

methods = Registry("pipeline_src.methods", "method")


@dataclass(frozen=True)
class Quantity:
    """A number that a method logs by `ctx.log`, as `name` of the model or as `name/m` of each modality m.

    The report, MLflow and DVC's plots draw what is declared, with its caption; what is not declared is not drawn.
    """

    name: str
    unit: str  # "" for a pure number
    caption: str  # a whole sentence: what the number is
    scale: Literal["linear", "log"] = "linear"
    reference: float | None = None  # a line across the plot, such as the ratio of modalities that are even
    limits: tuple[float, float] | None = None  # of the values, where there are any
    detail: bool = False  # drawn of each run by itself, but not in comparisons


class MethodParams(Section):
    """Parameters of a method: default, range, and the table of the paper that they come from."""


class WindowParams(MethodParams):
    """Parameters of a method that acts from one epoch to another; it says in their descriptions what is published."""

    first_epoch: int = Field(default=0, ge=0)
    last_epoch: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> WindowParams:
        if self.last_epoch is not None and self.last_epoch < self.first_epoch:
            raise ValueError(f"expected last_epoch of at least first_epoch = {self.first_epoch}")
        return self

    def within(self, epoch: int) -> bool:
        """Whether an epoch, from 0, is in the window; both ends are."""
        return self.first_epoch <= epoch and (self.last_epoch is None or epoch <= self.last_epoch)

    def beyond(self, epochs: int) -> str | None:
        """Why the window does not fit a run of so many epochs, or None."""
        for name in ("first_epoch", "last_epoch"):
            epoch = getattr(self, name)
            if epoch is not None and epoch >= epochs:
                return f"expected {name} below training.epochs = {epochs}, but got {epoch}"
        return None


class Phase(NamedTuple):
    """One pass over the training batches; an epoch has one, named joint, unless the method says otherwise."""

    name: str = "joint"


class Method:
    """Joint training. A method overrides the hooks in which it differs, in the order in which they are called here."""

    Params: ClassVar[type[MethodParams]] = MethodParams
    quantities: ClassVar[tuple[Quantity, ...]] = ()

    @classmethod
    def refuses(cls, params: MethodParams, fusion: str, modalities: int, epochs: int) -> str | None:
        """Why the method cannot work with this fusion, number of modalities or length of the run, or None.

        Asked before any run starts; one line, "expected ..., but got ...", reported at the method's block.
        """
        return None

    @classmethod
    def extension(cls, params: MethodParams, modalities: int) -> str | None:
        """What no paper gives about the method with this many modalities, for the tables; None where a paper does."""
        return None

    def __init__(self, params: MethodParams):
        self.params = params

    def on_train_start(self, ctx: Context) -> None:
        """Before the first epoch: snapshots."""

    def before_epoch(self, ctx: Context) -> list[Phase]:
        """Prototypes and schedules; returns the passes of the epoch.

        Not called again when a run goes on within the epoch: what later hooks need of it belongs in `state_dict`.
        """
        return [Phase()]

    def on_features(
        self, ctx: Context, features: dict[str, Tensor], batch: Batch
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Between encoders and fusion: features {m: (B, D_m)} in and out; the rows kept (B,) bool, or None for all."""
        return features, None

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Named scalars; their sum is minimised and each is logged."""
        return {"loss": torch.nn.functional.cross_entropy(output.logits, batch.label)}

    def after_backward(self, ctx: Context, output: Output, batch: Batch) -> None:
        """Gradients are there and may be scaled or added to, through `ctx.model.encoders[m]`."""

    def after_epoch(self, ctx: Context) -> None:
        """Weights may be changed here."""

    def state_dict(self) -> dict[str, Tensor]:
        """What the method must have to resume exactly after any step: tensors by name."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave, on the run's device."""
