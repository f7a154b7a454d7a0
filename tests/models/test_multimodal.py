"""Initial weights are paired: a modality's encoder starts alike in every model of a seed."""

import torch

from pipeline_src.models.multimodal import MultimodalModel, build
from tests.synthetic import SyntheticCache, spec


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def made(cache: SyntheticCache, fusion: str = "concat", seed: int = 5) -> MultimodalModel:
    what = spec(cache, fusion)
    return build(what.encoders, what.fusion, cache.modalities, 3, seed)


def test_encoders_of_a_seed_start_alike_whatever_the_other_modalities():
    two, three = SyntheticCache(2), SyntheticCache(3)
    concat = made(two, "concat")
    summed = made(two, "sum")
    wider = made(three)
    unimodal = build({"m1": spec(two).encoders["m1"]}, "concat", two.modalities, 3, seed=5)
    other = made(two, "concat", seed=6)
    for model in (summed, wider, unimodal):
        assert same(model.encoders["m1"], concat.encoders["m1"])
    assert same(concat.fusion, made(two, "concat").fusion)
    assert not same(other.encoders["m1"], concat.encoders["m1"])


def test_building_leaves_the_global_generator_alone():
    cache = SyntheticCache(2)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    made(cache, seed=0)
    assert torch.equal(torch.rand(3), expected)
