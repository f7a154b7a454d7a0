"""D&R: the authors' numbers, purity by hand and by scikit-learn, its limits, its schedule, its state and its data."""

import json
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics.cluster import contingency_matrix
from torch import nn

from pipeline_src.core.errors import UserError
from pipeline_src.methods.base import methods
from pipeline_src.methods.relearning import assign, due, purity, reset_strength, soft_reset
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.synthetic import FUSIONS, SPLITS, SyntheticCache, setting, spec

CPU = torch.device("cpu")
GOLDEN = Path(__file__).parents[1] / "golden"
CASES = ("relearning_1.npz", "relearning_2.npz")
Relearning = methods["relearning"]


# The authors' numbers ------------------------------------------------------------------------------------------------


class Golden(dict):
    """The arrays of one file, as tensors; notes which were read."""

    def __init__(self, name: str):
        with np.load(GOLDEN / name) as file:
            self.meta = json.loads(str(file["meta"]))
            super().__init__({key: torch.from_numpy(file[key]) for key in file.files if key != "meta"})
        self.read = set()

    def __getitem__(self, key: str) -> torch.Tensor:
        self.read.add(key)
        return super().__getitem__(key)


def check_purities_and_strengths(golden: Golden) -> None:
    found = {}
    for part in golden.meta["order_of_purities"].split(","):
        clusters = assign(golden[part], golden.meta["classes"], "minmax", starts=1)
        found[part] = purity(clusters, golden[f"{part.split('_')[0]}_labels"])
    assert list(found.values()) == golden["purities"].tolist()  # to the last bit: every clip in its cluster
    for m in ("audio", "visual"):
        strength = reset_strength(found[f"train_{m}"], found[f"val_{m}"], golden.meta["strength"])
        assert strength == pytest.approx(float(golden[f"weight_{m}"]), rel=1e-12)


def golden_encoder(golden: Golden, state: str, m: str) -> nn.Sequential:
    """The small model's encoder with the weights of `state`."""
    prefix = f"param_{state}/{m}_net."
    tensors = {key.removeprefix(prefix): golden[key].clone() for key in golden if key.startswith(prefix)}
    out, channels, *_ = tensors["0.weight"].shape
    encoder = nn.Sequential(
        nn.Conv2d(channels, out, 3, stride=2, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(out, len(tensors["5.bias"])),
    )
    encoder.load_state_dict(tensors)
    return encoder


class Model:
    """As much of a context as re-initialisation needs."""

    def __init__(self, encoders: dict[str, nn.Module]):
        self.model, self.encoders, self.modalities = self, encoders, list(encoders)


def check_reset(golden: Golden) -> None:
    """Every parameter moves, every buffer stays, through the hooks with the default parameters."""
    method = Relearning(Relearning.Params())
    method.on_train_start(Model({m: golden_encoder(golden, "initial", m) for m in ("audio", "visual")}))
    model = Model({m: golden_encoder(golden, "current", m) for m in ("audio", "visual")})
    for m, encoder in model.encoders.items():
        method._relearn(model, m, float(golden[f"weight_{m}"]))
        wanted = golden_encoder(golden, "reset", m).state_dict()
        assert encoder.state_dict().keys() == wanted.keys()
        for name, value in encoder.state_dict().items():
            torch.testing.assert_close(value, wanted[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_golden_purities_and_strengths(name):
    check_purities_and_strengths(Golden(name))


@pytest.mark.parametrize("name", CASES)
def test_golden_reset(name):
    check_reset(Golden(name))


@pytest.mark.parametrize("name", CASES)
def test_every_golden_array_is_checked(name):
    golden = Golden(name)
    check_purities_and_strengths(golden)
    check_reset(golden)
    assert golden.read == set(golden)


def test_the_number_of_starts_changes_the_diagnosis():
    """The reason for the parameter: scikit-learn's default, which the authors leave to it, was 10 and is 1."""
    golden = Golden("relearning_1.npz")
    found = [purity(assign(golden["val_visual"], 6, "minmax", starts), golden["val_labels"]) for starts in (1, 10)]
    assert found == pytest.approx([0.5833, 0.8083], abs=1e-4)


# The equations -------------------------------------------------------------------------------------------------------


def test_purity_by_hand():
    clusters = torch.tensor([0, 0, 0, 0, 2, 2, 2, 5])  # majorities 3 of 4, 2 of 3 and 1 of 1; no cluster 1, 3 and 4
    labels = torch.tensor([1, 1, 1, 4, 0, 4, 4, 0])
    assert purity(clusters, labels) == 6 / 8
    assert purity(torch.zeros(4).long(), torch.tensor([0, 1, 2, 2])) == 2 / 4
    assert purity(torch.arange(4), torch.tensor([0, 0, 1, 1])) == 1
    assert purity(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])) == 1 / 2
    assert purity(torch.tensor([0]), torch.tensor([7])) == 1


@pytest.mark.parametrize("seed", range(20))
def test_purity_is_that_of_the_contingency_table(seed):
    rng = np.random.default_rng(seed)
    clusters, labels = rng.integers(rng.integers(1, 12), size=200), rng.integers(rng.integers(1, 12), size=200)
    expected = contingency_matrix(labels, clusters).max(axis=0).sum() / 200
    assert purity(torch.from_numpy(clusters), torch.from_numpy(labels)) == expected


def test_well_separated_classes_are_pure_and_noise_is_not():
    labels = torch.arange(200) % 4
    noise = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    apart = noise + 20 * nn.functional.one_hot(labels, 8)
    assert purity(assign(apart, 4, "minmax", 1), labels) == 1
    assert purity(assign(noise, 4, "minmax", 1), labels) < 0.5


def test_scaling_gives_every_dimension_the_same_say():
    labels = torch.arange(100) % 2
    noise = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    features = torch.stack([labels + 0.01 * noise[:, 0], 1000 * noise[:, 1]], 1)  # the label is in the smaller one
    assert purity(assign(features, 2, "minmax", 1), labels) == 1
    assert purity(assign(features, 2, "none", 1), labels) < 0.7


def test_strength_by_hand():
    assert reset_strength(0.9, 0.6, 3.0) == pytest.approx(math.tanh(0.9))
    assert reset_strength(0.6, 0.9, 3.0) == pytest.approx(math.tanh(0.9))
    assert reset_strength(1.0, 0.2, 0.0) == 0
    assert reset_strength(0.5, 0.5, 3.0) == 0
    assert reset_strength(0.5, 0.5, math.inf) == reset_strength(0.9, 0.5, math.inf) == 1


def test_soft_reset_by_hand():
    initial, current = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([3.0, 2.0, 0.0])
    assert soft_reset(initial, current, 0.25).tolist() == [2.5, 1.0, 0.0]
    assert torch.equal(soft_reset(initial, current, 0), current)
    assert torch.equal(soft_reset(initial, current, 1), initial)
    counter = soft_reset(torch.tensor(0), torch.tensor(7), 0.25)
    assert counter == 5 and counter.dtype == torch.int64


# Clips that are few or alike -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["minmax", "none"])
def test_few_or_equal_clips_are_a_defined_result_without_a_warning(scale):
    labels = torch.tensor([0, 0, 0, 1, 2])
    pairs = torch.tensor([[0.0, 0], [0, 0], [0, 0], [5, 5], [5, 5]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert purity(assign(torch.full((5, 3), 2.5), 4, scale, 1), labels) == 3 / 5  # one cluster: the largest class
        assert purity(assign(pairs, 4, scale, 1), labels) == 4 / 5  # two clusters
        assert purity(assign(torch.randn(2, 3), 4, scale, 1), labels[-2:]) == 1  # a cluster per clip
        assert purity(assign(torch.randn(1, 3), 4, scale, 1), labels[:1]) == 1


# Training ------------------------------------------------------------------------------------------------------------

EARLY = {"every": 1, "times": 2}  # before epochs 2 and 3


def make(
    modalities: int = 2, name: str = "relearning", fusion: str = "concat", change=None, training=None, **params
) -> Trainer:
    """A run on the synthetic cache, which `change` may alter first."""
    cache = SyntheticCache(modalities)
    if change:
        change(cache)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in SPLITS}
    run = Trainer(spec(cache, fusion, name, params, **(training or {})), 0, cache, loaders, CPU)
    run.method.on_train_start(run.context)
    return run


def train(run: Trainer, epochs: int = 4) -> list[dict[str, float]]:
    return [run.epoch(epoch) for epoch in range(epochs)]


def model_state(run: Trainer) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in run.state_dict().items() if k.startswith(("model/", "optimizer/"))}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("variant", [{}, {"buffers": "blend", "optimizer": "reset"}])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adagrad"])
def test_strength_0_is_joint_training_bit_for_bit(optimizer, variant):
    training = {"optimizer": optimizer, "lr": 1e-3}
    ours, joint = make(strength=0, training=training, **EARLY, **variant), make(name="joint", training=training)
    rows, plain = train(ours), train(joint)
    assert same(model_state(ours), model_state(joint))  # weights, running statistics, momentum
    assert [row["loss"] for row in rows] == [row["loss"] for row in plain]
    assert rows[2]["reset_strength/m0"] == 0 < rows[2]["purity_train/m0"]


def test_before_its_first_diagnosis_it_is_joint_training():
    ours, joint = make(every=2), make(name="joint")
    train(ours, 3), train(joint, 3)
    assert same(model_state(ours), model_state(joint))
    ours.epoch(3), joint.epoch(3)
    assert not same(model_state(ours), model_state(joint))


def after_diagnosis(run: Trainer) -> dict[str, torch.Tensor]:
    """Train two epochs and begin the third, which re-initialises first; the state before its first step."""
    train(run, 2)
    run.context.start_epoch(2)
    run.method.before_epoch(run.context)
    return model_state(run)


@pytest.mark.parametrize("modalities", [1, 2, 3, 4])
def test_infinite_strength_gives_the_initial_encoders_and_leaves_the_head(modalities):
    run = make(modalities, strength=math.inf, buffers="blend", **EARLY)
    initial = model_state(run)
    train(run, 2)
    trained = model_state(run)
    run.context.start_epoch(2)
    run.method.before_epoch(run.context)
    assert set(run.context.logged()) == {"diagnosis_seconds"} | {
        f"{name}/m{i}" for name in ("purity_train", "purity_val", "reset_strength") for i in range(modalities)
    }
    for name, value in model_state(run).items():
        wanted = initial if name.startswith("model/encoders.") else trained
        assert torch.equal(value, wanted[name]), name
    assert not torch.equal(trained["model/encoders.m0.conv1.weight"], initial["model/encoders.m0.conv1.weight"])


def test_a_constant_modality_is_kept():
    def constant(cache):
        cache._values["m1"][:] = 7
        cache.modalities["m1"]["std"] = [1.0] * 3

    run = make(change=constant, **EARLY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = train(run)
    assert rows[2]["purity_train/m1"] == pytest.approx(9 / 26)  # 26 training clips, 9 of them of the largest class
    assert rows[2]["purity_val/m1"] == pytest.approx(4 / 10)
    assert rows[2]["reset_strength/m1"] == pytest.approx(math.tanh(3 * abs(9 / 26 - 4 / 10)))
    assert all(torch.isfinite(p).all() for p in run.model.parameters())


def test_normalisation_statistics_are_kept_or_re_initialised():
    kept, blended = (after_diagnosis(make(buffers=b, strength=5.0, **EARLY)) for b in ("keep", "blend"))
    joint = make(name="joint")
    initial = model_state(joint)
    train(joint, 2)
    trained = model_state(joint)
    run = make(strength=5.0, **EARLY)
    after_diagnosis(run)
    alpha = run.context.logged()["reset_strength/m1"]
    assert 0 < alpha < 1
    bn = "model/encoders.m1.bn1."
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(kept[bn + name], trained[bn + name])
    for name in ("running_mean", "running_var"):
        expected = alpha * initial[bn + name] + (1 - alpha) * trained[bn + name]
        torch.testing.assert_close(blended[bn + name], expected)
        assert not torch.equal(blended[bn + name], trained[bn + name])
    assert blended[bn + "num_batches_tracked"] == round((1 - alpha) * 8)  # two epochs of four batches
    assert torch.equal(kept[bn + "weight"], blended[bn + "weight"])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adagrad"])
def test_momentum_is_kept_or_cleared(optimizer):
    training = {"optimizer": optimizer, "lr": 1e-3}
    joint = make(name="joint", training=training)
    train(joint, 2)
    slots = {k: v for k, v in model_state(joint).items() if k.startswith("optimizer/")}
    kept = after_diagnosis(make(strength=math.inf, training=training, **EARLY))
    run = make(strength=math.inf, optimizer="reset", training=training, **EARLY)
    cleared = after_diagnosis(run)
    assert same(slots, {k: v for k, v in kept.items() if k.startswith("optimizer/")})
    fusion = {k: v for k, v in slots.items() if "/fusion." in k}
    assert fusion and same(fusion, {k: v for k, v in cleared.items() if k.startswith("optimizer/")})
    run.epoch(2)
    assert model_state(run).keys() == kept.keys()  # and it comes back


# Schedule ------------------------------------------------------------------------------------------------------------


def test_the_published_schedule_is_after_epochs_20_40_and_60():
    assert [epoch for epoch in range(90) if due(epoch, every=20, times=3)] == [20, 40, 60]
    assert [epoch for epoch in range(30) if due(epoch, every=15, times=2)] == [15]  # BalanceBenchmark's
    assert [epoch for epoch in range(9) if due(epoch, every=1, times=4)] == [1, 2, 3, 4]
    assert Relearning.Params().model_dump() == {
        "strength": 3.0,
        "every": 20,
        "times": 3,
        "features": "minmax",
        "starts": 1,
        "buffers": "keep",
        "optimizer": "keep",
    }


def test_it_acts_before_the_epoch_that_follows_and_says_so():
    rows = train(make(every=1, times=2), 5)
    assert [("purity_train/m0" in row, "diagnosis_seconds" in row) for row in rows] == [
        (False, False),
        (False, False),
        (True, True),
        (True, True),
        (False, False),
    ]
    for row in rows[2:4]:
        for m in ("m0", "m1"):
            gap = abs(row[f"purity_train/{m}"] - row[f"purity_val/{m}"])
            assert row[f"reset_strength/{m}"] == pytest.approx(math.tanh(3 * gap), abs=1e-6)
        assert 0 < row["diagnosis_seconds"] < row["seconds"]


def test_the_scheduled_epoch_is_scored_with_its_trained_weights():
    """The authors score, then re-initialise; weights that were never trained on are no candidates."""
    ours, joint = make(strength=math.inf, **EARLY), make(name="joint")
    train(ours, 2), train(joint, 2)  # the first diagnosis is due after epoch 1
    assert ours.score("val") == joint.score("val")


def test_a_schedule_that_begins_after_the_run_is_refused():
    default = Relearning.Params()
    assert Relearning.refuses(default, setting("concat", 2, 90)) is None
    assert Relearning.refuses(default, setting("concat", 2, 22)) is None
    assert Relearning.refuses(default, setting("concat", 2, 21)) == (
        "expected training.epochs of 22 or more with every: 20, but got 21"
    )
    rows = train(make(every=1), 3)  # the shortest run that is allowed acts once
    assert ["reset_strength/m0" in row for row in rows] == [False, False, True]


@pytest.mark.parametrize(
    "wrong",
    [
        {"strength": -1.0},
        {"strength": math.nan},
        {"strength": -math.inf},
        {"every": 0},
        {"times": 0},
        {"starts": 0},
        {"features": "zscore"},
        {"buffers": "drop"},
        {"optimizer": "adam"},
        {"lambda": 3},
    ],
)
def test_parameters_out_of_range_are_errors(wrong):
    with pytest.raises(ValidationError):
        Relearning.Params(**wrong)


@pytest.mark.parametrize("modalities", [2, 3, 4])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_and_number_of_modalities_with_a_diagnosis(fusion, modalities):
    """The contract test's runs end before the published schedule begins; these do not."""
    whole, begun, resumed = (make(modalities, fusion=fusion, **EARLY) for _ in range(3))
    rows = train(whole, 3)
    assert {f"reset_strength/m{i}" for i in range(modalities)} < rows[2].keys()
    assert all(math.isfinite(value) for value in rows[2].values())
    assert all(torch.isfinite(p).all() for p in whole.model.parameters())
    train(begun, 2)
    resumed.load_state_dict({k: v.clone() for k, v in begun.state_dict().items()})
    resumed.epoch(2)
    assert same(whole.state_dict(), resumed.state_dict())


# State and data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [{}, {"buffers": "blend", "optimizer": "reset"}])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_resuming_is_exact_before_between_and_after_diagnoses(at, variant):
    whole, begun, resumed = (make(**EARLY, **variant) for _ in range(3))
    rows = train(whole)
    train(begun, at)
    resumed.method.initial = {}
    resumed.load_state_dict({k: v.clone() for k, v in begun.state_dict().items()})
    again = [resumed.epoch(epoch) for epoch in range(at, 4)]
    assert same(whole.state_dict(), resumed.state_dict())
    for row, other in zip(again, rows[at:], strict=True):
        assert {k: v for k, v in row.items() if "seconds" not in k} == {
            k: v for k, v in other.items() if "seconds" not in k
        }


def test_the_snapshot_is_of_before_the_first_step_and_stays():
    run = make(buffers="blend", **EARLY)
    first = {k: v.clone() for k, v in run.method.state_dict().items()}
    encoders = {k.removeprefix("model/encoders.") for k in run.state_dict() if k.startswith("model/encoders.")}
    assert {name.replace("/", ".", 1) for name in first} == encoders
    train(run)
    assert same(first, run.method.state_dict())


def scrambled(split: str):
    """Other inputs and labels for every clip of a split."""

    def change(cache: SyntheticCache) -> None:
        rows = cache.rows(split)
        for values in cache._values.values():
            values[rows] = values[rows][::-1] * 3 + 1
        cache.clips.loc[rows, "label"] = (cache.clips.label[rows] + 1) % len(cache.classes)

    return change


def test_test_data_is_never_read_and_held_out_data_is():
    plain, no_test, no_val = (
        make(**EARLY),
        make(change=scrambled("test"), **EARLY),
        make(change=scrambled("val"), **EARLY),
    )
    for run in (plain, no_test, no_val):
        train(run)
    assert same(model_state(plain), model_state(no_test))
    assert not same(model_state(plain), model_state(no_val))


def test_the_number_of_threads_is_put_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assign(torch.randn(50, 4), 3, "minmax", 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_diagnosis_counts_its_clips():
    ours, joint = make(**EARLY), make(name="joint")
    train(ours), train(joint)
    assert ours.context.forwards - joint.context.forwards == 2 * (SPLITS["train"] + SPLITS["val"])
    assert ours.context.backwards == joint.context.backwards


def test_a_run_that_has_diverged_is_told_so():
    run = make(**EARLY)
    train(run, 2)
    with torch.no_grad():
        run.model.encoders["m1"].conv1.weight.fill_(math.nan)
    with pytest.raises(UserError, match="expected finite features of 'm1' before epoch 2"):
        run.epoch(2)


def test_the_file_is_read_without_torch_and_sklearn():
    code = (
        "import sys, pipeline_src.methods.relearning\n"
        "print([m for m in ('torch', 'sklearn', 'threadpoolctl') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
