"""The weights that networks start from, by rule."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pipeline_src.models.base import FusionParams
from pipeline_src.models.initial import start
from pipeline_src.models.multimodal import build
from pipeline_src.training.assemble import assemble
from tests.synthetic import SyntheticCache, spec


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.linear, self.norm = nn.Conv2d(64, 128, 3), nn.Linear(300, 200), nn.BatchNorm2d(4096)
        self.bare = nn.Linear(10, 10, bias=False)


def started(init: str) -> Layers:
    torch.manual_seed(0)
    layers = Layers()
    with torch.no_grad():
        layers.norm.bias.fill_(3.0)
    start(layers, init)
    return layers


FAN_OUT = (2 / (128 * 9)) ** 0.5  # Kaiming normal with ReLU
XAVIER = (2 / (300 + 200)) ** 0.5


@pytest.mark.parametrize(
    ("init", "convolution", "linear", "norm"),
    [("ogm_ge", FAN_OUT, XAVIER, 0.0), ("relearning", FAN_OUT, (1 / 300 / 3) ** 0.5, 0.02)],
)
def test_deviations_of_each_rule(init, convolution, linear, norm):
    layers = started(init).requires_grad_(False)
    assert float(layers.conv.weight.std()) == pytest.approx(convolution, rel=0.02)
    assert float(layers.linear.weight.std()) == pytest.approx(linear, rel=0.02)
    assert float(layers.norm.weight.std()) == pytest.approx(norm, rel=0.05)
    assert float(layers.norm.weight.mean()) == pytest.approx(1, abs=0.002)
    assert not layers.norm.bias.any()
    assert layers.linear.bias.any() == (init == "relearning")  # PyTorch's default draws it


def test_default_leaves_a_module_as_it_is_made():
    torch.manual_seed(0)
    made = Layers()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    start(made, "default")
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())


def state(init: str, seed: int = 0, fusion: str = "concat") -> dict[str, torch.Tensor]:
    cache = SyntheticCache()
    return build(spec(cache).encoders, fusion, cache.modalities, 3, seed, None, init).state_dict()


def test_the_rule_is_of_the_whole_network_and_follows_the_seed():
    for init in ("ogm_ge", "relearning"):
        ours, again, other = state(init), state(init), state(init, seed=1)
        assert all(torch.equal(ours[name], again[name]) for name in ours)
        assert not all(torch.equal(ours[name], other[name]) for name in ours)
    norms = [name for name in ours if name.endswith("bn1.weight")]
    assert norms and all(ours[name].std() > 0 for name in norms)
    assert ours["fusion.joint.bias"].any() and not state("ogm_ge")["fusion.joint.bias"].any()


def test_an_encoder_starts_alike_whatever_the_fusion():
    a, b = (state("relearning", fusion=fusion) for fusion in ("concat", "sum"))
    assert all(torch.equal(a[name], b[name]) for name in a if name.startswith("encoders."))


def test_a_run_has_the_rule_in_its_address_only_where_it_is_not_the_default():
    plain = spec(SyntheticCache())
    assert "init" not in plain.address()
    changed = replace(plain, init="relearning", fusion_params=FusionParams(offset=0.0))
    assert changed.address()["init"] == "relearning" and changed.address()["fusion_params"]["offset"] == 0
    cache = SyntheticCache()
    assert assemble(changed, cache.modalities, 3, 0).model.fusion.params.offset == 0
