"""The encoder is torchvision's network with another first layer."""

import pytest
import torch
from torchvision.models import resnet18

from pipeline_src.models.encoders.resnet import ResNet, ResNetParams


def test_width_64_depth_2222_is_torchvisions_resnet18():
    reference = resnet18(weights=None).eval()
    encoder = ResNet(ResNetParams(width=64, depth=[2, 2, 2, 2]), "frames", (1, 3, 64, 64))
    model = encoder.build().eval()
    weights = {k: v for k, v in reference.state_dict().items() if not k.startswith("fc.")}
    assert set(weights) == set(model.state_dict())
    model.load_state_dict(weights)
    reference.fc = torch.nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(x[:, None]), reference(x))
    assert encoder.features == 512


def test_a_clip_is_the_mean_of_its_frames():
    model = ResNet(ResNetParams(width=4, depth=[1, 1]), "frames", (3, 3, 32, 32)).build().eval()
    single = ResNet(ResNetParams(width=4, depth=[1, 1]), "frames", (1, 3, 32, 32)).build().eval()
    single.load_state_dict(model.state_dict())
    x = torch.randn(5, 3, 3, 32, 32)
    each = torch.stack([single(x[:, t : t + 1]) for t in range(3)]).mean(0)
    torch.testing.assert_close(model(x), each)


@pytest.mark.parametrize("layout, shape, channels", [("spectrogram", (65, 20), 1), ("frames", (2, 2, 24, 24), 2)])
def test_the_first_layer_fits_the_modality(layout, shape, channels):
    encoder = ResNet(ResNetParams(width=8, depth=[1, 2, 1]), layout, shape)
    model = encoder.build()
    assert model.conv1.in_channels == channels
    assert model(torch.randn(3, *shape)).shape == (3, encoder.features) == (3, 32)
