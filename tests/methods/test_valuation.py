"""Valuation: the authors' contributions and resampled epochs, Shapley values by hand, resume after the warm-up."""

from types import SimpleNamespace

import pytest
import torch

from pipeline_src.methods.base import methods
from pipeline_src.methods.valuation import Valuation, drawn_count, redraw, resample, values
from pipeline_src.models.base import fusions
from pipeline_src.models.fusions.base import Features
from pipeline_src.tasks.base import tasks
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.methods import golden
from tests.synthetic import SyntheticCache, setting, spec

CPU = torch.device("cpu")


def trainer(method: str, params: dict, modalities: int = 2, fusion: str = "concat", **training) -> Trainer:
    cache = SyntheticCache(modalities)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in ("train", "val", "test")}
    return Trainer(spec(cache, fusion, method, params, **{"epochs": 4} | training), 0, cache, loaders, CPU)


def test_contributions_and_the_epoch_that_follows():
    arrays, meta = golden.load("valuation_1")
    names = meta["modalities"]
    fusion = fusions["concat"](dict.fromkeys(names, 16), 6)
    fusion.joint.load_state_dict(golden.part(arrays, "param/fusion_module.fc_out."))

    def collect(split, rows, read):
        whole = {m: arrays[f"features_{m}"] for m in names}
        parts = [read(Features({m: f[i : i + 20] for m, f in whole.items()})) for i in (0, 20, 40)]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}, arrays["labels"]

    ctx = SimpleNamespace(
        model=SimpleNamespace(fusion=fusion, modalities=names),
        task=tasks["classification"](6),
        labels=lambda split: arrays["labels"],
        collect=collect,
    )
    contribution = Valuation(Valuation.Params()).contribution(ctx)
    assert torch.equal(contribution, arrays["contribution"].to(contribution.dtype))
    assert contribution.mean(dim=0).tolist() == pytest.approx(meta["mean"])
    rows, kept = resample(contribution)
    assert torch.equal(rows, arrays["rows"])
    drop = torch.where(kept[:, 0], torch.where(kept[:, 1], 0, 2), 1)  # nothing, visual, audio is zeroed
    assert torch.equal(drop, arrays["drop"])


def test_the_modality_level():
    arrays, meta = golden.load("valuation_1")
    count = len(arrays["labels"])
    for case, expected in meta["modality_level"].items():
        shape, alpha = case.split("/")
        shape = "power" if shape == "square" else shape  # theirs is called square and is a power of 1.5
        assert drawn_count(expected["contribution"], count, float(alpha), shape) == expected["clips"]
        rows, kept = redraw(expected["contribution"], count, float(alpha), shape, torch.Generator().manual_seed(0))
        assert rows[:count].tolist() == list(range(count)) and kept[:count].all()
        assert len(rows) == len(kept) == count + expected["clips"]
        if expected["clips"]:
            assert kept[count:].all(dim=0).tolist() == [expected["drop"] != 1, expected["drop"] != 2]


def test_three_modalities_by_hand():
    """All right only together: 1 each, 3 in all. Only where a is: all to a but for what company adds."""
    right = {s: torch.tensor([len(s) == 3, "a" in s]) for s in SETS}
    contribution = values(right, ["a", "b", "c"])
    torch.testing.assert_close(contribution, torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.5, 0.5]]))
    torch.testing.assert_close(contribution.sum(dim=1), torch.tensor([3.0, 3.0]))
    turned = values({s: right[tuple(sorted({"c": "b", "b": "c"}.get(m, m) for m in s))] for s in SETS}, ["a", "b", "c"])
    torch.testing.assert_close(turned, contribution[:, [0, 2, 1]])
    rows, kept = resample(contribution)
    assert rows.tolist() == [0, 1, 1, 1]
    assert kept.tolist() == [[True] * 3, [True] * 3, [False, True, False], [False, False, True]]
    rows, kept = redraw([1.5, 0.9, 0.6], 10, 1.0, "linear", torch.Generator().manual_seed(0))
    assert len(rows) == 16 and kept[10:].tolist() == [[False, True, True]] * 6


SETS = [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")]


@pytest.mark.parametrize("params", [{"warm_up": 3}, {"warm_up": 1, "level": "modality", "alpha": 0.0}])
def test_the_warm_up_and_an_alpha_of_zero_are_joint_training(params):
    ours, theirs = trainer("valuation", params), trainer("joint", {})
    for epoch in range(3):
        ours.epoch(epoch), theirs.epoch(epoch)
    pairs = zip(ours.model.parameters(), theirs.model.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)


@pytest.mark.parametrize("level", ["sample", "modality"])
@pytest.mark.parametrize(("modalities", "fusion"), [(2, "concat"), (3, "film"), (4, "sum")])
def test_resumed_in_a_resampled_epoch_it_goes_on_exactly(level, modalities, fusion):
    params = {"warm_up": 1, "level": level, "alpha": 3.0, "part": 0.5}
    whole, begun, resumed = (trainer("valuation", params, modalities, fusion) for _ in range(3))
    rows = [whole.epoch(epoch) for epoch in range(4)]
    begun.epoch(0), begun.epoch(1)
    with pytest.raises(StopIteration):
        begun.epoch(2, iter([None]).__next__)
    tensors, position = begun.snapshot()
    resumed.restore({key: value.clone() for key, value in tensors.items()}, position)
    for epoch in (2, 3):
        row = resumed.epoch(epoch)
        assert {k: v for k, v in row.items() if k != "seconds"} == {
            k: v for k, v in rows[epoch].items() if k != "seconds"
        }
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert "visits" in rows[0] and "visits" not in rows[3]  # nothing follows the last


def test_an_epoch_visits_what_was_listed_with_these_features_zero():
    run = trainer("valuation", {"warm_up": 1})
    run.epoch(0)
    logged = run.context.logged()
    seen, on_features = [], run.method.on_features

    def noted(ctx, features, batch):
        changed, kept = on_features(ctx, features, batch)
        seen.extend(zip(batch.index.tolist(), *(map(bool, f.any(dim=1)) for f in changed.values()), strict=True))
        return changed, kept

    run.method.on_features = noted
    listed = sorted(zip(run.method.rows.tolist(), *run.method.kept.T.tolist(), strict=True))
    run.epoch(1)
    assert sorted(seen) == listed and len(seen) == logged["visits"] > 26


def test_it_refuses():
    refuses, params = methods["valuation"].refuses, Valuation.Params
    assert refuses(params(), setting("gated", 4)) is None
    assert "hidden states" in refuses(params(), setting("mmtm"))
    assert "two modalities" in refuses(params(), setting(modalities=1))
    assert "warm_up below training.epochs = 5, but got 5" in refuses(params(), setting(epochs=5))
    assert methods["valuation"].extension(params(), setting(modalities=3)) and not methods["valuation"].extension(
        params(), setting()
    )
