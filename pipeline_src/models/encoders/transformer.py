"""Transformer encoder (Vaswani et al., NIPS 2017, arXiv:1706.03762) on sequences of features, words, or patches of
pictures, PyTorch's own layers.

Patches make it a vision transformer (Dosovitskiy et al., ICLR 2021, arXiv:2010.11929), with `pool: class`,
`norm: before` and `activation: gelu`: MBT joins such encoders of frames and spectrograms. Positions stay sines, in the
order of frames, rows and columns, where those papers learn them. With `layers: 0` each step is mapped to `width`, which
is what MulT begins with.

BalanceBenchmark (arXiv:2502.10816) reads CMU-MOSEI with 2 layers of width 1,024, 4 heads, feed-forward 512, dropout
0.1, ReLU and the norm after each part, takes the first step's output as the features, gives the steps no positions and
attends to padding as to anything else. Padding is left out here unless `padding` says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

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
    layers: int = Field(ge=0, le=100, description="published 2; 0: a linear map of each step, as MulT needs it")
    heads: int = Field(ge=1, description="attention heads, a divisor of `width`; published 4")
    feedforward: int = Field(ge=1, le=65_536, description="width inside a layer's feed-forward part; published 512")
    words: int | None = Field(
        default=None, ge=2, description="tokens alone: rows of the embedding, at least the recipe's `buckets` + 1"
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="published 0.1")
    positions: Literal["sine", "none"] = Field(
        default="sine", description="sine: added to the steps, as in the paper; none: as in BalanceBenchmark"
    )
    pool: Literal["mean", "first", "last", "class"] = Field(
        default="mean",
        description="the features: the mean over steps that are no padding; the first step, as in BalanceBenchmark; "
        "the last one, as in MulT; or a class token, a learnt step in front of the others, as in MBT",
    )
    patch: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="frames and spectrograms alone: height and width of a patch, in pixels; published 16"
    )
    norm: Literal["after", "before"] = Field(
        default="after", description="layer norm after each part, as published, or before each and once at the end"
    )
    activation: Literal["relu", "gelu"] = Field(default="relu", description="inside the feed-forward part")
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
    """Sequences (B, T, D), tokens (B, T), or frames and spectrograms in patches -> features (B, width)."""

    Params = TransformerParams
    params: TransformerParams
    layouts = ("frames", "sequence", "spectrogram", "tokens")
    steps = True

    @classmethod
    def refuses(cls, params: TransformerParams, extractor: Extractor) -> str | None:
        words = params.words is not None
        if extractor.layout in cls.layouts and words != (extractor.layout == "tokens"):
            return "expected `words` for tokens, and for them alone"
        pictures = extractor.layout in ("frames", "spectrogram")
        if extractor.layout in cls.layouts and (params.patch is not None) != pictures:
            return "expected `patch` for frames and spectrograms, and for them alone"
        if params.patch is not None and pictures:
            (height, width), (rows, columns) = extractor.shape[-2:], params.patch
            if rows > height or columns > width:
                return f"expected a patch of at most {height} x {width} pixels, but got {rows} x {columns}"
        return super().refuses(params, extractor) or too_few_words(params.words, extractor)

    @classmethod
    def taps(cls, params: TransformerParams) -> dict[str, int]:
        names = [f"layer{i}" for i in range(1, params.layers + 1)] or ["read"]
        return dict.fromkeys(names, params.width)

    @property
    def features(self) -> int:
        return self.params.width

    def build(self) -> nn.Module:
        from collections import OrderedDict

        from torch import nn

        from pipeline_src.models.steps import LastLayer, Layer, Steps, Token

        p, norm_first = self.params, self.params.norm == "before"
        read: nn.Module = self._read()
        if p.pool == "class":
            read = nn.Sequential(OrderedDict(steps=read, token=Token(p.width)))
        how = {"activation": p.activation, "norm_first": norm_first, "batch_first": True}
        kinds = [Layer] * (p.layers - 1) + [LastLayer if norm_first else Layer] * (p.layers > 0)
        layers = [kind(p.width, p.heads, p.feedforward, p.dropout, **how) for kind in kinds]
        return Steps(read, layers, "first" if p.pool == "class" else p.pool)

    def _read(self) -> nn.Module:
        """What makes steps of the input."""
        from pipeline_src.models.stages import image_channels
        from pipeline_src.models.steps import Patches, Vectors, Words, sine

        p, length = self.params, self.shape[0]
        if p.patch is not None:
            rows, columns = (side // part for side, part in zip(self.shape[-2:], p.patch, strict=True))
            length = rows * columns * (self.shape[0] if self.layout == "frames" else 1)
        positions = sine(length, p.width) if p.positions == "sine" else None
        if p.patch is not None:
            return Patches(image_channels(self.layout, self.shape), p.width, (p.patch[0], p.patch[1]), positions)
        if p.words is not None:
            return Words(p.words, p.width, positions, p.padding == "mask")
        return Vectors(self.shape[1], p.width, positions, p.padding == "mask")
