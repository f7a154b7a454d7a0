"""The mean of a text's word vectors, which are learnt: the simplest encoder of words.

It does not see their order; `transformer` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_src.core.params import WIDTH
from pipeline_src.models.base import Encoder, EncoderParams, encoders, too_few_words

if TYPE_CHECKING:
    from torch import nn

    from pipeline_src.media.base import Extractor


class EmbeddingParams(EncoderParams):
    kind: Literal["embedding"] = "embedding"
    words: int = Field(ge=2, le=2**31 - 1, description="rows of the table, at least the recipe's `buckets` + 1")
    width: int = Field(ge=1, le=WIDTH, description="length of a word's vector and of the feature vector")


@encoders.register("embedding")
class Embedding(Encoder):
    """Tokens (B, T) -> features (B, width); word 0 is padding and is left out of the mean."""

    Params = EmbeddingParams
    params: EmbeddingParams
    layouts = ("tokens",)
    steps = True

    @classmethod
    def refuses(cls, params: EmbeddingParams, extractor: Extractor) -> str | None:
        return super().refuses(params, extractor) or too_few_words(params.words, extractor)

    @classmethod
    def taps(cls, params: EmbeddingParams) -> dict[str, int]:
        return {"read": params.width}

    @property
    def features(self) -> int:
        return self.params.width

    def build(self) -> nn.Module:
        from pipeline_src.models.steps import Steps, Words

        return Steps(Words(self.params.words, self.params.width), [], "mean")
