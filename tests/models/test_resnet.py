"""The encoder is torchvision's network with another first layer."""

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18, resnet34, resnet50

from pipeline_src.core.errors import UserError
from pipeline_src.models.encoders.resnet import ResNet, ResNetParams


@pytest.mark.parametrize(
    ("torchvisions", "depth", "block", "features"),
    [
        (resnet18, [2, 2, 2, 2], "basic", 512),
        (resnet34, [3, 4, 6, 3], "basic", 512),
        (resnet50, [3, 4, 6, 3], "bottleneck", 2048),
    ],
)
def test_width_64_is_torchvisions(torchvisions, depth, block, features):
    reference = torchvisions(weights=None).eval()
    encoder = ResNet(ResNetParams(width=64, depth=depth, block=block), "frames", (1, 3, 64, 64))
    model = encoder.build().eval()
    weights = {k: v for k, v in reference.state_dict().items() if not k.startswith("fc.")}
    assert set(weights) == set(model.state_dict())
    model.load_state_dict(weights)
    reference.fc = torch.nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(x[:, None]), reference(x))
    assert encoder.features == features
    taps = encoder.taps(encoder.params)
    assert list(taps.values()) == [features // 8, features // 4, features // 2, features]


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


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    return resnet18(weights=None).eval()


def loaded(file, layout="frames", shape=(1, 3, 64, 64), **how):
    params = ResNetParams(**{"width": 64, "depth": [2, 2, 2, 2], "weights": str(file)} | how)
    return ResNet(params, layout, shape).build().eval()


def test_a_bottleneck_network_starts_from_torchvisions_file(tmp_path):
    torch.manual_seed(0)
    reference = resnet50(weights=None).eval()
    torch.save(reference.state_dict(), tmp_path / "resnet50.pth")
    x = torch.randn(2, 3, 64, 64)
    features = torch.nn.Sequential(*list(reference.children())[:-1], torch.nn.Flatten())
    ours = loaded(tmp_path / "resnet50.pth", depth=[3, 4, 6, 3], block="bottleneck")
    torch.testing.assert_close(ours(x[:, None]), features(x))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_starts_from_a_file_of_torchvisions_weights(tmp_path, reference, suffix):
    file = tmp_path / f"resnet18{suffix}"
    save_file(reference.state_dict(), file) if suffix == ".safetensors" else torch.save(reference.state_dict(), file)
    x = torch.randn(2, 3, 64, 64)
    features = torch.nn.Sequential(*list(reference.children())[:-1], torch.nn.Flatten())
    torch.testing.assert_close(loaded(file)(x[:, None]), features(x))


@pytest.mark.parametrize(("layout", "shape"), [("spectrogram", (64, 64)), ("frames", (1, 2, 64, 64))])
def test_on_equal_channels_the_adapted_first_layer_gives_the_same(tmp_path, reference, layout, shape):
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    x = torch.randn(2, 1, 64, 64)
    ours = loaded(tmp_path / "w.pth", layout, shape)
    channels = 1 if layout == "spectrogram" else 2
    found = ours.conv1(x.expand(2, channels, 64, 64))
    torch.testing.assert_close(found, reference.conv1(x.expand(2, 3, 64, 64)), rtol=1e-4, atol=1e-5)


def test_a_file_counts_by_its_content_wherever_it_lies(tmp_path, reference):
    torch.save(reference.state_dict(), tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes((tmp_path / "a.pth").read_bytes())
    params = [ResNetParams(width=64, depth=[2, 2, 2, 2], weights=str(tmp_path / f"{name}.pth")) for name in "ab"]
    assert params[0].weights_sha256() == params[1].weights_sha256()
    (tmp_path / "b.pth").write_bytes(b"other")
    assert params[0].weights_sha256() != params[1].weights_sha256()
    with pytest.raises(UserError, match="no such file"):
        ResNetParams(width=64, depth=[2], weights=str(tmp_path / "none.pth")).weights_sha256()


class Unpickled:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def test_a_file_that_does_not_fit_is_named(tmp_path, reference):
    state = reference.state_dict()
    wrong = {
        "lacks layer1.0.conv1.weight": {k: v for k, v in state.items() if k != "layer1.0.conv1.weight"},
        r"has besides extra \(3,\)": {**state, "extra": torch.zeros(3)},
        r"has layer4.1.bn2.bias \(5,\) for \(512,\)": {**state, "layer4.1.bn2.bias": torch.zeros(5)},
        "expected a state dict of tensors": {"state_dict": state},
        "but got none": Unpickled(),
    }
    for message, content in wrong.items():
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(UserError, match=message) as caught:
            loaded(tmp_path / "w.pth")
        assert str(tmp_path / "w.pth") in str(caught.value)
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(b"no weights at all")
        with pytest.raises(UserError, match="but got none"):
            loaded(tmp_path / name)
    old = {k: v for k, v in state.items() if "num_batches_tracked" not in k}
    torch.save(old, tmp_path / "w.pth")
    loaded(tmp_path / "w.pth")
