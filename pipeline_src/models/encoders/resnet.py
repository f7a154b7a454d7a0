"""Residual networks (He et al., CVPR 2016, arXiv:1512.03385).

Width 64 and depth [2, 2, 2, 2] is ResNet-18, the backbone of the papers; depth [3, 4, 6, 3] is ResNet-34, and with
`block: bottleneck` ResNet-50. Each equals torchvision's weight for weight without its last layer; the first convolution
takes as many channels as the modality has. A clip of several frames is the mean over frames and places, a spectrogram
one image of one channel (Peng et al., CVPR 2022). `weights` names a file to start from instead of random weights, such
as torchvision's for ImageNet.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.core.params import CHARACTERS, WIDTH, Affects, printable
from pipeline_src.models.base import Encoder, EncoderParams, encoders

if TYPE_CHECKING:
    from torch import nn


class ResNetParams(EncoderParams):
    kind: Literal["resnet"] = "resnet"
    width: int = Field(
        ge=1, le=WIDTH, description="channels of the first stage, doubled in each further one; ResNet-18 has 64"
    )
    depth: list[Annotated[int, Field(ge=1, le=100)]] = Field(
        min_length=1, max_length=8, description="blocks per stage; ResNet-18 has [2, 2, 2, 2], ResNet-50 [3, 4, 6, 3]"
    )
    block: Literal["basic", "bottleneck"] = Field(
        default="basic",
        description="basic: two 3x3 convolutions; bottleneck: 1x1, 3x3 and 1x1, four times the channels at the end",
    )
    weights: Annotated[
        Annotated[str, Field(max_length=CHARACTERS), AfterValidator(printable)] | None, Affects(None)
    ] = Field(
        default=None,
        description="file to start from: safetensors, or a PyTorch state dict with torchvision's names; null: random "
        "weights. A first convolution of other channels is adapted: each gets the mean of the file's channels, times "
        "their ratio",
    )

    @property
    def channels(self) -> list[int]:
        """Channels after each stage."""
        return [(4 if self.block == "bottleneck" else 1) * self.width * 2**i for i in range(len(self.depth))]

    @property
    def pretrained(self) -> bool:
        return self.weights is not None

    def weights_sha256(self) -> str | None:
        if self.weights is None:
            return None
        if not Path(self.weights).is_file():
            raise UserError(f"{self.weights}: expected the weights that model.encoders names, but got no such file")
        return files.sha256(Path(self.weights))


@encoders.register("resnet")
class ResNet(Encoder):
    """Frames (B, T, C, H, W) or spectrograms (B, F, T) -> features (B, D): as many as the last stage has channels."""

    Params = ResNetParams
    params: ResNetParams
    layouts = ("frames", "spectrogram")

    @classmethod
    def taps(cls, params: ResNetParams) -> dict[str, int]:
        return {f"layer{i + 1}": channels for i, channels in enumerate(params.channels)}

    @property
    def features(self) -> int:
        return self.params.channels[-1]

    def build(self) -> nn.Module:
        from torch import nn

        from pipeline_src.models.stages import image_channels, pictures

        pool = [("avgpool", nn.AdaptiveAvgPool2d(1)), ("vector", nn.Flatten(1))]
        trunk = self._trunk(image_channels(self.layout, self.shape)) + pool
        module = pictures(self.layout, self.shape, trunk)
        if self.params.weights:
            from pipeline_src.models.weights import load_weights

            load_weights(module, self.params.weights, first="conv1.weight")
        return module

    def _trunk(self, channels: int) -> list[tuple[str, nn.Module]]:
        from torch import nn

        from pipeline_src.models.picked import SAFE_CHANNELS, picked1x1
        from pipeline_src.models.residual import BasicBlock, Bottleneck, conv1x1

        block = Bottleneck if self.params.block == "bottleneck" else BasicBlock

        def stage(inside: int, outside: int, blocks: int, stride: int) -> nn.Sequential:
            shortcut = None
            if stride != 1 or inside != outside:
                project = conv1x1 if inside >= SAFE_CHANNELS else picked1x1
                shortcut = nn.Sequential(project(inside, outside, stride), nn.BatchNorm2d(outside))
            first = block(inside, outside, stride, shortcut)
            return nn.Sequential(first, *(block(outside, outside) for _ in range(blocks - 1)))

        width = self.params.width
        trunk = [
            ("conv1", nn.Conv2d(channels, width, kernel_size=7, stride=2, padding=3, bias=False)),
            ("bn1", nn.BatchNorm2d(width)),
            ("relu", nn.ReLU(inplace=True)),
            ("maxpool", nn.MaxPool2d(kernel_size=3, stride=2, padding=1)),
        ]
        inside = width
        for i, (blocks, outside) in enumerate(zip(self.params.depth, self.params.channels, strict=True)):
            trunk.append((f"layer{i + 1}", stage(inside, outside, blocks, stride=1 if i == 0 else 2)))
            inside = outside
        for _, module in trunk:
            for layer in module.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        return trunk
