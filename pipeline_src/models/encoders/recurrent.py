"""A bidirectional LSTM over the segments of a sample, on features of each segment: the encoders of audio-visual event
localisation (Tian et al., ECCV 2018, arXiv:1803.08842).

    v_t     = mean over places of the features of segment t       after what a fusion with taps makes of them
    f_t     = [forward LSTM; backward LSTM](v_1 ... v_T) at t     width numbers each way

Published: width 128; pictures have 49 places of 512 numbers (VGG-19, pool5), sound one of 128 (VGGish). The released
code has the layers as here; its LSTMs start from PyTorch's default weights, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline_src.core.params import WIDTH
from pipeline_src.models.base import Encoder, EncoderParams, encoders

if TYPE_CHECKING:
    from torch import nn

    from pipeline_src.media.base import Extractor


class RecurrentParams(EncoderParams):
    kind: Literal["recurrent"] = "recurrent"
    channels: int = Field(ge=1, le=65_536, description="numbers of a place; published 512 (pictures), 128 (sound)")
    places: int = Field(1, ge=1, le=65_536, description="places of a segment, one after the other; published 49 and 1")
    segments: int = Field(ge=2, le=10_000, description="segments of a sample; published 10")
    width: int = Field(128, ge=1, le=WIDTH, description="numbers of the LSTM's state each way; published 128")


@encoders.register("recurrent")
class Recurrent(Encoder):
    """Sequences (B x T, 1, places x channels), a row per segment -> features (B x T, 2 width)."""

    Params = RecurrentParams
    params: RecurrentParams
    layouts = ("sequence",)

    @classmethod
    def refuses(cls, params: RecurrentParams, extractor: Extractor) -> str | None:
        if why := super().refuses(params, extractor):
            return why
        wanted, got = (params.segments, params.places * params.channels), tuple(extractor.shape)
        if got != wanted:
            return f"expected `segments` x (`places` times `channels`) of {got[0]} x {got[1]}, but got {wanted}"
        return None

    @classmethod
    def taps(cls, params: Any) -> dict[str, int]:
        return {"places": params.channels}

    @property
    def features(self) -> int:
        return 2 * self.params.width

    def build(self) -> nn.Module:
        from torch import nn

        from pipeline_src.models.recurrent import OverSegments, Places
        from pipeline_src.models.stages import Stages

        p = self.params
        lstm = nn.LSTM(p.channels, p.width, batch_first=True, bidirectional=True)
        mean = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(1))
        return Stages([("places", Places(p.places)), ("mean", mean), ("lstm", OverSegments(lstm, p.segments))])
