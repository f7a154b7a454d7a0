"""Initial weights are paired: a modality's encoder starts alike in every model of a seed."""

import torch

from pipeline_src.models.multimodal import build
from tests.synthetic import SyntheticCache, spec


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_encoders_of_a_seed_start_alike_whatever_stands_beside_them():
    two, three = SyntheticCache(2), SyntheticCache(3)
    concat = build(spec(two, "concat"), two.modalities, 3, seed=5)
    summed = build(spec(two, "sum"), two.modalities, 3, seed=5)
    wider = build(spec(three), three.modalities, 3, seed=5)
    alone = spec(two)
    alone["encoders"] = {"m1": alone["encoders"]["m1"]}
    unimodal = build(alone, two.modalities, 3, seed=5)
    other = build(spec(two, "concat"), two.modalities, 3, seed=6)
    for model in (summed, wider, unimodal):
        assert same(model.encoders["m1"], concat.encoders["m1"])
    assert same(concat.fusion, build(spec(two, "concat"), two.modalities, 3, seed=5).fusion)
    assert not same(other.encoders["m1"], concat.encoders["m1"])


def test_building_leaves_the_global_generator_alone():
    cache = SyntheticCache(2)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    build(spec(cache), cache.modalities, 3, seed=0)
    assert torch.equal(torch.rand(3), expected)
