"""Greedy: the authors' exchange in curation, their sums and decisions over eight steps, and what a step keeps."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipeline_src.core.errors import UserError
from pipeline_src.methods.greedy import Greedy, speed
from pipeline_src.models.fusions.mmtm import Exchange
from tests.methods import golden, small
from tests.synthetic import setting

NAMES = {"0": "visual", "1": "skeleton"}  # of the authors' excitations


def begun(**params) -> Greedy:
    method = Greedy(Greedy.Params(**params))
    method.on_train_start(SimpleNamespace(labels=lambda split: torch.zeros(0)))
    return method


def exchange(arrays: dict, prefix: str = "param/") -> Exchange:
    layer = Exchange({"0": 16, "1": 16})
    layer.squeeze.load_state_dict(golden.part(arrays, f"{prefix}fc_squeeze."))
    for m, name in NAMES.items():
        layer.excite[m].load_state_dict(golden.part(arrays, f"{prefix}fc_{name}."))
    return layer


@pytest.mark.parametrize("average", ["released", "own"])
def test_six_calls_of_the_exchange(average):
    arrays, meta = golden.load("greedy_mmtm_1")
    layer, method = exchange(arrays), begun(average=average)
    factors_seen = []
    for i, mode in enumerate(meta["modes"]):
        x = {m: arrays[f"in/{i}/{m}"].clone().requires_grad_() for m in NAMES}
        method.left = torch.tensor(int(mode["curation_mode"]))
        method.faster = torch.tensor(mode.get("caring_modality", 0))
        factors = layer({m: v.mean(dim=(2, 3)) for m, v in x.items()})
        factors_seen.append(factors["1"].detach().mean(dim=0))
        factors = method._replace(0, list(NAMES), layer, None, factors)
        method.calls = method.calls + 1
        out = {m: v * factors[m][:, :, None, None] for m, v in x.items()}
        assert golden.apart(method.means["0/0"], arrays[f"average/{i}/0"]) < 1e-6
        if average == "own":
            assert golden.apart(method.means["0/1"], torch.stack(factors_seen).mean(dim=0)) < 1e-6
            continue
        assert golden.apart(method.means["0/1"], arrays[f"released/average/{i}/1"]) < 1e-6
        layer.zero_grad()
        (out["0"].square().sum() + 2 * out["1"].square().sum()).backward()
        for m in NAMES:
            assert golden.apart(out[m].detach(), arrays[f"out/{i}/{m}"]) < 1e-6
            assert golden.apart(x[m].grad, arrays[f"grad/{i}/in/{m}"]) < 1e-5
        for name, p in layer.named_parameters():
            for m, theirs in NAMES.items():
                name = name.replace(f"excite.{m}", f"fc_{theirs}")
            expected = arrays.get(f"grad/{i}/{name.replace('squeeze', 'fc_squeeze')}", torch.zeros_like(p))
            assert golden.apart(p.grad, expected) < 1e-5, name


def test_eight_steps_of_decisions():
    arrays, meta = golden.load("greedy_bdr_1")
    layer = exchange(arrays, "param/mmtm.")
    parts = {m: golden.part(arrays, f"param/net_view_{m}.") for m in NAMES}
    encoders = nn.ModuleDict({m: nn.Linear(*reversed(w["weight"].shape)) for m, w in parts.items()})
    classifiers = nn.ModuleDict({m: nn.Linear(16, 6) for m in NAMES})
    for m in NAMES:
        encoders[m].load_state_dict(parts[m])
        classifiers[m].load_state_dict(golden.part(arrays, f"param/cls_{m}."))
    everything = nn.ModuleList([encoders, classifiers, layer])
    model = SimpleNamespace(encoders=encoders, fusion=SimpleNamespace(exchanges=[layer]), modalities=list(NAMES))
    method = begun(epsilon=meta["epsilon"], window=meta["curation_windowsize"], first_epoch=meta["starting_epoch"])
    optimizer = torch.optim.SGD(everything.parameters(), meta["lr"])
    for i, expected in enumerate(meta["decisions"]):
        f = {m: encoders[m](arrays[f"input/{i}/{m}"]) for m in NAMES}
        factors = layer(f)
        optimizer.zero_grad()
        losses = [nn.functional.cross_entropy(classifiers[m](f[m] * factors[m]), arrays[f"labels/{i}"]) for m in NAMES]
        sum(losses).backward()
        ctx = SimpleNamespace(
            model=model,
            epoch=i // meta["steps_per_epoch"],
            log=lambda name, value: None,
            parameters=lambda of: dict(of.named_parameters()),
        )
        method._decide(ctx)
        assert golden.apart(method.sums.flatten(), arrays[f"sums/{i}"]) < 1e-5
        s = speed(*method.sums)
        assert float(s[0] - s[1]) == pytest.approx(expected["difference"], rel=1e-5)
        assert bool(method.left > 0) == expected["curation"] and int(method.faster) == expected["caring"]
        optimizer.step()


CURATES = {"epsilon": 0.0, "window": 3, "first_epoch": 0}


@pytest.mark.parametrize("fusion", ["mmtm", "mmtm_last"])
def test_in_curation_the_faster_modality_is_cut_off(fusion):
    run = small.run("greedy", fusion, params=CURATES)
    run.epoch(0)  # four steps: one normal, three curated
    assert run.context.logged()["curation"] == 0.75 and int(run.method.left) == 0
    run.method.left = torch.tensor(1)
    fast = run.model.modalities[int(run.method.faster)]
    slow = next(m for m in run.model.modalities if m != fast)
    reached, loss = [], run.method.loss

    def noted(ctx, output, batch):
        z = run.method.unimodal(ctx.model, output.features)
        encoders = [next(ctx.model.encoders[m].parameters()) for m in (fast, slow)]
        reached.append({m: [bool(g.any()) for g in ctx.gradients(z[m].sum(), encoders)] for m in (fast, slow)})
        return loss(ctx, output, batch)

    run.method.loss = noted
    run.epoch(1)
    assert reached[0] == {fast: [True, False], slow: [True, True]}
    assert reached[1] == {fast: [True, True], slow: [True, True]}


def test_a_run_without_curation_is_the_sum_of_both_losses():
    run = small.run("greedy", "mmtm")
    batch, features, output = small.forward(run)
    z = run.model.fusion.unimodal(features)
    total = sum(run.context.task.loss(part, batch.label) for part in z.values())
    torch.testing.assert_close(run.method.loss(run.context, output, batch)["loss"], total)
    torch.testing.assert_close(output.logits, sum(z.values()) / 2)


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_resumes_exactly_in_curation(stop):
    whole, begin = (small.run("greedy", "mmtm_last", params=CURATES) for _ in range(2))
    rows = [whole.epoch(0), whole.epoch(1)]
    begin.epoch(0)
    with pytest.raises(StopIteration):
        begin.epoch(1, iter([None] * (stop - 1)).__next__)
    tensors, position = begin.snapshot()
    resumed = small.run("greedy", "mmtm_last", params=CURATES)
    resumed.restore({name: value.clone() for name, value in tensors.items()}, position)
    row = resumed.epoch(1)
    assert {k: v for k, v in row.items() if k != "seconds"} == {k: v for k, v in rows[1].items() if k != "seconds"}
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_what_it_refuses_and_marks():
    refuses = lambda asked: Greedy.refuses(Greedy.Params(), asked)  # noqa: E731
    assert refuses(setting("mmtm")) is None and refuses(setting("mmtm_last")) is None
    assert refuses(setting("mmtm", 3)) == "expected two modalities, but got 3"
    assert "expected fusion mmtm or mmtm_last" in refuses(setting("concat"))
    assert refuses(setting("mmtm", epochs=2)) == "expected first_epoch below training.epochs = 2, but got 2"
    assert "last tap" in Greedy.extension(Greedy.Params(), setting("mmtm_last"))
    assert Greedy.extension(Greedy.Params(), setting("mmtm")) is None
    with pytest.raises(UserError, match="expected encoders of the same width"):
        begun(average="released")._replace(0, ["0", "1"], None, None, {"0": torch.ones(2, 3), "1": torch.ones(2, 4)})
