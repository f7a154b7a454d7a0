"""Every head gives joint logits, honest unimodal logits, and where it is additive, shares that add up."""

import pytest
import torch

from pipeline_src.models.base import heads
from pipeline_src.models.heads.base import only

DIMS = {"a": 5, "b": 3, "c": 4, "d": 2}


def some_features(modalities: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {m: torch.randn(7, DIMS[m], generator=generator) for m in list(DIMS)[:modalities]}


@pytest.mark.parametrize("modalities", [1, 2, 3, 4])
@pytest.mark.parametrize("name", list(heads))
def test_unimodal_logits_are_of_that_modality_alone(name, modalities):
    features = some_features(modalities)
    head = heads[name]({m: DIMS[m] for m in features}, 6)
    for parameter in head.parameters():  # a fresh bias is zero and would hide its share
        torch.nn.init.normal_(parameter)
    logits, unimodal = head(features), head.unimodal(features)
    assert logits.shape == (7, 6)
    assert list(unimodal) == list(features)
    if head.additive:
        torch.testing.assert_close(sum(unimodal.values()), logits)
    other = some_features(modalities, seed=1)
    for m in features:
        mixed = {**other, m: features[m]}
        torch.testing.assert_close(head.unimodal(mixed)[m], unimodal[m])
        if modalities > 1:
            assert not torch.allclose(unimodal[m], logits)


def test_concat_by_hand():
    head = heads["concat"]({"a": 2, "b": 1}, 2)
    with torch.no_grad():
        head.joint.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]]))
        head.joint.bias.copy_(torch.tensor([0.5, -2.0]))
    features = {"a": torch.tensor([[1.0, 1.0]]), "b": torch.tensor([[2.0]])}
    assert head(features).tolist() == [[9.5, -1.0]]
    assert head.unimodal(features)["a"].tolist() == [[3.25, -2.0]]
    assert head.unimodal(features)["b"].tolist() == [[6.25, 1.0]]


def test_sum_by_hand():
    head = heads["sum"]({"a": 1, "b": 1}, 1)
    with torch.no_grad():
        for term, (weight, bias) in zip(head.terms.values(), [(2.0, 1.0), (3.0, -1.0)], strict=True):
            term.weight.fill_(weight)
            term.bias.fill_(bias)
    features = {"a": torch.tensor([[1.0]]), "b": torch.tensor([[1.0]])}
    assert head(features).item() == 5.0
    assert {m: z.item() for m, z in head.unimodal(features).items()} == {"a": 3.0, "b": 2.0}


def test_removal_sets_the_others_to_zero():
    features = some_features(3)
    kept = only(features, ["b"])
    assert kept["b"] is features["b"]
    assert not kept["a"].any() and not kept["c"].any() and features["a"].any()
