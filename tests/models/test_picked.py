"""Small networks train on every processor: no layer takes the path on which oneDNN overwrites memory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from pipeline_src.models.base import encoders
from pipeline_src.models.encoders.resnet import ResNet, ResNetParams
from pipeline_src.models.picked import Picked1x1, picked1x1
from tests.models.test_encoders import BY_SEGMENT, EVERY, SAVED, encoder

ROOT = Path(__file__).parents[2]
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"}
TRAINED = """
import torch
from pipeline_src.models.encoders.resnet import ResNet, ResNetParams

CASES = [
    (1, "frames", (1, 3, 224, 224)),
    (3, "frames", (2, 1, 65, 33)),
    (4, "frames", (1, 3, 32, 32)),
    (4, "frames", (1, 3, 224, 224)),
    (7, "spectrogram", (257, 188)),
    (8, "frames", (1, 3, 224, 224)),
    (15, "frames", (1, 2, 448, 448)),
    (16, "frames", (1, 2, 448, 448)),
]
torch.set_num_threads(1)
BOTTLENECKS = [(1, "frames", (2, 1, 65, 33)), (3, "frames", (1, 3, 96, 96)), (4, "spectrogram", (129, 94))]
for width, layout, shape in CASES + BOTTLENECKS:
    block = "bottleneck" if (width, layout, shape) in BOTTLENECKS else "basic"
    model = ResNet(ResNetParams(width=width, depth=[1, 1, 1], block=block), layout, shape).build()
    model.to(memory_format=torch.channels_last)
    for bf16 in (False, True):
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                y = model(torch.randn(2, *shape))
            y.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
print("trained")
"""


@pytest.mark.parametrize("processor", [{}, AVX2], ids=["best", "avx2"])
def test_small_networks_train_under_either_instruction_set(processor):
    environment = {**os.environ, **processor, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", TRAINED], env=environment, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode not in (-signal.SIGSEGV, -signal.SIGABRT), "oneDNN has overwritten memory"
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "trained\n"


@pytest.mark.parametrize(("kind", "layout"), EVERY)
@pytest.mark.parametrize("width", [1, 2, 4, 7, 8, 15])
def test_no_layer_of_few_channels_has_a_stride_within_onednn(kind, layout, width):
    how = {"resnet": {"depth": [1, 1, 2, 1]}, "transformer": {"width": 2 * width, "heads": 1}}.get(kind, {})
    for layer in encoder(kind, layout, **{"width": width} | how).build().modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.stride != (1, 1):
            assert layer.in_channels >= 16 or isinstance(layer, Picked1x1)


@pytest.mark.parametrize("width", [1, 2, 4, 5])
def test_bottlenecks_of_few_channels_have_no_stride_within_onednn(width):
    params = ResNetParams(width=width, depth=[1, 2, 1], block="bottleneck")
    for layer in ResNet(params, "frames", (1, 3, 32, 32)).build().modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.stride != (1, 1):
            assert layer.in_channels >= 16 or isinstance(layer, Picked1x1)


def test_wide_networks_keep_the_plain_layer():
    assert set(encoders) == {"convnet", "embedding", "resnet", "transformer", *BY_SEGMENT, *SAVED}, (
        "does a new encoder have such layers?"
    )
    model = ResNet(ResNetParams(width=16, depth=[1, 1, 1]), "frames", (1, 3, 32, 32)).build()
    assert type(model.layer2[0].downsample[0]) is type(model.layer3[0].downsample[0]) is nn.Conv2d
    model = ResNet(ResNetParams(width=8, depth=[1, 1, 1]), "frames", (1, 3, 32, 32)).build()
    assert [type(layer[0].downsample[0]) for layer in (model.layer2, model.layer3)] == [Picked1x1, nn.Conv2d]


@pytest.mark.parametrize("size", [(7, 8), (1, 1), (2, 5), (28, 28)])
@pytest.mark.parametrize("channels", [1, 3, 8])
def test_it_is_the_same_function(channels, size):
    torch.manual_seed(0)
    layer = picked1x1(channels, 2 * channels, 2)
    x = torch.randn(3, channels, *size, requires_grad=True)
    y = layer(x.contiguous(memory_format=torch.channels_last))
    weights = torch.randn_like(y)
    found = torch.autograd.grad((y * weights).sum(), [x, layer.weight])
    plain = conv2d(x, layer.weight, stride=2)  # contiguous: a path without the fault
    expected = torch.autograd.grad((plain * weights).sum(), [x, layer.weight])
    for a, b in zip([y, *found], [plain, *expected], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    reference = nn.Conv2d(channels, 2 * channels, 1, stride=2, bias=False)
    assert {n: v.shape for n, v in layer.state_dict().items()} == {
        n: v.shape for n, v in reference.state_dict().items()
    }
