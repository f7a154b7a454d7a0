"""ARL: the authors' weights, and what enters the encoders."""

import torch

from pipeline_src.methods.arl import ARL, contributions, encoder_weights, inverse_entropies
from tests.methods import golden


def test_the_authors_weights():
    arrays, meta = golden.load("arl_1")
    logits = torch.stack([arrays["logits_audio"], arrays["logits_visual"]])
    assert golden.apart(contributions(logits), arrays["contribution"]) < 1e-6
    assert golden.apart(inverse_entropies(logits, meta["floor"]), arrays["inverse_entropy"]) < 1e-6
    assert golden.apart(encoder_weights(logits, meta["T"], meta["floor"]), arrays["weight"]) < 1e-6


def test_by_hand():
    """Sizes 2 and 600. Entropies log 2 and 0, floored at 0.5: shares 1/3 and 2/3."""
    logits = torch.tensor([[[1.0, 1.0]], [[300.0, -300.0]]])
    torch.testing.assert_close(contributions(logits), torch.tensor([2 / 602, 600 / 602]))
    torch.testing.assert_close(inverse_entropies(logits, 0.5), torch.tensor([1 / 3, 2 / 3]))
    w = encoder_weights(logits, 3.0, 0.5)
    torch.testing.assert_close(w, torch.softmax(torch.tensor([3 * 600 / 602 / 3, 3 * 2 / 602 * 2 / 3]), dim=0))


def test_permuting_the_modalities_permutes_the_weights():
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(encoder_weights(logits, 8.0, 0.3)[order], encoder_weights(logits[order], 8.0, 0.3))


def test_released_weights_are_one_half():
    """Both sides of the parameter, through `on_features`: values stay, gradients are multiplied."""
    from types import SimpleNamespace

    from pipeline_src.models.base import fusions
    from pipeline_src.models.fusions.base import Features

    fusion = fusions["sum"]({"a": 3, "b": 3}, 2)
    rng = torch.Generator().manual_seed(0)
    for weights in ("released", "paper"):
        features = Features({m: torch.randn(4, 3, generator=rng, requires_grad=True) for m in "ab"})
        logged: dict = {}
        ctx = SimpleNamespace(model=SimpleNamespace(fusion=fusion), log=logged.__setitem__)
        scaled, kept = ARL(ARL.Params(weights=weights)).on_features(ctx, features, None)
        assert kept is None
        for m, f in features.items():
            torch.testing.assert_close(scaled[m], f)
            scaled[m].sum().backward()
            torch.testing.assert_close(f.grad, torch.full_like(f, 1 + float(logged[f"weight/{m}"])))
        assert (weights == "released") == (float(logged["weight/a"]) == 0.5)
