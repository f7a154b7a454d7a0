"""A 1 x 1 convolution with a stride that leaves the stride out of oneDNN.

oneDNN, as PyTorch brings it, writes outside of its buffers in the backward pass of a channels-last 1 x 1 convolution
with stride 2 if there are fewer input channels than a vector register holds: up to 7 with AVX2, up to 15 with AVX512.
The process ends with a segmentation fault, or goes on with other tensors overwritten.
"""

from torch import Tensor, nn
from torch.nn.functional import conv2d

SAFE_CHANNELS = 16  # float32 numbers in the widest register; nothing was overwritten with as many channels or more


class Picked1x1(nn.Conv2d):
    """Images (B, C, H, W) -> (B, K, ceil(H / n), ceil(W / n)): every n-th pixel, then the convolution with stride 1."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.stride
        return conv2d(x[:, :, ::rows, ::columns], self.weight, self.bias)


def picked1x1(inside: int, outside: int, stride: int) -> Picked1x1:
    """`residual.conv1x1`, picked."""
    return Picked1x1(inside, outside, kernel_size=1, stride=stride, bias=False)
