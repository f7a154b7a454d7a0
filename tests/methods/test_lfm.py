"""LFM: the authors' alignment, schedule and gradients of a step."""

import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from pipeline_src.methods import lfm
from tests.methods import golden


def test_alignment_as_released_and_as_named():
    arrays, _ = golden.load("lfm_1")
    logits = arrays["logits_audio"], arrays["logits_visual"]
    assert golden.apart(lfm.alignment(*logits), arrays["released/alignment"]) < 1e-6
    assert golden.apart(lfm.alignment(*logits, "jensen_shannon"), arrays["paper/alignment"]) < 1e-6


def test_the_fitted_schedule():
    arrays, _ = golden.load("lfm_1")
    ours = torch.tensor([[lfm.fitted(e), 1 - lfm.fitted(e)] for e in range(200)], dtype=torch.float64)
    assert golden.apart(ours, arrays["fitted"]) < 1e-6
    assert lfm.fitted(500) == lfm.fitted(199)
    assert [lfm.heuristic(e) for e in (0, 9)] == pytest.approx([0.36788, 0.90484], rel=1e-4)


def test_gradients_of_a_step():
    arrays, meta = golden.load("lfm_1")
    values = {name: value.clone().requires_grad_() for name, value in golden.part(arrays, "param/").items()}
    logits = []
    for name, out in (("audio", "fc_a"), ("visual", "fc_v")):
        x = arrays[f"input_{name}"]
        net = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(x.shape[1], 8), torch.nn.ReLU(), torch.nn.Linear(8, 16)
        )
        f = functional_call(net, golden.part(values, f"{name}_net."), (x,))
        logits.append(f @ values[f"{out}.weight"].T + values[f"{out}.bias"])
    fuse = lfm.fitted(meta["epoch"])
    mean = sum(logits) / 2
    (2 * (fuse * cross_entropy(mean, arrays["labels"]) + (1 - fuse) * lfm.alignment(*logits))).backward()
    for name, expected in golden.part(arrays, "grad/").items():
        assert golden.apart(values[name].grad, expected) < 5e-6, name


def test_equal_predictions_need_no_alignment():
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    for kind in ("released", "jensen_shannon"):
        assert float(lfm.alignment(z, z + 3, kind)) == pytest.approx(0, abs=1e-6)
        assert float(lfm.alignment(z, z.flip(1), kind)) > 0.01
