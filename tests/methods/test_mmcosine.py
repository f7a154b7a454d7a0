"""MMCosine: the authors' cosines, and one prediction in training and evaluation."""

import torch

from pipeline_src.methods.mmcosine import MMCosine, cosines
from tests.methods import golden


def test_the_authors_cosines():
    arrays, meta = golden.load("mmcosine_1")
    weights = arrays["param/fusion_module.fc_out.weight"].split(512, dim=1)
    z = {
        m: cosines(arrays[f"features_{m}"], w, meta["scaling"])
        for m, w in zip(meta["modalities"], weights, strict=True)
    }
    for m, logits in z.items():
        assert golden.apart(logits, arrays[f"logits_{m}"]) < 1e-6
    assert golden.apart(sum(z.values()), arrays["logits"]) < 1e-6
    assert golden.apart(sum(z.values()), arrays["released_eval"]) > 0.1, "what `valid` predicts with is another thing"


def test_by_hand_and_a_feature_of_zero():
    z = cosines(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, -7.0]]), 10.0)
    torch.testing.assert_close(z, torch.tensor([[6.0, -8.0], [0.0, 0.0]]))


def test_length_and_bias_do_not_matter_to_the_method():
    from types import SimpleNamespace

    from pipeline_src.models.base import fusions

    method = MMCosine(MMCosine.Params())
    for name in ("concat", "sum"):
        fusion = fusions[name]({"a": 3, "b": 2}, 4)
        model = SimpleNamespace(fusion=fusion)
        rng = torch.Generator().manual_seed(0)
        features = {"a": torch.randn(5, 3, generator=rng), "b": torch.randn(5, 2, generator=rng)}
        z = method.logits(model, features)
        for parameter in fusion.parameters():
            if parameter.dim() == 1:
                torch.nn.init.normal_(parameter)
        longer = {"a": 7 * features["a"], "b": features["b"]}
        torch.testing.assert_close(method.logits(model, longer), z)
        torch.testing.assert_close(sum(method.unimodal(model, features).values()), z)
