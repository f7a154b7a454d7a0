"""Frames prepared in one pass: the same numbers within the tolerance, compiled or not, and what is done if it fails."""

from __future__ import annotations

import logging

import pytest
import torch

from pipeline_src.models.multimodal import build
from pipeline_src.training import compiled
from pipeline_src.training.fused import TOLERANCE, Fused, at_once, fused_for
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from pipeline_src.training.params import Augmentation
from pipeline_src.training.transform import Drawn, Transform
from tests.synthetic import SyntheticCache, encoder, spec

CPU = torch.device("cpu")
FRAMES = {"layout": "frames", "shape": [2, 3, 12, 10], "dtype": "uint8", "mean": [90.0, 80, 70], "std": [50.0, 60, 70]}
CHANGES = {
    "none": {},
    "flip": {"flip": 0.5},
    "crop": {"crop_scale": [0.3, 1.0], "crop_ratio": [0.75, 1.33]},
    "both": {"crop_scale": [0.3, 1.0], "flip": 0.5},
    "each frame": {"crop_scale": [0.3, 1.0], "flip": 0.5, "per": "frame"},
}


def clips(count: int = 8) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, *FRAMES["shape"]), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def transform(fused: Fused | None, changes: dict) -> Transform:
    return Transform({"v": FRAMES}, {"v": Augmentation(**changes)}, "train", CPU, 0, fused)


def drawn(changes: dict, count: int = 8) -> dict[str, Drawn]:
    return transform(None, changes).draw([count], {"v": torch.Generator().manual_seed(2)})[0]


@pytest.fixture
def plain(monkeypatch):
    """Without the compiler."""
    monkeypatch.setattr(torch, "compile", lambda function, **how: function)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("name", list(CHANGES))
def test_one_pass_gives_the_same_frames(name):
    x, changes = clips(), CHANGES[name]
    slow = transform(None, changes)({"v": x}, drawn(changes))["v"]
    fast = transform(Fused(8, torch.float32), changes)({"v": x}, drawn(changes))["v"]
    assert fast.shape == slow.shape and fast.dtype == torch.float32
    assert (fast - slow).abs().max() <= TOLERANCE
    assert fast.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    half = transform(Fused(8, torch.bfloat16), changes)({"v": x}, drawn(changes))["v"]
    assert half.dtype == torch.bfloat16 and torch.equal(half, fast.to(torch.bfloat16))
    evaluated = transform(Fused(8, torch.bfloat16), changes)({"v": x})["v"]
    assert evaluated.dtype == torch.float32  # as always


def test_the_compiled_pass_agrees():
    import torch._inductor.config as inductor
    from torch._dynamo.utils import counters

    x, changes = clips(), CHANGES["both"]
    slow = transform(None, changes)({"v": x}, drawn(changes))["v"]
    torch._dynamo.reset()
    counters.clear()
    fused = Fused(8, torch.float32)
    with inductor.patch({"cpp_cache_precompile_headers": False, "cpp.simdlen": 1}):  # quick to compile
        fast = transform(fused, changes)({"v": x}, drawn(changes))["v"]
    assert fused.compiles and counters["stats"]["unique_graphs"] == 1
    assert (fast - slow).abs().max() <= TOLERANCE


def test_where_it_does_not_compile_it_goes_on_with_one_warning(monkeypatch, caplog):
    def fails(graph, inputs):
        raise RuntimeError("no kernel for it")

    monkeypatch.setattr(compiled, "BACKEND", fails)
    torch._dynamo.reset()
    fused, changes, x = Fused(8, torch.float32), CHANGES["both"], clips()
    with caplog.at_level(logging.WARNING):
        found = [transform(fused, changes)({"v": x}, drawn(changes))["v"] for _ in range(2)]
    torch._dynamo.reset()
    said = [record.getMessage() for record in caplog.records if "one pass" in record.getMessage()]
    assert len(said) == 1 and "no kernel for it" in said[0] and not fused.compiles
    slow = transform(None, changes)({"v": x}, drawn(changes))["v"]
    assert torch.equal(*found) and (found[0] - slow).abs().max() <= TOLERANCE


def test_the_first_convolution_would_round_frames_to_bf16_itself():
    network = {"v": encoder("resnet", width=4, depth=[1])}
    model = build(network, "concat", {"v": FRAMES}, 3, 0).to(memory_format=torch.channels_last)
    x, factor, offset = clips(), torch.tensor(0.02), torch.tensor(-1.5)
    with torch.autocast("cpu", torch.bfloat16):
        features = [
            model.encode({"v": at_once(x, factor, offset, Drawn(), t)})["v"] for t in (torch.float32, torch.bfloat16)
        ]
    assert torch.equal(*features)


@pytest.mark.usefixtures("plain")
def test_a_run_takes_it_on_a_gpu_where_encoders_are_compiled():
    cache = SyntheticCache(2)
    schedule = spec(cache, compile="graphs", precision="bf16").training
    assert fused_for(torch.device("cuda"), schedule).dtype == torch.bfloat16
    assert fused_for(torch.device("cuda"), spec(cache, compile="kernels").training).dtype == torch.float32
    assert fused_for(CPU, schedule) is fused_for(torch.device("cuda"), spec(cache).training) is None


@pytest.mark.usefixtures("plain")
def test_a_run_with_it_has_the_same_losses():
    cache, losses = SyntheticCache(2), []
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, True) for s in ("train", "val")}
    for fused in (None, Fused(8, torch.float32)):
        run = Trainer(spec(cache), 0, cache, loaders, CPU)
        run.transform.fused = fused
        losses.append(run.epoch(0)["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
