"""Compiled encoders: the same losses, weights under the same names, exact resume, and errors where nothing compiles.

Wiring is tested by the compiler's backend that runs PyTorch's own kernels, so that it must agree bit for bit; one test
compiles in earnest. In place of CUDA graphs, what a compiled encoder gave is spoiled when it runs again.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from pipeline_src.core.errors import UserError
from pipeline_src.methods.base import methods
from pipeline_src.models.base import fusion_facts, fusions
from pipeline_src.models.multimodal import MultimodalModel
from pipeline_src.training import compiled
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.methods.test_contract import works
from tests.synthetic import SyntheticCache, encoder, spec, stand_ins
from tests.training.test_run import make_run, train

CPU = torch.device("cpu")
TIMES = ("seconds", "diagnosis_seconds")
SPLITS = {"train": 19, "val": 6, "test": 5}  # two full batches of train, and one of three samples
PICTURES = ("spectrogram", "frames")
REAL = torch.compile


def trainer(
    how: str, method: str = "joint", fusion: str = "concat", layouts=PICTURES, encoders=None, params=None
) -> Trainer:
    cache = SyntheticCache(2, splits=SPLITS, layouts=layouts)
    run = spec(cache, fusion, method, params, epochs=2, compile=how)
    if layouts == PICTURES and not fusion_facts(fusion).taps:
        encoders = dict.fromkeys(cache.modalities, encoder("resnet", width=4, depth=[1]))
    run = replace(run, encoders=encoders or run.encoders)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, True) for s in SPLITS}
    made = Trainer(run, 0, cache, loaders, CPU, stand_ins(run, cache))
    made.method.on_train_start(made.context)
    return made


class Spoiling:
    """A compiled function whose last result is gone when it runs on the same encoder again, as with CUDA graphs."""

    calls = 0

    def __init__(self, function, **how):
        self.function, self.last = REAL(function, dynamic=how["dynamic"], backend="aot_eager"), {}

    def __call__(self, part, state, stages=None):
        Spoiling.calls += 1
        if (last := self.last.get((part, stages))) is not None:
            pytree.tree_map_only(
                torch.Tensor, lambda x: x.data.fill_(float("nan")) if x.is_floating_point() else x, last
            )
        self.last[part, stages] = found = self.function(part, state, stages)
        return found


@pytest.fixture
def spoiling(monkeypatch):
    monkeypatch.setattr(torch, "compile", Spoiling)
    monkeypatch.setattr(Spoiling, "calls", 0)


def rows(run: Trainer) -> list[dict]:
    made = [run.epoch(epoch) | run.score("val") for epoch in range(2)]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in made]


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def agree(one: dict, other: dict) -> bool:
    """Within 1e-5 of the norm of each tensor."""
    values = [(one[name].float(), value.float()) for name, value in other.items()]
    return one.keys() == other.keys() and all((a - b).norm() <= 1e-5 * b.norm() for a, b in values)


@pytest.mark.usefixtures("spoiling")
@pytest.mark.parametrize("method", list(methods))
def test_every_method_trains_as_it_does_uncompiled(method):
    fusion = next(name for name in ("concat", *fusions) if works(method, name, 2))
    plain, run = (trainer(how, method, fusion) for how in ("none", "kernels"))
    assert rows(run) == rows(plain)
    assert Spoiling.calls >= 4
    assert same(run.state_dict(), plain.state_dict())
    assert run.model.state_dict().keys() == plain.model.state_dict().keys()
    assert (run.context.forwards, run.context.backwards) == (plain.context.forwards, plain.context.backwards)


@pytest.mark.usefixtures("spoiling")
@pytest.mark.parametrize("fusion", [f for f in fusions if fusion_facts(f).taps])
def test_every_fusion_of_hidden_states_trains_as_it_does_uncompiled(fusion):
    layouts = ("sequence", "sequence") if fusion_facts(fusion).steps else PICTURES
    plain, run = (trainer(how, "joint", fusion, layouts) for how in ("none", "kernels"))
    for ours, theirs in zip(rows(run), rows(plain), strict=True):  # gradients meet at a tap in another order
        assert ours == pytest.approx(theirs, rel=1e-5)
    assert Spoiling.calls > 4  # each encoder in sections
    assert agree(run.model.state_dict(), plain.model.state_dict())


@pytest.mark.usefixtures("spoiling")
def test_a_feature_outlives_the_next_pass():
    run = trainer("kernels")
    first, second = (run.transform(batch.inputs) for batch in list(run.loaders["train"].batches(8))[:2])
    kept = run.model.encode(first)
    before = {m: f.clone() for m, f in kept.items()}
    run.model.encode(second)
    assert same(dict(kept.items()), before)
    sum(f.sum() for f in kept.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in run.model.encoders.parameters())


@pytest.mark.usefixtures("spoiling")
def test_only_full_batches_with_gradients_are_compiled():
    run = trainer("kernels")
    run.epoch(0)
    assert Spoiling.calls == 4  # two encoders, two of the three batches
    run.score("val")
    run.context.collect()
    assert Spoiling.calls == 4
    for rows, training in ((3, True), (8, False)):
        batch = next(run.loaders["train"].batches(rows))
        run.context.encode(batch._replace(inputs=run.transform(batch.inputs)), training=training)
    assert Spoiling.calls == 4


@pytest.mark.usefixtures("spoiling")
@pytest.mark.parametrize("method", ["joint", "relearning"])
def test_a_compiled_run_goes_on_exactly(method):
    params = {"every": 1} if method == "relearning" else {}
    whole = trainer("kernels", method, params=params)
    expected = rows(whole)
    begun = trainer("kernels", method, params=params)
    begun.epoch(0)
    with pytest.raises(StopIteration):
        begun.epoch(1, iter([]).__next__)  # ends after its first step
    resumed = trainer("kernels", method, params=params)
    tensors, position = begun.snapshot()
    resumed.restore({name: value.clone() for name, value in tensors.items()}, position)
    row = resumed.epoch(1) | resumed.score("val")
    assert {k: v for k, v in row.items() if k not in TIMES} == expected[1]
    assert same(resumed.state_dict(), whole.state_dict())


@pytest.fixture
def inductor():
    """Nothing compiled before in this process, and what is quick to compile."""
    import torch._dynamo
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    # Headers that are compiled before are worth their time from a dozen kernels on.
    with inductor.patch({"cpp_cache_precompile_headers": False, "cpp.simdlen": 1}):
        yield inductor
    torch._dynamo.reset()


@pytest.mark.usefixtures("inductor")
def test_kernels_of_the_compiler_agree_within_the_tolerance():
    """1e-5 of the loss, and of the norm of each tensor, after three steps of a small encoder with batch norm."""
    parts = [("conv", nn.Conv2d(3, 4, 3)), ("bn", nn.BatchNorm2d(4)), ("relu", nn.ReLU()), ("flat", nn.Flatten(1))]
    torch.manual_seed(0)
    plain = MultimodalModel({"a": nn.Sequential(OrderedDict(parts))}, fusions["concat"]({"a": 4 * 6 * 6}, 3))
    model, x, label = deepcopy(plain), torch.randn(8, 3, 8, 8), torch.arange(8) % 3
    compiled.compile_encoders(model, 8, "kernels")

    def trained(one: MultimodalModel) -> list[float]:
        optimizer, losses = torch.optim.SGD(one.parameters(), lr=0.1), []
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(one({"a": x}).logits, label)
            compiled.next_step("kernels")
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        return losses

    assert trained(model) == pytest.approx(trained(plain), rel=1e-5)
    assert agree(model.state_dict(), plain.state_dict())
    assert torch._dynamo.utils.counters["inductor"]


def test_a_missing_compiler_is_said_before_any_run(inductor, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # without what was compiled before
    with (
        inductor.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(UserError, match=r"training\.compile: expected a C\+\+ compiler .*; install it, or set none"),
    ):
        compiled.check(CPU, "kernels")
    compiled.check(CPU, "none")


@pytest.mark.usefixtures("inductor")
def test_encoders_that_do_not_compile_are_an_error(monkeypatch):
    def fails(graph, inputs):
        raise RuntimeError("no kernel for it")

    monkeypatch.setattr(compiled, "BACKEND", fails)
    run = trainer("kernels")
    with pytest.raises(
        UserError, match=r"expected encoders that PyTorch compiles, but got .*no kernel for it.*set none"
    ):
        run.epoch(0)


def test_graphs_need_a_cuda_gpu():
    with pytest.raises(UserError, match="expected a CUDA GPU for graphs, but got cpu; set kernels or none"):
        compiled.check(CPU, "graphs")


def test_the_record_says_that_a_run_was_compiled(tmp_path):
    one = make_run(tmp_path, compile="kernels", epochs=1, batch_size=100)  # without a full batch: nothing to compile
    train(one)
    assert json.loads(one.record.read_text())["parameters"]["training"]["compile"] == "kernels"
