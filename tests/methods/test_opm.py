"""OPM against numbers worked by hand, the authors' own, a plain reference, and joint training where it must be that."""

import copy
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from pipeline_src.methods.base import Batch
from pipeline_src.methods.discrepancy import ratios, scores
from pipeline_src.methods.ogm import OGM, OGMGE
from pipeline_src.methods.opm import OPM, OPMOGM, OPMOGMParams, OPMParams, drop, drop_probabilities
from pipeline_src.models.base import fusions
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.synthetic import CLASSIFICATION, FUSIONS, SyntheticCache, setting, spec

CPU = torch.device("cpu")
GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("opm_*.npz"))


# Equation 8


def test_drop_probabilities_by_hand():
    ratio = torch.tensor([1 + float(torch.tensor(0.5).atanh()), 1.0, 0.25])  # z = 1/2 in the first
    assert drop_probabilities(ratio, 0.4, 0.5).tolist() == pytest.approx([0.4 * (1 + 0.25), 0, 0])
    assert drop_probabilities(torch.tensor([1 + 1e-6, 1e9]), 0.4, 0.5).tolist() == pytest.approx([0.4, 0.6])
    assert drop_probabilities(torch.tensor([3.0, 0.3]), 0.9, 5.0).tolist() == [1.0, 0.0]  # cut at 1
    assert drop_probabilities(torch.tensor([torch.inf, torch.nan]), 0.4, 0.5).tolist() == pytest.approx([0.6, 0.0])
    assert drop_probabilities(torch.tensor([7.0, 0.1]), 0.0, 5.0).tolist() == [0.0, 0.0]


def test_the_sigmoid_by_hand():
    ratio = torch.tensor([1 + math.log(3), 1 + 1e-6, 1.0, torch.nan])  # sigmoid 3/4, 1/2
    assert drop_probabilities(ratio, 0.4, 0.5, "sigmoid").tolist() == pytest.approx([0.4 * 1.375, 0.4 * 1.25, 0, 0])


def test_three_modalities_by_hand():
    score = {"a": torch.tensor(4.0), "b": torch.tensor(2.0), "c": torch.tensor(1.0)}
    mean, least = ratios(score, "mean"), ratios(score, "min")
    assert [float(r) for r in mean.values()] == [3.0, 1.25, 0.375]  # (4/2 + 4/1) / 2, (2/4 + 2/1) / 2, ...
    assert [float(r) for r in least.values()] == [4.0, 2.0, 0.5]
    z = np.tanh([2.0, 0.25, 3.0, 1.0])
    q = drop_probabilities(torch.stack(list(mean.values())), 0.4, 1.0)
    assert q.tolist() == pytest.approx([0.4 * (1 + z[0]), 0.4 * (1 + z[1]), 0])
    q = drop_probabilities(torch.stack(list(least.values())), 0.4, 1.0)
    assert q.tolist() == pytest.approx([0.4 * (1 + z[2]), 0.4 * (1 + z[3]), 0])


@pytest.mark.parametrize("others", ["mean", "min"])
@pytest.mark.parametrize("modalities", [2, 3, 4, 7])
def test_some_modality_is_always_kept(modalities, others):
    """The weakest modality's ratios to the others are 1 or less, and so is their mean: its q is 0."""
    generator = torch.Generator().manual_seed(modalities)
    draws = [torch.rand(modalities, generator=generator) ** 4 for _ in range(200)]
    ties = [torch.full((modalities,), float(s)) for s in (0.1, 1 / 3, 29.05660629272461)]
    almost = [torch.nextafter(tie, torch.where(torch.arange(modalities) == 0, torch.inf, tie)) for tie in ties]
    for s in [*draws, *ties, *almost]:
        ratio = ratios({f"m{i}": one for i, one in enumerate(s)}, others)
        q = drop_probabilities(torch.stack(list(ratio.values())), 1.0, 10.0)
        assert q[s.argmin()] == 0
        kept = drop({m: torch.ones(5, 2) for m in ratio}, q, torch.rand(5, modalities, generator=generator), True)
        total = sum(f.sum(dim=1) for f in kept.values())
        assert (total > 0).all() and torch.isfinite(total).all()
    for tie in ties:
        ratio = ratios({f"m{i}": one for i, one in enumerate(tie)}, others)
        assert not drop_probabilities(torch.stack(list(ratio.values())), 1.0, 10.0).any()


# Dropping


def test_drop_by_hand():
    features = {"a": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), "b": torch.tensor([[7.0], [8.0]])}
    q, uniform = torch.tensor([0.5, 0.0]), torch.tensor([[0.49, 0.0], [0.5, 0.0]])
    kept = drop(features, q, uniform, rescale=False)
    assert {m: f.tolist() for m, f in kept.items()} == {"a": [[0, 0, 0], [4, 5, 6]], "b": [[7], [8]]}
    kept = drop(features, q, uniform, rescale=True)  # theta = (3 x 0.5 + 1 x 0) / 4 = 3/8
    assert kept["a"][1].tolist() == pytest.approx([6.4, 8.0, 9.6])
    assert kept["b"].flatten().tolist() == pytest.approx([11.2, 12.8])
    assert kept["a"][0].tolist() == [0, 0, 0]


def test_rescaling_keeps_the_expected_sum_of_all_values():
    generator = torch.Generator().manual_seed(0)
    count, q = 20_000, torch.tensor([0.6, 0.0, 0.3])
    features = {"a": torch.ones(count, 8), "b": torch.ones(count, 2), "c": torch.ones(count, 4)}
    kept = drop(features, q, torch.rand(count, 3, generator=generator), rescale=True)
    assert float(torch.cat(list(kept.values()), dim=1).mean()) == pytest.approx(1, abs=0.01)
    theta = (8 * 0.6 + 4 * 0.3) / 14
    for (m, f), q_m in zip(kept.items(), q, strict=True):
        assert float(f.mean()) == pytest.approx((1 - float(q_m)) / (1 - theta), abs=0.02), m
    bare = drop(features, q, torch.rand(count, 3, generator=generator), rescale=False)
    assert [float(f.mean()) for f in bare.values()] == pytest.approx([0.4, 1.0, 0.7], abs=0.015)


def test_dropping_is_by_sample_and_modality():
    uniform = torch.rand(4000, 2, generator=torch.Generator().manual_seed(1))
    kept = drop({"a": torch.ones(4000, 3), "b": torch.ones(4000, 3)}, torch.tensor([0.5, 0.5]), uniform, False)
    whole = torch.cat([kept["a"], kept["b"]], dim=1)
    assert torch.equal(whole[:, 0:1].expand(-1, 3), kept["a"])  # a feature is dropped whole
    assert float((kept["a"][:, 0] * kept["b"][:, 0]).mean()) == pytest.approx(0.25, abs=0.03)  # independently


def reference(features: dict, score: dict, uniform: np.ndarray, q_base: float, lam: float, others: str, rescale: bool):
    """The equations once more in NumPy, float64, sample by sample."""
    names, q = list(features), {}
    for m in names:
        each = [score[m] / score[j] for j in names if j != m]
        rho = np.mean(each) if others == "mean" else max(each)
        q[m] = min(1.0, q_base * (1 + lam * np.tanh(rho - 1))) if rho > 1 else 0.0
    sizes = {m: features[m].shape[1] for m in names}
    theta = sum(sizes[m] * q[m] for m in names) / sum(sizes.values())
    kept = {m: np.array(features[m], dtype=np.float64) for m in names}
    for i in range(len(uniform)):
        for k, m in enumerate(names):
            kept[m][i] *= (0.0 if uniform[i, k] < q[m] else 1.0) / (1 - theta if rescale else 1)
    return q, kept


@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_a_plain_reference(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, size=rng.integers(2, 5))
    features = {f"m{i}": rng.normal(size=(6, d)).astype(np.float32) for i, d in enumerate(sizes)}
    score = {m: float(rng.uniform(0.1, 6)) for m in features}
    uniform = rng.uniform(size=(6, len(sizes))).astype(np.float32)
    q_base, lam, others, rescale = rng.uniform(), rng.uniform(0, 2), ["mean", "min"][seed % 2], seed % 3 > 0
    q, kept = reference(features, score, uniform, q_base, lam, others, rescale)
    ratio = ratios({m: torch.tensor(s) for m, s in score.items()}, others)
    ours = drop_probabilities(torch.stack(list(ratio.values())), q_base, lam)
    assert ours.tolist() == pytest.approx(list(q.values()), rel=1e-5)
    found = drop({m: torch.from_numpy(f) for m, f in features.items()}, ours, torch.from_numpy(uniform), rescale)
    for m in features:
        np.testing.assert_allclose(found[m].numpy(), kept[m], rtol=1e-4, atol=1e-6)


# The gradient of theta


class ReleasedRescaling(torch.autograd.Function):
    """x / (1 - theta), whose gradient for theta is theta: what the release does, in other words."""

    @staticmethod
    def forward(ctx, x, theta):
        ctx.save_for_backward(theta)
        return x / (1 - theta)

    @staticmethod
    def backward(ctx, gradient):
        (theta,) = ctx.saved_tensors
        return gradient / (1 - theta), theta


@pytest.mark.parametrize("others", [0.2, 0.9])  # of the second modality's confidence: behind, and even further ahead
def test_theta_loss_gives_the_gradients_of_the_released_rescaling(others):
    torch.manual_seed(3)
    fusion = fusions["concat"]({"a": 4, "b": 3}, 5)
    label = torch.randint(5, (6,))
    inputs = {"a": torch.randn(6, 4), "b": others * torch.randn(6, 3)}
    weights = {"a": torch.randn(4, 4), "b": torch.randn(3, 3)}
    params = OPMParams(q_base=0.4, lam=0.7, probability="same", rescale=True, theta_loss=True)

    def encoders() -> dict[str, torch.Tensor]:
        return {m: w.clone().requires_grad_() for m, w in weights.items()}

    # Ours: the hook, and its loss.
    ours, fusion_ours = encoders(), fusion
    run = Step(params)
    found = run({m: inputs[m] @ w for m, w in ours.items()}, label, fusion_ours)
    loss = torch.nn.functional.cross_entropy(fusion_ours(found), label) + run.method.term
    gradients = torch.autograd.grad(loss, [*ours.values(), *fusion.parameters()], retain_graph=True)

    # Theirs: scores by constant weights of the fusion, the same drop, the rescaling of above.
    theirs, step = encoders(), Step(params)
    features = {m: inputs[m] @ w for m, w in theirs.items()}
    constant = copy.deepcopy(fusion).requires_grad_(False)
    score = {m: z.softmax(1)[range(6), label].sum() for m, z in constant.unimodal(features).items()}
    q = torch.stack([0.4 * (1 + 0.7 * torch.tanh((score[m] / score[n] - 1).relu())) for m, n in ("ab", "ba")])
    q = torch.where(torch.stack([score["a"] > score["b"], score["b"] > score["a"]]), q, 0)
    theta = (4 * q[0] + 3 * q[1]) / 7
    torch.rand((), generator=step.rng)
    uniform = torch.rand(6, 2, generator=step.rng)
    kept = {m: f * (uniform[:, i : i + 1] >= q[i].detach()) for i, (m, f) in enumerate(features.items())}
    kept = dict(zip(kept, ReleasedRescaling.apply(torch.cat([*kept.values()], 1), theta).split([4, 3], 1), strict=True))
    loss = torch.nn.functional.cross_entropy(fusion(kept), label)
    expected = torch.autograd.grad(loss, [*theirs.values(), *fusion.parameters()])
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert float(run.method.term.detach()) == pytest.approx(float(theta.detach()) ** 2 / 2) != 0
    plain = torch.autograd.grad(torch.nn.functional.cross_entropy(fusion(found), label), list(ours.values()))
    assert not torch.allclose(plain[0], gradients[0], rtol=1e-3)  # it is not nothing


def test_theta_loss_is_of_the_batches_that_drop():
    fusion, label = identity_fusion(), torch.zeros(4, dtype=torch.int64)
    released = {"probability": "same", "rescale": True, "theta_loss": True}
    run = Step(OPMParams(q_base=0.5, warmup_epochs=1, **released), epoch=0)
    run(logits_of(0.8, 0.2), label, fusion)
    assert run.method.term is None
    run.epoch = 1
    run(logits_of(0.8, 0.2), label, fusion)
    theta = 0.5 * (1 + 0.5 * math.tanh(3)) / 2
    assert float(run.method.term.detach()) == pytest.approx(theta**2 / 2)


@pytest.mark.parametrize("method", ["opm", "opm_ogm"])
def test_theta_loss_trains_and_is_logged(method):
    released = {"probability": "same", "rescale": True, "theta_loss": True, "q_base": 0.5}
    params = released if method == "opm" else {"opm": released}
    (with_theta, rows), (without, plain) = (trained(method, epochs=1, **p) for p in (params, _without_theta(params)))
    assert rows[0]["theta_loss"] > 0 and "theta_loss" not in plain[0]
    assert not same_weights(with_theta, without)


def _without_theta(params: dict) -> dict:
    return {k: _without_theta(v) if isinstance(v, dict) else v for k, v in params.items() if k != "theta_loss"}


def test_theta_loss_needs_the_released_rescaling():
    for wrong in ({}, {"rescale": True}, {"probability": "same"}):
        with pytest.raises(ValidationError, match="expected rescale: true and probability: same"):
            OPMParams(theta_loss=True, **wrong)


# Both, with noise


def test_the_released_combination_has_noise():
    assert type(OPMOGM(OPMOGMParams()).ogm) is OGM
    for noise in ("all", "modulated"):
        both = OPMOGM(OPMOGMParams.model_validate({"ogm": {"noise": noise, "alpha": 2.6}}))
        assert type(both.ogm) is OGMGE
        assert (both.ogm.params.noise, both.ogm.params.alpha, both.ogm.name) == (noise, 2.6, "opm_ogm.ogm")
    gradient = torch.randn(50, 40)
    ctx = SimpleNamespace(device_rng=torch.Generator().manual_seed(0))
    changed = gradient.clone()
    both.ogm.update(ctx, [changed], torch.tensor(0.5))
    assert float((changed - 0.5 * gradient).std()) == pytest.approx(float(gradient.std()), rel=0.05)


# The authors' own numbers


class Golden(dict):
    """Arrays of a golden file; notes which were used."""

    def __init__(self, file: Path):
        with np.load(file) as arrays:
            super().__init__({name: arrays[name] for name in arrays.files})
        self.used = set()

    def __getitem__(self, name: str):
        self.used.add(name)
        return super().__getitem__(name)


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_golden(file):
    golden = Golden(file)
    meta = json.loads(str(golden["meta"]))
    features = {m: torch.from_numpy(golden[f"features_{m}"]) for m in ("audio", "visual")}
    fusion = fusions["concat"]({m: f.shape[1] for m, f in features.items()}, meta["classes"])
    with torch.no_grad():
        fusion.joint.weight.copy_(torch.from_numpy(golden["head_weight"]))
        fusion.joint.bias.copy_(torch.from_numpy(golden["head_bias"]))
        logits = fusion.unimodal(features)
    label = torch.from_numpy(golden["labels"])
    score = scores(CLASSIFICATION, logits, label)
    for m in features:
        np.testing.assert_allclose(logits[m].numpy(), golden[f"logits_{m}"], rtol=1e-5, atol=1e-5)
        assert float(score[m]) == pytest.approx(float(golden[f"score_{m}"]), rel=1e-5)
    q = drop_probabilities(torch.stack(list(ratios(score).values())), meta["q_base"], meta["lam"])
    np.testing.assert_allclose(q.numpy(), golden["q"], rtol=1e-5)

    # Their draw is read off what they kept; ours from the same draw must keep the same, equally scaled.
    theirs = {m: golden[f"kept_features_{m}"] for m in features}
    there = np.stack([f.any(axis=1) for f in theirs.values()], axis=1)  # (B, 2)
    uniform = torch.where(torch.from_numpy(there), 0.999, 0.0)
    kept = drop(features, q, uniform, rescale=True)
    for m in features:
        np.testing.assert_allclose(kept[m].numpy(), theirs[m], rtol=1e-5, atol=1e-7)
    ours = torch.stack([f.any(dim=1) for f in kept.values()]).any(dim=0)
    assert ours.tolist() == golden["kept_samples"].tolist() == [True] * meta["batch"]
    deviation = np.sqrt(golden["q"] * (1 - golden["q"]) / meta["batch"])
    assert (np.abs(1 - there.mean(axis=0) - golden["q"]) <= 4 * deviation).all()

    # And the hook gives the same, from the same scores.
    run = Step(OPMParams(q_base=meta["q_base"], lam=meta["lam"], probability="same", rescale=True))
    run(features, label, fusion)
    assert run.logged("score") == pytest.approx([float(golden["score_audio"]), float(golden["score_visual"])], rel=1e-5)
    assert run.logged("drop_probability") == pytest.approx(golden["q"].tolist(), rel=1e-5)
    assert golden.used == set(golden)


def test_golden_files_are_there():
    assert [file.stem for file in GOLDEN] == ["opm_1", "opm_2"]


# The hook


class Step:
    """Calls the hook outside of a training loop, and holds what it logged."""

    def __init__(self, params: OPMParams, epoch: int = 0, seed: int = 0):
        self.method, self.log = OPM(params), []
        self.rng, self.epoch = torch.Generator().manual_seed(seed), epoch

    def __call__(self, features: dict, label: torch.Tensor, fusion) -> dict:
        row = {}
        ctx = SimpleNamespace(
            task=CLASSIFICATION,
            model=SimpleNamespace(fusion=fusion),
            rng=self.rng,
            epoch=self.epoch,
            log=lambda name, x: row.update({name: x}),
        )
        found, kept = self.method.on_features(
            ctx, features, Batch({}, label, torch.arange(len(label)), torch.arange(len(label)))
        )
        assert kept is None
        self.log.append(row)
        return found

    def logged(self, name: str, batch: int = -1) -> list[float]:
        return [float(x) for key, x in self.log[batch].items() if key.startswith(f"{name}/")]


def identity_fusion(modalities: int = 2, classes: int = 2):
    """A sum fusion whose logits of a modality are its features."""
    fusion = fusions["sum"]({f"m{i}": classes for i in range(modalities)}, classes)
    with torch.no_grad():
        for term in fusion.terms.values():
            term.weight.copy_(torch.eye(classes))
    return fusion


def logits_of(*probabilities: float, batch: int = 4) -> dict[str, torch.Tensor]:
    """Features that are logits with the given probability of class 0, for every sample."""
    rows = [torch.tensor([[p, 1 - p]]).log().expand(batch, -1) for p in probabilities]
    return {f"m{i}": row for i, row in enumerate(rows)}


def test_previous_is_same_one_batch_later():
    fusion, label = identity_fusion(), torch.zeros(4, dtype=torch.int64)
    batches = [logits_of(0.8, 0.2), logits_of(0.6, 0.3), logits_of(0.2, 0.8)]
    runs = {p: Step(OPMParams(q_base=0.4, lam=0.5, probability=p)) for p in ("same", "previous")}
    for batch in batches:
        for run in runs.values():
            run(batch, label, fusion)
    z = np.tanh([3.0, 1.0, 3.0])  # ratios 4, 2, 4
    same = [[0.4 * (1 + 0.5 * z[0]), 0], [0.4 * (1 + 0.5 * z[1]), 0], [0, 0.4 * (1 + 0.5 * z[2])]]
    for i in range(3):
        assert runs["same"].logged("drop_probability", i) == pytest.approx(same[i], rel=1e-5)
        before = same[i - 1] if i else [0, 0]
        assert runs["previous"].logged("drop_probability", i) == pytest.approx(before, rel=1e-5)
        assert runs["previous"].logged("ratio", i) == runs["same"].logged("ratio", i)
    assert runs["same"].logged("score", 0) == pytest.approx([3.2, 0.8])


def test_scores_are_taken_before_the_drop():
    fusion, label = identity_fusion(), torch.zeros(4, dtype=torch.int64)
    run = Step(OPMParams(q_base=1.0))
    for _ in range(2):
        found = run(logits_of(0.8, 0.2), label, fusion)
    assert not found["m0"].any() and found["m1"].any()  # all dropped in the second batch
    assert run.logged("score", 0) == run.logged("score", 1)


def test_share_of_batches_and_of_samples_that_drop():
    fusion, label = identity_fusion(), torch.zeros(50, dtype=torch.int64)
    batch = logits_of(0.8, 0.2, batch=50)
    run = Step(OPMParams(q_base=0.5, lam=0.0, probability="same", execute_probability=0.7))
    dropped = torch.stack([~run(batch, label, fusion)["m0"].any(dim=1) for _ in range(400)])  # (batches, B)
    executed = dropped.any(dim=1)
    assert float(executed.float().mean()) == pytest.approx(0.7, abs=4 * (0.21 / 400) ** 0.5)
    assert float(dropped[executed].float().mean()) == pytest.approx(0.5, abs=0.02)
    assert [row["drop_probability/m0"] > 0 for row in run.log] == executed.tolist()
    for share, expected in ((0.0, 0), (1.0, 50)):
        run = Step(OPMParams(q_base=1.0, lam=0.0, probability="same", execute_probability=share))
        assert sum(int((~run(batch, label, fusion)["m0"].any(dim=1)).sum()) for _ in range(20)) == 20 * expected


def test_warm_up():
    fusion, label = identity_fusion(), torch.zeros(4, dtype=torch.int64)
    params = OPMParams(q_base=1.0, warmup_epochs=6)
    run = Step(params, epoch=5)
    for _ in range(2):
        features = logits_of(0.8, 0.2)
        assert run(features, label, fusion) is features
    assert run.logged("drop_probability") == [0, 0]
    run.epoch = 6  # its first batch drops by the last one of the warm-up
    assert not run(logits_of(0.8, 0.2), label, fusion)["m0"].any()


@pytest.mark.parametrize("probability", ["previous", "same"])
def test_degenerate_batches(probability):
    params = OPMParams(q_base=0.4, lam=0.5, probability=probability, rescale=True)
    fusion = identity_fusion()
    one = torch.zeros(1, dtype=torch.int64)
    far = {"m0": torch.tensor([[200.0, -200.0]]), "m1": torch.tensor([[-200.0, 200.0]])}  # the second scores 0
    for name, features, ratio in (
        ("one sample", logits_of(0.8, 0.2, batch=1), [4, 0.25]),
        ("a constant modality", {"m0": torch.zeros(1, 2), "m1": logits_of(0.25)["m0"][:1]}, [2, 0.5]),
        ("a tie", logits_of(0.3, 0.3, batch=1), [1, 1]),
        ("a score of 0", far, [1e8, 1e-8]),
        ("both scores 0", {"m0": far["m1"], "m1": far["m1"]}, [1, 1]),
    ):
        run = Step(params)
        for _ in range(3):
            found = run(features, one, fusion)
            assert all(torch.isfinite(f).all() for f in found.values()), name
            assert found["m1"].any(), name
        assert run.logged("ratio") == pytest.approx(ratio, rel=1e-5), name
        expected = 0.4 * (1 + 0.5 * np.tanh(ratio[0] - 1)) if ratio[0] > 1 else 0
        assert run.logged("drop_probability") == pytest.approx([expected, 0], rel=1e-4), name


def test_half_precision_features_are_scored_in_float32_and_kept_in_half():
    fusion, label = identity_fusion(), torch.zeros(4, dtype=torch.int64)
    run = Step(OPMParams(q_base=0.4, probability="same", rescale=True))
    features = {m: f.bfloat16() for m, f in logits_of(0.8, 0.2).items()}
    with torch.autocast("cpu", torch.bfloat16):
        found = run(features, label, fusion)
    assert all(f.dtype == torch.bfloat16 for f in found.values())
    exact = scores(CLASSIFICATION, {m: f.float() for m, f in features.items()}, label)
    assert run.logged("score") == [float(s) for s in exact.values()]


@pytest.mark.parametrize("probability", ["previous", "same"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_step_waits_for_no_value(fusion, probability):
    """Features here have shapes but no values, so asking for one raises, as waiting for the device would be."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    features = {m: fake.from_tensor(torch.ones(6, 5)) for m in ("a", "b", "c")}
    run = Step(OPMParams(probability=probability, rescale=True))
    for _ in range(2):
        found = run(
            features,
            fake.from_tensor(torch.zeros(6, dtype=torch.int64)),
            fusions[fusion](dict.fromkeys(features, 5), 4),
        )
    assert all(f.shape == (6, 5) for f in found.values())
    with pytest.raises(DataDependentOutputException):
        run.logged("drop_probability")


# Parameters


def test_parameters_out_of_range():
    for bad in ({"q_base": 1.1}, {"q_base": -0.1}, {"lam": -1.0}, {"lam": float("inf")}, {"execute_probability": 2.0}):
        with pytest.raises(ValidationError):
            OPMParams(**bad)
    with pytest.raises(ValidationError):
        OPMParams(warmup_epochs=-1)
    with pytest.raises(ValidationError):
        OPMOGM.Params(opm={"alpha": 1.0})


def test_refusals():
    assert OPM.refuses(OPMParams(), setting("concat", 2, 1)) is None
    assert OPM.refuses(OPMParams(), setting("concat", 1, 9)) == "expected two modalities or more, but got 1"
    late = "expected warmup_epochs below training.epochs = 6, but got 6"
    assert OPM.refuses(OPMParams(warmup_epochs=6), setting("film", 2, 6)) == late
    assert OPM.refuses(OPMParams(warmup_epochs=6), setting("film", 2, 7)) is None
    assert OPMOGM.refuses(OPMOGM.Params(opm={"warmup_epochs": 6}), setting("concat", 2, 6)) == late
    assert "first_epoch" in OPMOGM.refuses(OPMOGM.Params(ogm={"first_epoch": 9}), setting("concat", 2, 9))
    assert OPMOGM.refuses(OPMOGM.Params(), setting("concat", 1, 9)) == "expected two modalities or more, but got 1"
    assert OPMOGM.refuses(OPMOGM.Params(), setting("concat", 4, 9)) is None


# Whole runs

RELEASED = {"probability": "same", "execute_probability": 0.7, "rescale": True, "theta_loss": True}


def trained(name: str, fusion: str = "concat", modalities: int = 2, epochs: int = 2, precision: str = "fp32", **params):
    """A trainer after `epochs`, and its rows without the seconds."""
    cache = SyntheticCache(modalities)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in ("train", "val", "test")}
    run = Trainer(spec(cache, fusion, name, params, precision=precision), 0, cache, loaders, CPU)
    run.method.on_train_start(run.context)
    rows = [run.epoch(epoch) for epoch in range(epochs)]
    return run, [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def same_weights(a: Trainer, b: Trainer) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    keys = [k for k in ours if not k.startswith("method/")]
    return set(keys) == {k for k in theirs if not k.startswith("method/")} and all(
        torch.equal(ours[k], theirs[k]) for k in keys
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_probability_zero_is_joint_training_bit_for_bit(fusion, precision):
    joint, rows = trained("joint", fusion, precision=precision)
    for params in ({}, RELEASED):
        run, own = trained("opm", fusion, precision=precision, q_base=0.0, **params)
        assert same_weights(run, joint)
        assert [row["loss"] for row in own] == [row["loss"] for row in rows]
    run, _ = trained("opm_ogm", fusion, precision=precision, opm={"q_base": 0.0}, ogm={"alpha": 0.0})
    assert same_weights(run, joint)


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("params", [{}, RELEASED], ids=["paper", "released"])
def test_both_variants_drop_and_log(params, modalities):
    run, rows = trained("opm", modalities=modalities, q_base=0.5, **params)
    assert not same_weights(run, trained("joint", modalities=modalities)[0])
    for what in ("score", "ratio", "drop_probability"):
        values = [row[f"{what}/{m}"] for row in rows for m in run.modalities]
        assert np.isfinite(values).all() and max(values) > 0
    assert all(0 <= row[f"drop_probability/{m}"] <= 0.75 for row in rows for m in run.modalities)


def test_opm_ogm_is_one_where_the_other_is_off():
    opm = {"q_base": 0.5, "execute_probability": 0.7, "rescale": True}
    ogm = {"alpha": 0.8, "first_epoch": 1}
    plain = {"opm": trained("opm", **opm), "ogm": trained("ogm", **ogm)}
    off = {
        "opm": trained("opm_ogm", opm=opm, ogm={**ogm, "alpha": 0.0}),
        "ogm": trained("opm_ogm", opm={**opm, "q_base": 0.0}, ogm=ogm),
    }
    both, rows = trained("opm_ogm", opm=opm, ogm=ogm)
    for name, (run, logged) in plain.items():
        assert same_weights(off[name][0], run)
        assert not same_weights(both, run)
        for row, own in zip(logged, off[name][1], strict=True):
            assert row == pytest.approx({k: own[k] for k in row})
    fields = {"score", "ratio", "drop_probability", "coefficient"}
    assert fields <= {key.partition("/")[0] for key in rows[0]}


def test_both_scale_by_the_scores_before_the_drop():
    run, rows = trained("opm_ogm", epochs=1, opm={"q_base": 1.0, "probability": "same"}, ogm={"alpha": 0.0})
    _, alone = trained("opm", epochs=1, q_base=1.0, probability="same")
    for m in run.modalities:
        assert rows[0][f"ratio/{m}"] == pytest.approx(alone[0][f"ratio/{m}"])
        assert rows[0][f"score/{m}"] == pytest.approx(alone[0][f"score/{m}"])


@pytest.mark.parametrize("name", ["opm", "opm_ogm"])
def test_resuming_keeps_the_probability_for_the_next_batch(name):
    params = {"q_base": 0.5} if name == "opm" else {"opm": {"q_base": 0.5}}
    begun, _ = trained(name, epochs=1, **params)
    state = {k: v.clone() for k, v in begun.state_dict().items()}
    assert state["method/next_q"].max() >= 0.5
    begun.epoch(1)
    resumed, _ = trained(name, epochs=0, **params)
    resumed.load_state_dict(state)
    resumed.epoch(1)
    assert same_weights(begun, resumed)
    fresh, _ = trained(name, epochs=0, **params)
    fresh.load_state_dict({k: v for k, v in state.items() if k != "method/next_q"})
    fresh.epoch(1)
    assert not same_weights(begun, fresh)  # the state matters: without it the first batch stays whole


def test_a_message_about_ogm_names_its_place():
    assert OPMOGM(OPMOGM.Params()).ogm.name == "opm_ogm.ogm"
