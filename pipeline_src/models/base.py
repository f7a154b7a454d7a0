"""What an encoder is, and the registries of encoders and fusions. Imports no torch; see `fusions/base.py` for
fusions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from pipeline_src.core.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from pipeline_src.media.base import Extractor

encoders = Registry("pipeline_src.models.encoders", "encoder")
fusions = Registry("pipeline_src.models.fusions", "fusion")


class EncoderParams(BaseModel):
    """Parameters of one modality's encoder; `kind` names it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    kind: str

    def identity(self) -> dict[str, Any]:
        """What determines the encoder: the parameters, with a file's content in the place of its path."""
        return self.model_dump()


class Encoder:
    """How one modality becomes a vector. `shape` is one clip's, `layout` its extractor's; `layouts` are those it can
    read.
    """

    Params: ClassVar[type[EncoderParams]] = EncoderParams
    layouts: ClassVar[tuple[str, ...]]

    def __init__(self, params: EncoderParams, layout: str, shape: tuple[int, ...]):
        self.params, self.layout, self.shape = params, layout, shape

    @classmethod
    def refuses(cls, params: EncoderParams, extractor: Extractor) -> str | None:
        """Why it cannot read what the extractor gives, or None."""
        if extractor.layout in cls.layouts:
            return None
        return f"expected an encoder of layout {extractor.layout!r}, but got {cls.name!r} of {', '.join(cls.layouts)}"

    @property
    def features(self) -> int:
        """Length D of the feature vector."""
        raise NotImplementedError

    def build(self) -> nn.Module:
        """A module (B, *shape) -> (B, D), its weights drawn from torch's global generator."""
        raise NotImplementedError


def too_few_words(rows: int | None, extractor: Extractor) -> str | None:
    """What to say of an embedding with fewer rows than the extractor has numbers, or None."""
    vocabulary = getattr(extractor, "vocabulary", None)
    if rows is None or vocabulary is None or rows >= vocabulary:
        return None
    return f"expected words of at least {vocabulary:,}, the recipe's numbers, but got {rows:,}"
