"""CML: calibration worked by hand, and the loss of a step."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from pipeline_src.methods.base import Setting
from pipeline_src.methods.cml import CML, calibration
from tests.methods.small import forward, run, same_weights


def logits(*confidences: float) -> torch.Tensor:
    """Logits (1, 2) of two classes, of which the first has each probability given: (K, 1, 2)."""
    p = torch.tensor(confidences)
    return torch.stack([p, 1 - p], dim=1).log()[:, None]


def test_only_a_rise_counts():
    right = torch.ones(3, 1, dtype=torch.bool)
    assert float(calibration(logits(0.9, 0.8, 0.7), right)) == 0
    # 0.6 -> 0.9 rises by 0.3; 0.9 -> 0.7 falls.
    assert float(calibration(logits(0.6, 0.9, 0.7), right)) == pytest.approx(0.3, abs=1e-6)
    assert float(calibration(logits(0.6, 0.8, 0.9), right)) == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize(
    ("larger", "smaller", "counts"), [(True, True, 1), (True, False, 0), (False, True, 1), (False, False, 1)]
)
def test_the_mask_is_zero_where_only_the_larger_set_is_right(larger, smaller, counts):
    value = calibration(logits(0.6, 0.9), torch.tensor([[larger], [smaller]]))
    assert float(value) == pytest.approx(0.3 * counts, abs=1e-6)


def test_the_mean_over_samples():
    z = torch.cat([logits(0.6, 0.9), logits(0.9, 0.6)], dim=1)
    assert float(calibration(z, torch.ones(2, 2, dtype=torch.bool))) == pytest.approx(0.15, abs=1e-6)


@pytest.mark.parametrize("modalities", [2, 3])
def test_the_loss_is_the_mean_over_the_sets_that_are_left(modalities):
    trainer = run("cml", modalities=modalities)
    batch, features, output = forward(trainer)
    order = torch.randperm(modalities, generator=torch.Generator().set_state(trainer.context.rng.get_state())).tolist()
    losses = trainer.method.loss(trainer.context, output, batch)
    names, expected = list(features), []
    for gone in range(modalities):
        left = {m: torch.zeros_like(f) if names.index(m) in order[:gone] else f for m, f in features.items()}
        expected.append(cross_entropy(trainer.model.fusion(features.replaced(left)), batch.label))
    assert float(losses["loss"]) == pytest.approx(float(sum(expected)) / modalities, rel=1e-5)


def test_without_weight_the_calibration_changes_no_gradient():
    quiet, loud = (run("cml", params={"weight": w}) for w in (0.0, 10.0))
    for trainer in (quiet, loud):
        for _ in range(2):
            trainer.epoch(0)
    assert not same_weights(quiet, loud)
    assert float(quiet.context.logged()["calibration"]) == 0


def test_what_it_refuses():
    assert "two modalities" in CML.refuses(CML.Params(), Setting(("a",), "concat", 10))
    assert "classification" in CML.refuses(CML.Params(), Setting(("a", "b"), "concat", 10, "regression"))
    assert "hidden states" in CML.refuses(CML.Params(), Setting(("a", "b"), "mmtm", 10))
