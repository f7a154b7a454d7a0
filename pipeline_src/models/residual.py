"""The blocks of residual networks (He et al., CVPR 2016, arXiv:1512.03385, Sec. 3.3 and Fig. 5).

    y = relu(F(x) + W x)
    basic        F = batch norm(conv 3x3(relu(batch norm(conv 3x3(x)))))
    bottleneck   F = batch norm(conv 1x1(relu(batch norm(conv 3x3(relu(batch norm(conv 1x1(x))))))))

The last layer of a bottleneck has four times as many channels as the others; a stride is in its 3x3 convolution, as in
torchvision (its "v1.5"), not in the first 1x1 as in the paper.

W is the identity, or a 1x1 convolution with batch norm where the number of channels or pixels changes. The names of the
layers are torchvision's, so that its files of weights fit; torchvision itself is not imported, because that takes as
long as an evaluation.
"""

from torch import Tensor, nn


def conv1x1(inside: int, outside: int, stride: int) -> nn.Conv2d:
    """A 1x1 convolution without bias."""
    return nn.Conv2d(inside, outside, kernel_size=1, stride=stride, bias=False)


def conv3x3(inside: int, outside: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias that keeps the size of the image but for the stride."""
    return nn.Conv2d(inside, outside, kernel_size=3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Images (B, `inside`, H, W) -> (B, `outside`, H / `stride`, W / `stride`), with `downsample` as W."""

    def __init__(self, inside: int, outside: int, stride: int = 1, downsample: nn.Module | None = None):
        super().__init__()
        self.conv1 = conv3x3(inside, outside, stride)
        self.bn1 = nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(outside, outside)
        self.bn2 = nn.BatchNorm2d(outside)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class Bottleneck(nn.Module):
    """The same as `BasicBlock`, by three convolutions of which the middle one has `outside` / 4 channels."""

    def __init__(self, inside: int, outside: int, stride: int = 1, downsample: nn.Module | None = None):
        super().__init__()
        narrow = outside // 4
        self.conv1 = conv1x1(inside, narrow, 1)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.conv2 = conv3x3(narrow, narrow, stride)
        self.bn2 = nn.BatchNorm2d(narrow)
        self.conv3 = conv1x1(narrow, outside, 1)
        self.bn3 = nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)
