"""The small network of Colored-and-gray MNIST in PMR (Fan et al., CVPR 2023, arXiv:2211.07089), with its numbers.

    batch norm of the input
    5 x 5, 32, ReLU; maximum of 3 x 3 every 2; 3 x 3, 32, ReLU; 3 x 3 every 2, 64, ReLU; 3 x 3, 64, ReLU
    mean over places; linear to the features

On 28 x 28 pixels it equals the released network layer for layer, whose last mean is over 7 x 7 places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_src.core.params import WIDTH
from pipeline_src.models.base import Encoder, EncoderParams, encoders

if TYPE_CHECKING:
    from torch import nn


class ConvNetParams(EncoderParams):
    kind: Literal["convnet"] = "convnet"
    width: int = Field(
        ge=1, le=WIDTH, description="channels of the first two layers, doubled in the last two; published 32"
    )
    features: int = Field(ge=1, le=65_536, description="length of the feature vector; published 512")


@encoders.register("convnet")
class ConvNet(Encoder):
    """Frames (B, T, C, H, W) or spectrograms (B, F, T) -> features (B, features): the mean over a clip's frames."""

    Params = ConvNetParams
    params: ConvNetParams
    layouts = ("frames", "spectrogram")

    @classmethod
    def taps(cls, params: ConvNetParams) -> dict[str, int]:
        return {"maxpool": params.width, "relu2": params.width, "relu3": 2 * params.width, "relu4": 2 * params.width}

    @property
    def features(self) -> int:
        return self.params.features

    def build(self) -> nn.Module:
        from torch import nn

        from pipeline_src.models.stages import image_channels, pictures

        p, channels = self.params, image_channels(self.layout, self.shape)
        trunk = [
            ("bn0", nn.BatchNorm2d(channels)),
            ("conv1", nn.Conv2d(channels, p.width, 5, padding=2)),
            ("relu1", nn.ReLU(inplace=True)),
            ("maxpool", nn.MaxPool2d(3, stride=2, padding=1)),
            ("conv2", nn.Conv2d(p.width, p.width, 3, padding=1)),
            ("relu2", nn.ReLU(inplace=True)),
            ("conv3", nn.Conv2d(p.width, 2 * p.width, 3, stride=2, padding=1)),
            ("relu3", nn.ReLU(inplace=True)),
            ("conv4", nn.Conv2d(2 * p.width, 2 * p.width, 3, padding=1)),
            ("relu4", nn.ReLU(inplace=True)),
            ("avgpool", nn.AdaptiveAvgPool2d(1)),
            ("vector", nn.Flatten(1)),
            ("fc", nn.Linear(2 * p.width, p.features)),
        ]
        return pictures(self.layout, self.shape, trunk)
