"""A corruption spoils samples of one modality, as the model reads them: after normalisation, on the device.

A plug-in is one file with a class that is registered where it stands. `evaluation.corruptions` names those of testing,
with their rates; `training.augmentation.<modality>.corruption` those of training batches. Nothing here imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from pipeline_src.core.params import Section, unique
from pipeline_src.core.registry import Registry

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Corruption", "CorruptionParams", "corruptions", "too_much", "unfit"]

corruptions = Registry("pipeline_src.corruptions", "corruption")


def _rising(rates: list[float]) -> list[float]:
    """Validator: each rate above the one before."""
    if rates != sorted(set(rates)):
        raise ValueError("expected ascending rates, each once")
    return rates


class CorruptionParams(Section):
    """Parameters of a corruption, and at which rates and of which modalities the evaluation scores it."""

    affects = "evaluate"

    rates: Annotated[
        list[Annotated[float, Field(gt=0)]],
        Field(min_length=1, max_length=100),
        AfterValidator(_rising),
    ] = Field(default=[0.25, 0.5, 0.75, 1.0], description="how much of it, ascending; without it the rate is 0")
    modalities: Annotated[list[str], Field(min_length=1), AfterValidator(unique)] | None = Field(
        default=None,
        description="that are corrupted, each by itself and then all of them together; null: all that can be",
    )


class Corruption:
    """Spoils samples x (B, ...) of one modality. Rate 0 leaves them as they are."""

    Params: ClassVar[type[CorruptionParams]] = CorruptionParams
    layouts: ClassVar[tuple[str, ...]] = ("frames", "spectrogram", "sequence", "tokens")  # that it can spoil
    most: ClassVar[float] = 1.0  # largest rate
    caption: ClassVar[str]  # a whole sentence: what a rate means
    name: ClassVar[str]  # that it is registered under

    def __init__(self, params: Any = None):
        self.params = self.Params() if params is None else params

    def __call__(self, x: Tensor, layout: str, rate: float, spread: Tensor, generator: Generator) -> Tensor:
        """The corrupted samples; x stays as it is.

        `layout` is that of the modality's extractor, `spread` the standard deviation of the training split in the
        units of x, which broadcasts to it. As many numbers are drawn from `generator`, on its device, for each rate, so
        that what a small rate spoils a larger one spoils too.
        """
        raise NotImplementedError


def too_much(name: str, rate: float) -> str | None:
    """Why a registered corruption cannot have a rate, or None."""
    most = corruptions[name].most
    return None if rate <= most else f"expected a rate of at most {most:g}, but got {rate:g}"


def unfit(name: str, layout: str) -> str | None:
    """Why a registered corruption cannot spoil modalities of a layout, or None."""
    layouts = corruptions[name].layouts
    return None if layout in layouts else f"expected a modality of {' or '.join(layouts)} for {name}, but got {layout}"
