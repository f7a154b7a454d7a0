"""OGM and OGM-GE against numbers by hand, a plain loop, the authors' own numbers, and joint training."""

import json
import math
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn.functional import cross_entropy

from pipeline_src.core.errors import UserError
from pipeline_src.methods import discrepancy
from pipeline_src.methods.ogm import OGM, OGMGE, OGMGEParams, OGMParams, add_noise_, coefficients, deviations, selected
from pipeline_src.models.base import fusions
from pipeline_src.models.multimodal import MultimodalModel
from pipeline_src.study import config
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.synthetic import CLASSIFICATION, FUSIONS, SPLITS, SyntheticCache, setting, spec

CPU = torch.device("cpu")
GOLDEN = Path(__file__).parents[1] / "golden"


def tensors(**values: float) -> dict[str, torch.Tensor]:
    return {m: torch.tensor(value) for m, value in values.items()}


def numbers(values: dict[str, torch.Tensor]) -> dict[str, float]:
    return {m: float(value) for m, value in values.items()}


# The equations


@pytest.mark.parametrize(
    ("alpha", "scale", "ratio", "expected"),
    [
        (0.8, "cvpr", 1.5, 1 - math.tanh(1.2)),  # 0.1663
        (0.1, "cvpr", 3.0, 1 - math.tanh(0.3)),  # 0.7087
        (0.8, "cvpr", 1.0001, 0.335918),  # jumps at 1: 1 - tanh(0.8) = 0.335963
        (0.5, "tpami", 2.0, 1 - 0.5 * math.tanh(1)),  # 0.6192
        (0.5, "tpami", 1.0001, 0.99995),  # does not jump
        (2.6, "tpami", 1.3, 1 - 2.6 * math.tanh(0.3)),  # 0.2426
        (2.6, "tpami", 1.5, 0.0),  # 1 - 2.6 tanh(0.5) = -0.2015
        (0.8, "cvpr", 1.0, 1.0),
        (0.8, "tpami", 0.3, 1.0),
        (0.0, "cvpr", 7.0, 1.0),
        (0.0, "tpami", 7.0, 1.0),
    ],
)
def test_coefficient_by_hand(alpha, scale, ratio, expected):
    k = coefficients(tensors(m=ratio, other=0.5), alpha, scale)
    assert numbers(k) == pytest.approx({"m": expected, "other": 1.0}, abs=2e-6)


@pytest.mark.parametrize("scale", ["cvpr", "tpami"])
@pytest.mark.parametrize("alpha", [0.0, 0.8, 1e30])
def test_coefficient_of_a_ratio_without_bound(alpha, scale):
    """The other score is 0, so the ratio is infinite; both are, so it is no number."""
    k = numbers(coefficients(tensors(ahead=math.inf, behind=0.0, neither=math.nan), alpha, scale))
    limit = 1.0 if alpha == 0 else max(0.0, 1 - alpha) if scale == "tpami" else 0.0
    assert k == pytest.approx({"ahead": limit, "behind": 1.0, "neither": 1.0})


def test_what_is_behind_is_strengthened_by_hand():
    ratio = tensors(behind=0.5, ahead=2.0, even=1.0)
    acc = numbers(coefficients(ratio, 0.1, "acc"))
    assert acc == pytest.approx({"behind": 1 + math.tanh(0.2), "ahead": 1.0, "even": 1.0})
    assert numbers(coefficients(ratio, 0.1, "star")) == {"behind": 4.0, "ahead": 1.0, "even": 1.0}
    assert numbers(coefficients(ratio, 0.1, "star", 2.5))["behind"] == 2.5
    assert numbers(coefficients(ratio, 0.0, "acc")) == {"behind": 1.0, "ahead": 1.0, "even": 1.0}
    edges = tensors(nothing=0.0, all=math.inf, neither=math.nan)
    assert numbers(coefficients(edges, 0.8, "acc")) == {"nothing": 2.0, "all": 1.0, "neither": 1.0}
    assert numbers(coefficients(edges, 0.0, "acc")) == {"nothing": 1.0, "all": 1.0, "neither": 1.0}


def test_three_modalities_by_hand():
    score = tensors(a=6.0, b=3.0, c=1.5)
    mean = discrepancy.ratios(score, "mean")  # a: (2 + 4) / 2, b: (0.5 + 2) / 2, c: (0.25 + 0.5) / 2
    assert numbers(mean) == {"a": 3.0, "b": 1.25, "c": 0.375}
    least = discrepancy.ratios(score, "min")  # a: 6 / 1.5, b: 3 / 1.5, c: 1.5 / 3
    assert numbers(least) == {"a": 4.0, "b": 2.0, "c": 0.5}
    k = numbers(coefficients(mean, 0.2))
    assert k == pytest.approx({"a": 1 - math.tanh(0.6), "b": 1 - math.tanh(0.25), "c": 1.0})
    k = numbers(coefficients(least, 0.2))
    assert k == pytest.approx({"a": 1 - math.tanh(0.8), "b": 1 - math.tanh(0.4), "c": 1.0})


@pytest.mark.parametrize("scale", ["cvpr", "tpami"])
@pytest.mark.parametrize("others", ["mean", "min"])
@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_against_a_plain_loop(modalities, others, scale):
    rng = np.random.default_rng(modalities)
    for batch, classes, alpha in ((1, 2, 0.3), (5, 6, 0.8), (64, 31, 2.6)):
        z = {f"m{i}": rng.normal(scale=3, size=(batch, classes)).astype(np.float32) for i in range(modalities)}
        label = rng.integers(classes, size=batch)
        score = dict.fromkeys(z, 0.0)
        for m in z:
            for i in range(batch):
                e = [math.exp(float(value)) for value in z[m][i]]
                score[m] += e[label[i]] / sum(e)
        expected = {}
        for m in z:
            each = [score[m] / score[other] for other in z if other != m]
            rho = sum(each) / len(each) if others == "mean" else max(each)
            fall = math.tanh(alpha * rho) if scale == "cvpr" else alpha * math.tanh(rho - 1)
            expected[m] = max(0.0, 1 - fall) if rho > 1 else 1.0
        found = discrepancy.scores(
            CLASSIFICATION, {m: torch.from_numpy(v) for m, v in z.items()}, torch.from_numpy(label)
        )
        k = coefficients(discrepancy.ratios(found, others), alpha, scale)
        assert numbers(k) == pytest.approx(expected, rel=1e-4, abs=1e-5)


# The noise


def test_deviation_is_that_of_the_entries():
    torch.manual_seed(0)
    gradients = [torch.randn(40, 30, 3, 3).to(memory_format=torch.channels_last) * 0.01 + 0.002, torch.randn(3, 4)]
    expected = [float(g.double().std()) for g in gradients]
    assert [float(sigma) for sigma in deviations(gradients)] == pytest.approx(expected, rel=1e-5)
    assert [float(sigma) for sigma in deviations([torch.full((8, 8), 0.5), torch.ones(1)])] == pytest.approx([1e-8] * 2)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_noise_is_gaussian_with_the_deviation_asked_for(layout):
    gradients = [torch.zeros(64, 48, 3, 3).to(memory_format=layout), torch.zeros(64, 48, 3, 3), torch.zeros(30, 2)]
    sigmas = [torch.tensor(0.5), torch.tensor(3.0), torch.tensor(0.0)]
    add_noise_(gradients, sigmas, torch.Generator().manual_seed(0))
    for g, sigma in zip(gradients[:2], (0.5, 3.0), strict=True):
        unit = (g / sigma).double().flatten()
        error = len(unit) ** -0.5
        assert abs(float(unit.mean())) < 4 * error
        assert abs(float((unit**2).mean()) - 1) < 4 * error * 2**0.5
        assert abs(float((unit**4).mean()) - 3) < 4 * error * 96**0.5
        assert len(unit.unique()) > 0.99 * len(unit)
    assert abs(float(torch.corrcoef(torch.stack([g.flatten() for g in gradients[:2]]))[0, 1])) < 0.03
    assert not gradients[2].any()


@pytest.mark.parametrize("noise", ["all", "modulated"])
def test_who_gets_noise(noise):
    torch.manual_seed(1)
    method = OGMGE(OGMGEParams(noise=noise))
    ctx = SimpleNamespace(device_rng=torch.Generator().manual_seed(0))
    plain = torch.randn(200, 100) * 0.1 + 0.01
    for k in (1.0, 0.4, 4.0):
        g = plain.clone()
        method.update(ctx, [g], torch.tensor(k))
        rest = g - k * plain
        if noise == "modulated" and k == 1:
            assert torch.equal(g, plain)
        else:  # as large as the gradient was before it was scaled
            assert float(rest.std()) == pytest.approx(float(plain.std()), rel=0.03)
            assert abs(float(rest.mean())) < 4 * float(plain.std()) / len(rest.flatten()) ** 0.5


# The authors' numbers


class Golden:
    """The arrays of a file as tensors; notes which were read."""

    def __init__(self, name: str):
        with np.load(GOLDEN / f"{name}.npz") as file:
            self.arrays = {key: file[key] for key in file.files}
        self.meta = json.loads(str(self.arrays["meta"]))
        self.read = {"meta"}

    def __getitem__(self, key: str) -> torch.Tensor:
        self.read.add(key)
        return torch.from_numpy(self.arrays[key].copy())

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(prefix): self[key] for key in self.arrays if key.startswith(prefix)}


def small_encoder(channels: int, dim: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, 4, 3, stride=2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, dim))


OUR_NAMES = {
    "concat": {"fc_out.weight": "joint.weight", "fc_out.bias": "joint.bias"},
    "sum": {
        "fc_x.weight": "terms.audio.weight",
        "fc_x.bias": "terms.audio.bias",
        "fc_y.weight": "terms.visual.weight",
        "fc_y.bias": "terms.visual.bias",
    },
}


def rebuilt(golden: Golden) -> MultimodalModel:
    """The small model of the golden files, with our fusions and their weights."""
    meta = golden.meta
    encoders = {"audio": small_encoder(1, meta["dim"]), "visual": small_encoder(3, meta["dim"])}
    fusion = fusions[meta["fusion"]](dict.fromkeys(encoders, meta["dim"]), meta["classes"])
    for m, encoder in encoders.items():
        state = golden.part(f"param/{m}_net.")
        fresh = nn.BatchNorm2d(4).state_dict()  # the arrays are those before the step
        assert all(torch.equal(state[f"1.{k}"], fresh[k]) for k in ("running_mean", "running_var"))
        assert state["1.num_batches_tracked"] == 0
        encoder.load_state_dict(state)
    names = OUR_NAMES[meta["fusion"]]
    fusion.load_state_dict({names[k]: v for k, v in golden.part("param/fusion_module.").items()})
    return MultimodalModel(encoders, fusion).train()


def gradients_of(golden: Golden, model: MultimodalModel, kind: str) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """(name, expected, our gradient) of every parameter."""
    ours = {n: p.grad for n, p in model.named_parameters()}
    names = {f"fusion_module.{k}": f"fusion.{v}" for k, v in OUR_NAMES[golden.meta["fusion"]].items()}
    found = []
    for name, expected in golden.part(f"grad_{kind}/").items():
        net, _, rest = name.partition(".")
        found.append((name, expected, ours.pop(names.get(name) or f"encoders.{net.removesuffix('_net')}.{rest}")))
    assert not ours
    return found


def context(model: nn.Module, epoch: int = 0) -> SimpleNamespace:
    """What OGM sees of a run; `logged` keeps the last value of each name."""
    logged = {}
    return SimpleNamespace(
        task=CLASSIFICATION,
        model=model,
        epoch=epoch,
        device_rng=torch.Generator().manual_seed(epoch),
        logged=logged,
        log=logged.__setitem__,
        parameters=lambda of: dict(of.named_parameters()),
    )


def backward(golden: Golden) -> tuple[MultimodalModel, object, SimpleNamespace]:
    """Model, output and batch of a golden file after the backward pass; checks everything up to there."""
    model = rebuilt(golden)
    output = model({"audio": golden["spec"][:, None], "visual": golden["image"]})
    label = golden["labels"]
    assert (len(label), label.max() < golden.meta["classes"]) == (golden.meta["batch"], True)
    for m, features in output.features.items():
        torch.testing.assert_close(features, golden[f"features_{m}"], rtol=1e-5, atol=1e-6)
    loss = cross_entropy(output.logits, label)
    assert float(loss.detach()) == pytest.approx(float(golden["loss"]), rel=1e-6)
    loss.backward()
    for _, expected, ours in gradients_of(golden, model, "plain"):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)
    return model, output, SimpleNamespace(label=label)


def by_hand(golden: Golden) -> dict[str, float]:
    """Coefficients from the features and the fusion's weights of the file, in double precision."""
    fusion = {k: v.double() for k, v in golden.part("param/fusion_module.").items()}
    audio, visual = golden["features_audio"].double(), golden["features_visual"].double()
    if golden.meta["fusion"] == "concat":
        own, other = fusion["fc_out.weight"].chunk(2, dim=1)
        logits = audio @ own.T + fusion["fc_out.bias"] / 2, visual @ other.T + fusion["fc_out.bias"] / 2
    else:
        logits = (
            audio @ fusion["fc_x.weight"].T + fusion["fc_x.bias"],
            visual @ fusion["fc_y.weight"].T + fusion["fc_y.bias"],
        )
    rows = torch.arange(len(audio))
    a, v = (float(torch.softmax(z, 1)[rows, golden["labels"]].sum()) for z in logits)
    return {
        m: 1 - math.tanh(golden.meta["alpha"] * rho) if rho > 1 else 1.0
        for m, rho in (("audio", a / v), ("visual", v / a))
    }


@pytest.mark.parametrize("name", ["ogm_concat_1", "ogm_concat_2", "ogm_sum_1"])
def test_golden(name):
    golden = Golden(name)
    assert (golden.meta["method"], golden.meta["source"]) == ("OGM", "OGM-GE_CVPR2022 main.train_epoch")
    model, output, batch = backward(golden)
    method, ctx = OGM(OGMParams(alpha=golden.meta["alpha"], weights="conv")), context(model)
    method.before_epoch(ctx)
    method.after_backward(ctx, output, batch)

    expected_k = by_hand(golden)
    assert {m: float(ctx.logged[f"coefficient/{m}"]) for m in expected_k} == pytest.approx(expected_k, rel=1e-5)
    assert sorted(k < 1 for k in expected_k.values()) == [False, True]
    plain = golden.part("grad_plain/")
    for key, expected, ours in gradients_of(golden, model, "modulated"):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)
        k = expected_k[key.partition("_net")[0]] if key.endswith("_net.0.weight") else 1.0
        torch.testing.assert_close(expected, (k * plain[key].double()).float(), rtol=1e-5, atol=1e-9)
    assert golden.read == set(golden.arrays)


def test_golden_with_noise():
    golden = Golden("ogm_concat_ge")
    assert (golden.meta["method"], golden.meta["source"]) == ("OGM_GE", "OGM-GE_CVPR2022 main.train_epoch")
    model, output, batch = backward(golden)
    method = OGMGE(OGMGEParams(alpha=golden.meta["alpha"], weights="conv"))
    ctx, expected_k = context(model), by_hand(golden)
    start = {n: p.grad.clone() for n, p in model.named_parameters()}
    rests = {m: [] for m in expected_k}
    for i in range(300):
        for n, p in model.named_parameters():
            p.grad = start[n].clone()
        if i == 0:
            method.before_epoch(ctx)
        method.after_backward(ctx, output, batch)
        for m in rests:
            rests[m].append(model.encoders[m][0].weight.grad - expected_k[m] * start[f"encoders.{m}.0.weight"])
    plain = golden.part("grad_plain/")
    for key, expected, ours in gradients_of(golden, model, "modulated"):
        m, _, layer = key.partition("_net.")
        if layer != "0.weight":
            assert torch.equal(expected, plain[key])
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)
            continue
        sigma = float(plain[key].double().std())
        # One draw of theirs and many of ours, both with k from the same equations, also where it is 1.
        for rest in (expected - expected_k[m] * plain[key], torch.stack(rests[m])):
            unit = rest.double().flatten() / sigma
            error = len(unit) ** -0.5
            assert abs(float(unit.mean())) < 3 * error
            assert abs(float(unit.std()) - 1) < 3 * error / 2**0.5
    assert max(expected_k.values()) == 1.0 > min(expected_k.values())
    assert golden.read == set(golden.arrays)


def test_every_golden_file_is_checked():
    checked = {"ogm_concat_1", "ogm_concat_2", "ogm_sum_1", "ogm_concat_ge"}
    assert {file.stem for file in GOLDEN.glob("ogm_*.npz")} == checked


# What is modulated, and when


def test_which_weights():
    encoder = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), norm=nn.BatchNorm2d(2), fc=nn.Linear(2, 2)))
    encoder.wide = nn.Conv3d(1, 1, 3, bias=False)
    encoder.frozen = nn.Conv2d(1, 1, 3, bias=False).requires_grad_(False)
    names = {id(p): n for n, p in encoder.named_parameters()}
    found = {w: [names[id(p)] for p in selected(encoder.parameters(), w)] for w in ("conv", "matrix", "all")}
    assert found["conv"] == ["conv.weight"]
    assert found["matrix"] == ["conv.weight", "fc.weight", "wide.weight"]
    assert found["all"] == [n for n in names.values() if n != "frozen.weight"]


@pytest.mark.parametrize("weights", ["conv", "matrix", "all"])
def test_only_the_chosen_weights_change(weights):
    golden = Golden("ogm_concat_1")
    model, output, batch = backward(golden)
    start = {n: p.grad.clone() for n, p in model.named_parameters()}
    method, ctx = OGM(OGMParams(alpha=0.8, weights=weights)), context(model)
    method.before_epoch(ctx)
    method.after_backward(ctx, output, batch)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p.grad, start[n])}
    own = {n for n in start if n.startswith("encoders.visual.")}  # visual is ahead
    expected = {
        "conv": {"encoders.visual.0.weight"},
        "matrix": {"encoders.visual.0.weight", "encoders.visual.5.weight"},
        "all": own,
    }[weights]
    assert changed == expected
    for n in changed:
        torch.testing.assert_close(dict(model.named_parameters())[n].grad, start[n] * ctx.logged["coefficient/visual"])
    assert ctx.logged["modulated_tensors/visual"] == len(expected)


def test_an_encoder_without_such_weights_is_an_error():
    model = SimpleNamespace(encoders={"text": nn.Linear(3, 3), "image": nn.Conv2d(1, 1, 3)})
    with pytest.raises(
        UserError, match=r"methods\.ogm\.weights: expected the encoder of 'text'.*but got none for 'conv'"
    ):
        OGM(OGMParams(weights="conv")).before_epoch(context(model))
    OGM(OGMParams()).before_epoch(context(model))


def trainer(method: dict, modalities: int = 2, fusion: str = "concat", change=None, **training) -> Trainer:
    cache = SyntheticCache(modalities)
    if change:
        change(cache)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in SPLITS}
    given = {k: v for k, v in method.items() if k != "name"}
    return Trainer(spec(cache, fusion, method["name"], given, **training), 0, cache, loaders, CPU)


def trained(*args, epochs: int = 2, **kwargs) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    run = trainer(*args, **kwargs)
    run.method.on_train_start(run.context)
    rows = [run.epoch(epoch) for epoch in range(epochs)]
    return run.state_dict(), rows


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("method", ["ogm", "ogm_ge"])
def test_window_includes_both_ends(method):
    _, rows = trained({"name": method, "first_epoch": 1, "last_epoch": 2}, epochs=4)
    inside = [min(row["coefficient/m0"], row["coefficient/m1"]) < 1 for row in rows]
    assert inside == [False, True, True, False]
    assert [row["modulated_tensors/m0"] for row in rows] == [0, 6, 6, 0]
    assert all(row["ratio/m0"] > 0 for row in rows)

    early = trainer({"name": method, "first_epoch": 1})
    joint = trainer({"name": "joint"})
    early.epoch(0), joint.epoch(0)
    assert same(early.state_dict(), joint.state_dict())
    early.epoch(1), joint.epoch(1)
    assert not same(early.state_dict(), joint.state_dict())


def test_no_last_epoch_is_the_last_of_the_run():
    _, rows = trained({"name": "ogm", "first_epoch": 2}, epochs=4)
    assert [row["modulated_tensors/m1"] for row in rows] == [0, 0, 6, 6]


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("scale", ["cvpr", "tpami"])
@pytest.mark.parametrize("modalities", [2, 3])
def test_alpha_0_is_joint_training_bit_for_bit(modalities, scale, fusion):
    off, rows = trained({"name": "ogm", "alpha": 0.0, "scale": scale, "weights": "all"}, modalities, fusion)
    joint, joint_rows = trained({"name": "joint"}, modalities, fusion)
    assert same(off, joint)
    assert [row["loss"] for row in rows] == [row["loss"] for row in joint_rows]
    assert not same(trained({"name": "ogm", "alpha": 0.8}, modalities, fusion)[0], joint)


def test_enhancement_without_modulation_adds_noise_only_if_all_get_it():
    joint, _ = trained({"name": "joint"}, epochs=1)
    assert not same(trained({"name": "ogm_ge", "alpha": 0.0}, epochs=1)[0], joint)
    assert same(trained({"name": "ogm_ge", "alpha": 0.0, "noise": "modulated"}, epochs=1)[0], joint)


def test_noise_belongs_to_the_run():
    """Not to the global generator, which anything may have moved."""
    first = trained({"name": "ogm_ge"}, epochs=1)[0]
    torch.rand(7)
    assert same(first, trained({"name": "ogm_ge"}, epochs=1)[0])


@pytest.mark.parametrize("method", ["ogm", "ogm_ge"])
def test_what_is_logged(method):
    _, rows = trained({"name": method}, modalities=3, epochs=1)
    fields = {f"{f}/m{i}" for f in ("score", "ratio", "coefficient", "modulated_tensors") for i in range(3)}
    assert set(rows[0]) == {"epoch", "lr", "seconds", "loss"} | fields


def test_logged_values_are_the_means_of_the_steps():
    run = trainer({"name": "ogm"})
    seen, log = {}, run.context.log

    def note(name, value):
        seen.setdefault(name, []).append(float(torch.as_tensor(value).detach()))
        log(name, value)

    run.context.log = note
    row = run.epoch(0)
    for name in ("score/m0", "ratio/m1", "coefficient/m0"):
        assert len(seen[name]) == 4
        assert row[name] == pytest.approx(sum(seen[name]) / 4)
    assert seen["ratio/m0"] == pytest.approx([1 / rho for rho in seen["ratio/m1"]])


@pytest.mark.parametrize("others", ["mean", "min"])
def test_rule_for_three_modalities_in_a_run(others):
    _, rows = trained({"name": "ogm", "others": others}, modalities=3, epochs=1, batch_size=26)  # one step
    s = [rows[0][f"score/m{i}"] for i in range(3)]
    each = s[0] / s[1], s[0] / s[2]
    assert rows[0]["ratio/m0"] == pytest.approx(sum(each) / 2 if others == "mean" else max(each), rel=1e-5)


# Cases at the edge


@pytest.mark.parametrize("method", ["ogm", "ogm_ge"])
@pytest.mark.parametrize(
    ("change", "training"),
    [
        (None, {"batch_size": 25}),  # of 26: the last batch is one clip
        (lambda cache: cache._values["m1"].fill(7), {}),  # constant
        (lambda cache: cache.classes.append("never seen"), {}),
        (None, {"precision": "bf16"}),
    ],
    ids=["batch of one", "constant modality", "class without a sample", "bf16"],
)
def test_edges_are_finite(method, change, training):
    state, rows = trained({"name": method}, change=change, **training)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert all(torch.isfinite(value).all() for value in state.values())
    assert all(0 <= row[f"coefficient/{m}"] <= 1 for row in rows for m in ("m0", "m1"))


@pytest.mark.parametrize(("loser", "ratio", "k"), [("visual", 1e8, 0.0), ("both", 1.0, 1.0)])
def test_a_score_of_0_gives_a_finite_ratio(loser, ratio, k):
    """Logits so far apart that the true class has probability 0."""
    fusion = fusions["sum"]({"audio": 1, "visual": 1}, 2)
    for m, term in fusion.terms.items():
        nn.init.zeros_(term.weight)
        term.bias.data = torch.tensor([0.0, 300.0] if loser in (m, "both") else [300.0, 0.0])
    model = MultimodalModel({"audio": nn.Linear(2, 1), "visual": nn.Linear(2, 1)}, fusion)
    output = model({"audio": torch.ones(1, 2), "visual": torch.ones(1, 2)})
    label = torch.tensor([0])
    cross_entropy(output.logits, label).backward()
    method, ctx = OGM(OGMParams()), context(model)
    method.before_epoch(ctx)
    method.after_backward(ctx, output, SimpleNamespace(label=label))
    assert float(ctx.logged["score/visual"]) == 0
    assert float(ctx.logged["ratio/audio"]) == pytest.approx(ratio)
    assert float(ctx.logged["coefficient/audio"]) == k
    assert float(ctx.logged["coefficient/visual"]) == 1


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("method", [OGM(OGMParams()), OGMGE(OGMGEParams(noise="modulated"))])
def test_a_step_waits_for_no_value(method, fusion):
    """Tensors here have shapes but no values, so asking for one raises, as waiting for the device would be."""
    with FakeTensorMode():
        encoders = {m: small_encoder(1, 5) for m in ("a", "b", "c")}
        model = MultimodalModel(encoders, fusions[fusion](dict.fromkeys(encoders, 5), 4))
        output = model({m: torch.ones(6, 1, 9, 9) for m in encoders})
        batch = SimpleNamespace(label=torch.zeros(6, dtype=torch.int64))
        cross_entropy(output.logits, batch.label).backward()
        ctx = context(model)
        method.before_epoch(ctx)
        method.after_backward(ctx, output, batch)
        with pytest.raises(DataDependentOutputException):
            float(ctx.logged["coefficient/a"])


# Parameters


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": -0.1},
        {"alpha": math.inf},
        {"alpha": math.nan},
        {"scale": "eq10"},
        {"weights": "conv2d"},
        {"others": "max"},
        {"first_epoch": -1},
        {"first_epoch": 5, "last_epoch": 4},
        {"noise": "some"},
        {"apha": 1.0},
    ],
)
def test_parameters_out_of_range(wrong):
    with pytest.raises(ValidationError):
        OGMGEParams(**wrong)


def test_refused_before_the_run():
    assert OGM.refuses(OGMParams(), setting("concat", 2, 1)) is None
    assert OGM.refuses(OGMParams(first_epoch=4, last_epoch=9), setting("film", 4, 10)) is None
    assert OGM.refuses(OGMParams(), setting("concat", 1, 10)) == "expected two modalities or more, but got 1"
    late = OGMParams(first_epoch=10)
    assert (
        OGMGE.refuses(late, setting("concat", 2, 10)) == "expected first_epoch below training.epochs = 10, but got 10"
    )
    long = OGMParams(last_epoch=50)
    assert OGM.refuses(long, setting("concat", 2, 12)) == "expected last_epoch below training.epochs = 12, but got 50"


def test_what_no_paper_gives_is_said():
    assert OGM.extension(OGMParams(others="mean"), setting(modalities=3)) is None
    assert OGM.extension(OGMParams(others="min"), setting(modalities=2)) is None
    assert "smallest" in OGMGE.extension(OGMGEParams(others="min"), setting(modalities=3))


def test_a_schedule_longer_than_the_run_is_reported_at_its_block(tmp_path):
    values = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    values["study"] |= {"methods": ["joint", "ogm"], "fusions": ["concat", "sum"]}
    values["methods"] = {"ogm": {"last_epoch": 900}}
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(UserError) as error:
        config.load(file)
    epochs = values["training"]["epochs"]
    assert str(error.value).count("\n") == 0  # once, although two fusions ask
    assert f"methods.ogm: expected last_epoch below training.epochs = {epochs}, but got 900" in str(error.value)
    values["methods"] = {"ogm": {"last_epoch": epochs - 1}}
    file.write_text(yaml.safe_dump(values))
    assert config.load(file).methods["ogm"].last_epoch == epochs - 1
