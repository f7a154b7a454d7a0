"""PMR against the numbers of the authors' code, numbers by hand, plain loops in numpy, and joint training."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline_src.methods import pmr
from pipeline_src.methods.base import Batch, Output
from pipeline_src.methods.discrepancy import ratios, scores
from pipeline_src.methods.pmr import (
    PMR,
    PMRParams,
    carried,
    class_means,
    draw,
    entropy,
    prototypical_cross_entropy,
    similarity,
    slow_down,
    speed_up,
)
from pipeline_src.models.base import fusions
from pipeline_src.models.multimodal import MultimodalModel
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.synthetic import CLASSIFICATION, SPLITS, SyntheticCache, setting, spec

CPU = torch.device("cpu")
GOLDEN = Path(__file__).parent.parent / "golden"
ALL = torch.ones(3, dtype=torch.bool)


def context(epoch: int = 0, classes: int = 3) -> SimpleNamespace:
    """What `PMR.loss` needs of a context, with what it logs in `row`."""
    row = {}
    return SimpleNamespace(
        task=CLASSIFICATION,
        model=SimpleNamespace(fusion=SimpleNamespace(unimodal_loss=False)),
        epoch=epoch,
        classes=classes,
        row=row,
        log=lambda name, value: row.update({name: value}),
    )


def batch_of(label: torch.Tensor) -> Batch:
    return Batch({}, label, torch.arange(len(label)), torch.arange(len(label)))


def ready(prototypes: dict[str, torch.Tensor], has: torch.Tensor = ALL, **params) -> PMR:
    method = PMR(PMRParams(**params))
    method.prototypes, method.has = dict(prototypes), has
    return method


# --- the authors' code -------------------------------------------------------------------------------------------


class Golden:
    """A golden file that notes which of its arrays were read."""

    def __init__(self, number: int):
        self.arrays = {k: torch.from_numpy(v) for k, v in np.load(GOLDEN / f"pmr_{number}.npz").items() if k != "meta"}
        self.meta = json.loads(str(np.load(GOLDEN / f"pmr_{number}.npz")["meta"]))
        self.used = set()

    def __getitem__(self, name: str) -> torch.Tensor:
        self.used.add(name)
        return self.arrays[name]

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): self[k] for k in self.arrays if k.startswith(prefix)}

    def model(self) -> MultimodalModel:
        """The small model of the file, with its weights: the authors' audio_net and visual_net, our fusion."""
        dim, classes = self.meta["dim"], self.meta["classes"]
        encoders = {}
        for m, channels in (("audio", 1), ("visual", 3)):
            encoders[m] = nn.Sequential(
                nn.Conv2d(channels, 4, 3, stride=2, bias=False),
                nn.BatchNorm2d(4),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(4, dim),
            )
            encoders[m].load_state_dict(self.under(f"param/{m}_net."))
        fusion = fusions["concat"](dict.fromkeys(encoders, dim), classes)
        fusion.joint.load_state_dict(self.under("param/fusion_module.fc_out."))
        return MultimodalModel(encoders, fusion)


def close(ours, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(ours).double(), theirs.double(), rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("number", [1, 2])
def test_the_authors_step(number):
    golden = Golden(number)
    names, label = ("audio", "visual"), golden["labels"]
    assert len(label) == golden.meta["batch"]
    model = golden.model()
    inputs = {"audio": golden["spec"][:, None], "visual": golden["image"]}
    output = model(inputs)
    for m in names:
        close(output.features[m], golden[f"features_{m}"])
    close(output.logits, golden["logits"])

    shares = model.fusion.unimodal(output.features)
    for m in names:
        close(nn.functional.cross_entropy(shares[m], label), golden[f"loss_{m}"])
    close(ratios(scores(CLASSIFICATION, shares, label))["audio"], golden["ratio_audio"])

    prototypes = {m: golden[f"prototypes_{m}"] for m in names}
    has = torch.ones(golden.meta["classes"], dtype=torch.bool)
    method = ready(prototypes, has, alpha=golden.meta["alpha"], weights="binary", mu=0.0)
    ctx = context()
    losses = method.loss(ctx, output, batch_of(label))
    for m in names:
        close(ctx.row[f"prototype_loss/{m}"], golden[f"loss_prototype_{m}"])
    close(ctx.row["ratio/audio"], golden["ratio_prototype_audio"])
    close(sum(losses.values()), golden["loss"])

    sum(losses.values()).backward()
    for m in names:
        for name, expected in golden.under(f"grad/{m}_net.").items():
            close(model.encoders[m].get_parameter(name).grad, expected)
    for name, expected in golden.under("grad/fusion_module.fc_out.").items():
        close(model.fusion.joint.get_parameter(name).grad, expected)

    model.eval()  # the file's optimiser had a step of length 0: only the running statistics moved
    with torch.no_grad():
        features = model.encode(inputs)
    for m in names:
        close(features[m], golden[f"features_eval_{m}"])
    method.update(
        {m: golden[f"features_eval_{m}"] for m in names}, label, golden.meta["classes"], golden.meta["momentum"]
    )
    for m in names:
        close(method.prototypes[m], golden[f"next_prototypes_{m}"])

    assert golden.used == set(golden.arrays)


# --- numbers by hand ---------------------------------------------------------------------------------------------


def test_class_means_by_hand():
    features, label = torch.tensor([[1.0, 0.0], [4.0, 4.0], [3.0, 2.0]]), torch.tensor([0, 2, 0])
    means, count = class_means(features, label, 4)
    assert means.tolist() == [[2, 1], [0, 0], [4, 4], [0, 0]]
    assert count.tolist() == [2, 0, 1, 0]


def test_posterior_loss_and_entropy_by_hand():
    z = similarity(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]]), ALL)
    assert z.tolist() == [[-5, -2, 0]]
    total = math.exp(-5) + math.exp(-2) + 1
    log_p = z.log_softmax(1)
    assert float(prototypical_cross_entropy(log_p, torch.tensor([1]), ALL)) == pytest.approx(math.log(total) + 2)
    p = [math.exp(-5) / total, math.exp(-2) / total, 1 / total]
    assert float(entropy(log_p)) == pytest.approx(-sum(x * math.log(x) for x in p))
    assert float(entropy(torch.zeros(2, 8).log_softmax(1))) == pytest.approx(math.log(8))


@pytest.mark.parametrize(
    ("ratio", "weights", "beta", "gamma"),
    [
        ([0.8, 1.25], "proportional", [0.25, 0], [0, 0.25]),
        ([0.25, 4.0], "proportional", [1, 0], [0, 1]),  # clipped
        ([0.8, 1.25], "binary", [1, 0], [0, 1]),
        ([1.0, 1.0], "proportional", [0, 0], [0, 0]),
        ([1.0, 1.0], "binary", [0, 0], [0, 0]),
        ([0.0, math.inf], "proportional", [1, 0], [0, 1]),
    ],
)
def test_weights_by_hand(ratio, weights, beta, gamma):
    assert speed_up(torch.tensor(ratio), weights).tolist() == pytest.approx(beta)
    assert slow_down(torch.tensor(ratio), weights).tolist() == pytest.approx(gamma)


@pytest.mark.parametrize("others", ["mean", "min"])
def test_two_modalities_have_the_papers_weights(others):
    for score in np.random.default_rng(0).uniform(0.1, 60, (50, 2)):
        rho = score[0] / score[1]
        found = ratios({m: torch.tensor(s) for m, s in zip("av", score, strict=True)}, others)
        found = torch.stack(list(found.values()))
        beta, gamma = np.clip(1 / rho - 1, 0, 1), np.clip(rho - 1, 0, 1)
        assert speed_up(found, "proportional").tolist() == pytest.approx([beta, gamma])
        assert slow_down(found, "proportional").tolist() == pytest.approx([gamma, beta])


def test_momentum_by_hand():
    old, new = torch.tensor([[1.0], [1.0], [0.0], [0.0]]), torch.tensor([[2.0], [0.0], [5.0], [0.0]])
    has, count = torch.tensor([True, True, False, False]), torch.tensor([3.0, 0.0, 1.0, 0.0])
    # mixed; kept, as no clip came; taken as it is, as there was none; nothing
    assert carried(old, has, new, count, 0.25).flatten().tolist() == [1.75, 1, 5, 0]
    assert carried(old, has, new, count, 0.0).flatten().tolist() == [2, 1, 5, 0]


# --- an independent reference ------------------------------------------------------------------------------------


def reference(features, prototypes, has, label, params):
    """The loss in float64 with loops over modalities, samples and classes; also what is logged."""
    score, pce, spread = {}, {}, {}
    for m in features:
        total, lost, h, known = 0.0, 0.0, 0.0, 0
        for f, y in zip(features[m], label, strict=True):
            p = [math.exp(-math.dist(f, c)) if k else 0.0 for c, k in zip(prototypes[m], has, strict=True)]
            p = [x / sum(p) for x in p]
            h -= sum(x * math.log(x) for x in p if x)
            if has[y]:
                total, lost, known = total + p[y], lost - math.log(p[y]), known + 1
        score[m], pce[m], spread[m] = total, lost / max(known, 1), h / len(label)
    pull, push, ratio = 0.0, 0.0, {}
    for m in features:
        rest = [score[n] for n in features if n != m]
        rho = ratio[m] = np.mean([score[m] / s for s in rest]) if params.others == "mean" else score[m] / min(rest)
        binary = params.weights == "binary"
        pull += (float(rho < 1) if binary else min(max(1 / rho - 1, 0), 1)) * pce[m]
        push += (float(rho > 1) if binary else min(max(rho - 1, 0), 1)) * spread[m]
    return params.alpha * pull, -params.mu * push, ratio, pce, spread


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("weights", ["proportional", "binary"])
@pytest.mark.parametrize(("modalities", "others"), [(2, "mean"), (3, "mean"), (4, "min")])
def test_loss_is_that_of_plain_loops(modalities, others, weights, missing):
    rng = np.random.default_rng(modalities)
    classes, size = 7, 20
    dims = {f"m{i}": 3 + 2 * i for i in range(modalities)}  # each its own
    label = rng.integers(classes, size=size)
    has = np.arange(classes) != label[0] if missing else np.ones(classes, bool)
    features = {m: rng.normal(size=(size, d)) + 0.5 * label[:, None] for m, d in dims.items()}
    prototypes = {m: rng.normal(size=(classes, d)) + 0.5 * np.arange(classes)[:, None] for m, d in dims.items()}
    params = PMRParams(alpha=2.0, weights=weights, mu=0.5, others=others)
    pce, per, ratio, lost, spread = reference(features, prototypes, has, label, params)

    method = ready({m: torch.tensor(c).float() for m, c in prototypes.items()}, torch.tensor(has), **dict(params))
    inputs = {m: torch.tensor(f).float() for m, f in features.items()}
    logits = torch.tensor(rng.normal(size=(size, classes))).float()
    ctx = context(classes=classes)
    losses = method.loss(ctx, Output(inputs, logits), batch_of(torch.tensor(label)))
    assert float(losses["loss"]) == float(nn.functional.cross_entropy(logits, torch.tensor(label)))
    assert float(losses["pce"]) == pytest.approx(pce, rel=1e-5)
    assert float(losses["per"]) == pytest.approx(per, rel=1e-5)
    for m in dims:
        assert float(ctx.row[f"ratio/{m}"]) == pytest.approx(ratio[m], rel=1e-5)
        assert float(ctx.row[f"prototype_loss/{m}"]) == pytest.approx(lost[m], rel=1e-5)
        assert float(ctx.row[f"entropy/{m}"]) == pytest.approx(spread[m], rel=1e-5)


def test_distances_keep_their_digits_far_from_the_origin():
    rng = np.random.default_rng(0)
    prototypes, features = rng.normal(size=(9, 64)), rng.normal(size=(5, 64))
    expected = [[-math.dist(f, c) for c in prototypes] for f in features]
    away = 300.0
    z = similarity(
        torch.tensor(features + away).float(), torch.tensor(prototypes + away).float(), torch.ones(9, dtype=torch.bool)
    )
    np.testing.assert_allclose(z, expected, rtol=1e-4)


def test_autocast_leaves_distances_in_float32():
    features, prototypes = torch.randn(30, 64) + 5, torch.randn(40, 64) + 5
    has = torch.ones(40, dtype=torch.bool)
    expected = similarity(features, prototypes, has)
    with torch.autocast("cpu", torch.bfloat16):
        found = similarity(features, prototypes, has)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


# --- gradients ---------------------------------------------------------------------------------------------------


def test_gradient_is_finite_on_a_prototype():
    prototypes = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 0.0]])
    features = prototypes.clone().requires_grad_()
    z = similarity(features, prototypes, ALL)
    assert z.diagonal().tolist() == pytest.approx([0, 0, 0], abs=1e-3)
    prototypical_cross_entropy(z.log_softmax(1), torch.tensor([0, 1, 2]), ALL).backward()
    assert features.grad.any()
    assert (features.grad.norm(dim=1) <= 2 / 3).all()  # each distance's gradient has length 1; mean over three clips


def test_gradient_is_0_where_every_distance_is_0():
    features = torch.full((1, 4), 0.3, requires_grad=True)
    z = similarity(features, torch.full((3, 4), 0.3), ALL)
    assert z.tolist() == [[0, 0, 0]]
    z.log_softmax(1)[0, 1].backward()
    assert not features.grad.any()


@pytest.mark.parametrize("weights", ["proportional", "binary"])
def test_prototype_loss_pulls_the_slower_modality_only_and_per_spreads_the_faster(weights):
    label = torch.tensor([0, 1, 2, 0])
    prototypes = {"fast": 3 * torch.eye(3), "slow": torch.eye(3) + 0.1}
    features = {
        "fast": prototypes["fast"][label] + torch.tensor([0.1, -0.2, 0.15]),
        "slow": torch.full((4, 3), 0.3) + 0.2 * prototypes["slow"][label],
    }
    features = {m: f.requires_grad_() for m, f in features.items()}

    def losses(**params):
        ctx = context()
        output = Output(features, torch.zeros(4, 3))
        return ready(prototypes, weights=weights, **params).loss(ctx, output, batch_of(label)), ctx.row

    first, row = losses(alpha=1.0, mu=0.1)
    assert row["ratio/fast"] > 1 > row["ratio/slow"]
    assert row["weight/fast"] == 0 == row["entropy_weight/slow"]
    pulled = torch.autograd.grad(first["pce"], list(features.values()), retain_graph=True)
    assert not pulled[0].any() and pulled[1].any()
    spread = torch.autograd.grad(first["per"], list(features.values()))
    assert spread[0].any() and not spread[1].any()

    with torch.no_grad():
        features["fast"] -= spread[0]
    after = losses(alpha=1.0, mu=0.1)[1]
    assert after["entropy/fast"] > row["entropy/fast"]
    with torch.no_grad():
        features["slow"] -= 0.5 * pulled[1]
    assert losses(alpha=1.0, mu=0.1)[1]["prototype_loss/slow"] < row["prototype_loss/slow"]


def test_ratios_and_prototypes_take_no_gradient():
    prototypes = {m: torch.randn(3, 4, requires_grad=True) for m in "ab"}
    features = {m: torch.randn(5, 4, requires_grad=True) for m in "ab"}
    ctx = context()
    ready(prototypes).loss(ctx, Output(features, torch.zeros(5, 3)), batch_of(torch.tensor([0, 1, 2, 1, 0])))
    assert not any(ctx.row[f"{name}/{m}"].requires_grad for name in ("ratio", "weight", "entropy_weight") for m in "ab")
    method = PMR(PMRParams())
    method.update({m: f.detach() for m, f in features.items()}, torch.tensor([0, 1, 2, 1, 0]), 3, 0.0)
    assert not any(c.requires_grad for c in method.prototypes.values())


def test_a_step_does_not_wait_for_the_device():
    with FakeTensorMode():  # holds no values, so that reading one, as .item() or a bool mask does, is an error
        prototypes = {"a": torch.randn(3, 4), "b": torch.randn(3, 6)}
        features = {"a": torch.randn(5, 4, requires_grad=True), "b": torch.randn(5, 6, requires_grad=True)}
        method = ready(prototypes, torch.ones(3, dtype=torch.bool))
        losses = method.loss(context(), Output(features, torch.randn(5, 3)), batch_of(torch.randint(3, (5,))))
        sum(losses.values()).backward()


# --- edges -------------------------------------------------------------------------------------------------------


def test_a_class_without_a_prototype_is_left_out():
    has = torch.tensor([True, False, True])
    prototypes = torch.tensor([[0.0, 0.0], [9.0, 9.0], [3.0, 4.0]])
    features = torch.tensor([[0.0, 0.0], [1.0, 1.0]], requires_grad=True)
    z = similarity(features, prototypes, has)
    p = z.softmax(1)
    assert p[:, 1].tolist() == [0, 0]
    assert p[0].tolist() == pytest.approx([1 / (1 + math.exp(-5)), 0, math.exp(-5) / (1 + math.exp(-5))])
    lost = prototypical_cross_entropy(z.log_softmax(1), torch.tensor([0, 1]), has)
    assert lost.item() == pytest.approx(math.log(1 + math.exp(-5)))  # of the first clip alone
    (lost + entropy(z.log_softmax(1))).backward()
    assert torch.isfinite(features.grad).all()
    nothing = prototypical_cross_entropy(z.log_softmax(1), torch.tensor([1, 1]), has)
    assert nothing.item() == 0


def test_a_class_missed_later_keeps_its_prototype():
    method = PMR(PMRParams())
    for value, label in ((1.0, [0, 1]), (3.0, [1, 1])):
        method.update({"a": torch.full((2, 2), value)}, torch.tensor(label), 3, 0.5)
    assert method.prototypes["a"].tolist() == [[1, 1], [2, 2], [0, 0]]
    assert method.has.tolist() == [True, True, False]


def test_a_batch_of_unknown_classes_balances_nothing():
    prototypes = {"a": torch.randn(3, 4), "b": torch.randn(3, 4)}
    features = {m: torch.randn(2, 4, requires_grad=True) for m in "ab"}
    ctx = context()
    method = ready(prototypes, torch.tensor([True, False, True]))
    losses = method.loss(ctx, Output(features, torch.zeros(2, 3)), batch_of(torch.tensor([1, 1])))
    assert losses["pce"].item() == losses["per"].item() == 0
    assert [float(ctx.row[f"ratio/{m}"]) for m in "ab"] == [1, 1]


def test_equal_prototypes_of_a_constant_modality():
    prototypes = {"constant": torch.ones(3, 4), "other": torch.eye(3)}
    features = {"constant": torch.ones(2, 4, requires_grad=True), "other": 3 * torch.eye(3)[:2]}
    ctx = context()
    losses = ready(prototypes).loss(ctx, Output(features, torch.zeros(2, 3)), batch_of(torch.tensor([0, 1])))
    assert float(ctx.row["prototype_score/constant"]) == pytest.approx(2 / 3)  # two clips by chance
    assert ctx.row["entropy/constant"].item() == pytest.approx(math.log(3))
    assert 0 < float(ctx.row["weight/constant"]) <= 1
    sum(losses.values()).backward()
    assert not features["constant"].grad.any()  # every prototype pulls alike: it can learn nothing, and gets no NaN


def test_far_features_have_finite_ratios():
    prototypes = {"a": 1e4 * torch.eye(3), "b": torch.eye(3)}
    features = {"a": 1e4 * torch.eye(3)[[1]], "b": torch.eye(3)[[0]]}
    ctx = context()
    losses = ready(prototypes).loss(ctx, Output(features, torch.zeros(1, 3)), batch_of(torch.tensor([0])))
    assert all(torch.isfinite(v).all() for v in [*ctx.row.values(), *losses.values()])
    assert float(ctx.row["weight/a"]) == 1


# --- the share ---------------------------------------------------------------------------------------------------


def test_draw_takes_the_share_of_every_class():
    label = torch.tensor([0] * 50 + [1] * 3 + [3] * 20)[torch.randperm(73)]
    rows = draw(label, 0.1, True, torch.Generator().manual_seed(0))
    assert torch.bincount(label[rows]).tolist() == [5, 1, 0, 2]
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert rows.tolist() == draw(label, 0.1, True, torch.Generator().manual_seed(0)).tolist()
    assert rows.tolist() != draw(label, 0.1, True, torch.Generator().manual_seed(1)).tolist()
    assert draw(label, 1.0, True, torch.Generator()).tolist() == list(range(73))


def test_draw_from_all_clips():
    label = torch.arange(40) % 20
    rows = draw(label, 0.1, False, torch.Generator().manual_seed(0))
    assert len(set(rows.tolist())) == 4
    assert len(draw(label[:3], 0.1, False, torch.Generator())) == 1


def test_every_clip_is_drawn_equally_often():
    rng, label = torch.Generator().manual_seed(0), torch.tensor([0, 0, 0, 0, 1, 1])
    times = sum(torch.bincount(draw(label, 0.5, True, rng), minlength=6) for _ in range(2000))
    assert (abs(times - 1000) < 120).all()  # five standard deviations


# --- in training -------------------------------------------------------------------------------------------------


def trainer(method: dict, cache: SyntheticCache | None = None, fusion: str = "concat", **training) -> Trainer:
    cache = cache or SyntheticCache()
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, True) for s in SPLITS}
    params = {k: v for k, v in method.items() if k != "name"}
    return Trainer(spec(cache, fusion, method["name"], params, **training), 0, cache, loaders, CPU)


def pmr_trainer(cache: SyntheticCache | None = None, training: dict | None = None, **params) -> Trainer:
    return trainer({"name": "pmr", **PMRParams(**params).model_dump()}, cache, **(training or {}))


def rows_of(run: Trainer, epochs: int = 2) -> list[dict]:
    run.method.on_train_start(run.context)
    return [{k: v for k, v in run.epoch(epoch).items() if k != "seconds"} for epoch in range(epochs)]


def same(ours: Trainer, theirs: Trainer, kinds: tuple[str, ...] = ("",)) -> bool:
    a, b = ({k: v for k, v in t.state_dict().items() if k.startswith(kinds)} for t in (ours, theirs))
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("off", [{"alpha": 0.0, "mu": 0.0}, {"alpha": 0.0, "per_epochs": 0}])
def test_weights_of_zero_are_joint_training(off):
    ours, joint, balanced = pmr_trainer(**off), trainer({"name": "joint"}), pmr_trainer()
    assert rows_of(ours) == rows_of(joint)
    assert same(ours, joint)
    rows_of(balanced)
    assert not same(balanced, joint, ("model/",))


def test_prototypes_alone_change_nothing(monkeypatch):
    for name in ("speed_up", "slow_down"):
        monkeypatch.setattr(pmr, name, lambda ratio, weights: torch.zeros_like(ratio))
    ours, joint = pmr_trainer(), trainer({"name": "joint"})
    rows_of(ours), rows_of(joint)
    assert same(ours, joint, ("model/", "optimizer/"))


def test_the_epochs_of_each_term():
    run = pmr_trainer(first_epoch=1, last_epoch=2, per_epochs=1, share=0.5)
    rows, forwards, before = [], [], 0
    for epoch in range(4):
        rows.append(run.epoch(epoch))
        forwards.append(run.context.forwards - before)
        before = run.context.forwards
    assert ["pce" in row for row in rows] == [False, True, True, False]
    assert ["per" in row for row in rows] == [True, False, False, False]
    share = len(draw(run.loaders["train"].label, 0.5, True, torch.Generator()))
    assert forwards == [26 + share, 26 + share, 26 + share, 26]


def test_prototypes_are_kept_up_to_date_before_their_term_begins_and_not_after_it_ends():
    run = pmr_trainer(first_epoch=2, last_epoch=2, per_epochs=0, share=1.0, momentum=0.25)
    rows, means, collect = [], [], run.context.collect

    def taken(split, chosen):
        features, label = collect(split, chosen)
        means.append(class_means(features["m0"], label, 3)[0].numpy())
        return features, label

    run.context.collect = taken
    for epoch in range(4):
        rows.append(run.epoch(epoch))
    assert ["pce" in row for row in rows] == [False, False, True, False]
    assert len(means) == 3
    expected = 0.25 * means[1] + 0.75 * means[2]
    np.testing.assert_allclose(run.method.prototypes["m0"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_prototypes_are_the_class_means_of_the_share_in_evaluation_mode(share):
    run = pmr_trainer(share=share, momentum=0.25)
    taken, collect = [], run.context.collect
    run.context.collect = lambda split, rows: taken.append((split, *collect(split, rows))) or taken[-1][1:]
    for epoch in range(3):
        run.epoch(epoch)
    means = []
    for split, features, label in taken:
        assert split == "train"
        f, y = features["m0"].numpy(), label.numpy()
        means.append(np.stack([f[y == k].mean(axis=0) for k in range(3)]))
    expected = 0.25 * means[1] + 0.75 * means[2]  # those of the untrained encoders, means[0], are not carried on
    np.testing.assert_allclose(run.method.prototypes["m0"], expected, rtol=1e-5, atol=1e-6)
    if share == 1:
        assert len(taken[0][2]) == SPLITS["train"]


def test_everything_that_is_logged():
    row = rows_of(pmr_trainer(mu=0.1), 1)[0]
    per_modality = ("prototype_score", "ratio", "prototype_loss", "weight", "entropy", "entropy_weight")
    assert {f"{name}/{m}" for name in per_modality for m in ("m0", "m1")} <= row.keys()
    assert {"loss", "pce", "per", "classes_without_prototype"} <= row.keys()
    assert row["classes_without_prototype"] == 0
    assert all(math.isfinite(v) for v in row.values())
    assert all(0 <= row[f"prototype_score/{m}"] <= 8 for m in ("m0", "m1"))  # a batch


@pytest.mark.parametrize("share", [0.04, 1.0])
def test_a_class_without_a_training_clip(share):
    cache = SyntheticCache()
    cache.clips.loc[(cache.clips.split == "train") & (cache.clips.label == 2), "label"] = 0
    run = pmr_trainer(cache, share=share, mu=0.1)
    rows = rows_of(run)
    assert all(math.isfinite(v) for row in rows for v in row.values())
    assert [row["classes_without_prototype"] for row in rows] == [1, 1]
    assert run.method.has.tolist() == [True, True, False]


def test_a_random_share_that_misses_classes_stays_finite_and_resumes():
    params = {"share": 0.04, "draw": "random", "mu": 0.1, "momentum": 0.5}  # one clip of 26
    whole, begun, resumed = (pmr_trainer(**params) for _ in range(3))
    rows = rows_of(whole, 3)
    assert rows[0]["classes_without_prototype"] == 2
    assert all(math.isfinite(v) for row in rows for v in row.values())
    begun.epoch(0), begun.epoch(1)
    resumed.load_state_dict({k: v.clone() for k, v in begun.state_dict().items()})
    resumed.epoch(2)
    assert same(resumed, whole)


@pytest.mark.parametrize("batch_size", [1, 25])
def test_a_batch_of_one(batch_size):
    rows = rows_of(pmr_trainer(training={"batch_size": batch_size, "lr": 1e-3}, mu=0.1), 1)
    assert all(math.isfinite(v) for v in rows[0].values())


@pytest.mark.parametrize("constant", ["m0", "m1"])
def test_a_constant_modality(constant):
    cache = SyntheticCache()
    cache._values[constant] = np.full_like(cache._values[constant], 7)
    run = pmr_trainer(cache, mu=0.1)
    assert all(math.isfinite(v) for row in rows_of(run) for v in row.values())
    assert all(torch.isfinite(p).all() for p in run.model.parameters())


def test_half_precision_trains():
    rows = rows_of(pmr_trainer(training={"precision": "bf16"}))
    assert all(math.isfinite(v) for row in rows for v in row.values())


# --- parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "modalities", "epochs", "why"),
    [
        ({}, 2, 1, None),
        ({}, 4, 100, None),
        ({}, 1, 100, "expected two modalities or more, but got 1"),
        ({"first_epoch": 5}, 2, 5, "expected first_epoch below training.epochs = 5, but got 5"),
        ({"first_epoch": 4, "last_epoch": 4, "per_epochs": 9}, 2, 5, None),
        ({"last_epoch": 5}, 2, 5, "expected last_epoch below training.epochs = 5, but got 5"),
    ],
)
def test_refusals(params, modalities, epochs, why):
    assert PMR.refuses(PMRParams(**params), setting("concat", modalities, epochs)) == why


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": -1.0},
        {"alpha": math.nan},
        {"mu": math.inf},
        {"share": 0.0},
        {"share": 1.1},
        {"momentum": 1.0},
        {"weights": "linear"},
        {"first_epoch": -1},
        {"first_epoch": 9, "last_epoch": 8},
        {"alhpa": 1.0},
    ],
)
def test_parameters_out_of_range(wrong):
    with pytest.raises(ValidationError):
        PMRParams(**wrong)
