"""TCMax: the authors' losses and gradients, and the factorised sum against all pairs."""

import math

import torch

from pipeline_src.methods.tcmax import factorised, paired, total_correlation
from tests.methods import golden


def leaves(arrays: dict, prefix: str) -> dict:
    return {name: value.clone().requires_grad_() for name, value in golden.part(arrays, prefix).items()}


def check(arrays, kind, values, features, loss):
    loss = loss + math.log(len(arrays["labels"]))  # theirs subtracts log B once, for any number of modalities
    assert golden.apart(loss.detach(), arrays[f"{kind}/loss"]) < 1e-6
    loss.backward()
    for name, expected in golden.part(arrays, f"{kind}/grad/").items():
        gradient = (values | features)[name.removeprefix("features_")].grad
        assert golden.apart(gradient, expected) < 1e-5, name


def test_a_sum_over_modalities():
    arrays, _ = golden.load("tcmax_1")
    values, features, label = leaves(arrays, "concat/param/"), leaves(arrays, "features_"), arrays["labels"]
    weights = values["fc_out.weight"].split(16, dim=1)
    z = [f @ w.T + values["fc_out.bias"] / 2 for f, w in zip(features.values(), weights, strict=True)]
    chosen = sum(z).gather(1, label[:, None])
    check(arrays, "concat", values, features, total_correlation(chosen, factorised(torch.stack(z)), len(label), 2))


def test_another_fusion_of_two():
    arrays, _ = golden.load("tcmax_1")
    values, features, label = leaves(arrays, "film/param/"), leaves(arrays, "features_"), arrays["labels"]

    def film(f):
        gamma, beta = (f["audio"] @ values["fc.weight"].T + values["fc.bias"]).chunk(2, dim=1)
        return (gamma * f["visual"] + beta) @ values["fc_out.weight"].T + values["fc_out.bias"]

    chosen = film(features).gather(1, label[:, None])
    check(arrays, "film", values, features, total_correlation(chosen, paired(film, features), len(label), 2))


def test_both_ways_agree_for_three_modalities_too():
    z = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    every = torch.stack([z[0, i] + z[1, j] + z[2, k] for i in range(4) for j in range(4) for k in range(4)])
    torch.testing.assert_close(factorised(z), every.flatten().logsumexp(0))
    pair = paired(lambda f: f["a"] + f["b"], {"a": z[0], "b": z[1]})
    torch.testing.assert_close(pair.double(), factorised(z[:2]), rtol=1e-6, atol=0)


def test_large_logits_stay_finite():
    assert torch.isfinite(factorised(torch.full((2, 4, 3), 500.0)))
