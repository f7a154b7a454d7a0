"""Transformer encoder (Vaswani et al., NIPS 2017, arXiv:1706.03762) on sequences of features or words, PyTorch's own
layers.

BalanceBenchmark (arXiv:2502.10816) reads CMU-MOSEI with 2 layers of width 1,024, 4 heads, feed-forward 512, dropout
0.1, ReLU and the norm after each part, takes the first step's output as the features, gives the steps no positions and
attends to padding as to anything else. Padding is left out here unless `padding` says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from pipeline_src.core.params import WIDTH
from pipeline_src.models.base import Encoder, EncoderParams, encoders, too_few_words

if TYPE_CHECKING:
    from torch import nn

    from pipeline_src.media.base import Extractor


class TransformerParams(EncoderParams):
    kind: Literal["transformer"] = "transformer"
    width: int = Field(
        ge=1, le=WIDTH, description="length of a step's vector and of the feature vector; published 1024"
    )
    layers: int = Field(ge=1, le=100, description="published 2")
    heads: int = Field(ge=1, description="attention heads, a divisor of `width`; published 4")
    feedforward: int = Field(ge=1, le=65_536, description="width inside a layer's feed-forward part; published 512")
    words: int | None = Field(
        default=None, ge=2, description="tokens alone: rows of the embedding, at least the recipe's `buckets` + 1"
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="published 0.1")
    positions: Literal["sine", "none"] = Field(
        default="sine", description="sine: added to the steps, as in the paper; none: as in BalanceBenchmark"
    )
    pool: Literal["mean", "first"] = Field(
        default="mean",
        description="the features: the mean over steps that are no padding, or the first step, as in BalanceBenchmark",
    )
    padding: Literal["mask", "read"] = Field(
        default="mask",
        description="steps of nothing but zeros: left out of attention and mean, or read like others, as in "
        "BalanceBenchmark. A clip of padding alone is read in either case",
    )

    @model_validator(mode="after")
    def _even_heads(self) -> TransformerParams:
        if self.width % self.heads or (self.positions == "sine" and self.width % 2):
            raise ValueError("expected a width that `heads` divides, and an even one for `positions: sine`")
        return self


@encoders.register("transformer")
class Transformer(Encoder):
    """Sequences (B, T, D) or tokens (B, T) -> features (B, width)."""

    Params = TransformerParams
    params: TransformerParams
    layouts = ("sequence", "tokens")

    @classmethod
    def refuses(cls, params: TransformerParams, extractor: Extractor) -> str | None:
        words = params.words is not None
        if extractor.layout in cls.layouts and words != (extractor.layout == "tokens"):
            return "expected `words` for tokens, and for them alone"
        return super().refuses(params, extractor) or too_few_words(params.words, extractor)

    @classmethod
    def taps(cls, params: TransformerParams) -> dict[str, int]:
        return {f"layer{i}": params.width for i in range(1, params.layers + 1)}

    @property
    def features(self) -> int:
        return self.params.width

    def build(self) -> nn.Module:
        from pipeline_src.models.steps import Layer, Steps, Vectors, Words, sine

        p = self.params
        positions = sine(self.shape[0], p.width) if p.positions == "sine" else None
        how = p.width, positions, p.padding == "mask"
        read = Words(p.words, *how) if self.layout == "tokens" else Vectors(self.shape[1], *how)
        layers = [Layer(p.width, p.heads, p.feedforward, p.dropout, batch_first=True) for _ in range(p.layers)]
        return Steps(read, layers, p.pool)
