"""Choosing a device, and what is said where its memory does not suffice."""

import json
import warnings
from types import SimpleNamespace

import pytest
import torch

from pipeline_src.core.errors import UserError
from pipeline_src.methods.base import Method
from pipeline_src.training import device as devices
from pipeline_src.training import run
from pipeline_src.training.loader import Loader
from tests.synthetic import SyntheticCache, spec
from tests.training.test_run import make_run, train

CPU = torch.device("cpu")
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    ),
    MemoryError(),
]


def test_a_device_that_is_not_there_is_an_error():
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(
        UserError, match=rf"training\.device: expected a device of this machine \(.*\), but got '{missing}'"
    ):
        devices.pick(missing)
    assert devices.pick("cpu") == CPU


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_says_which_cell_which_batch_and_what_to_set(error, tmp_path, monkeypatch):
    def full(self, ctx, batch):
        raise error

    monkeypatch.setattr(Method, "step", full)
    one = make_run(tmp_path)
    with pytest.raises(UserError) as said:
        train(one)
    for part in (
        "train d:",
        "batches of 8 clips",
        "cpu",
        "out of memory",
        "lower training.batch_size",
        "resident_fraction",
    ):
        assert part in str(said.value)
    assert "failed" in (tmp_path / "attempt.json").read_text()
    assert not one.record.exists()


FLAGS = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)


@pytest.fixture
def flags():
    before = [part.fp32_precision for part in FLAGS]
    yield
    for part, value in zip(FLAGS, before, strict=True):
        part.fp32_precision = value


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize(("precision", "how"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")])
def test_fp32_turns_tf32_off_and_tf32_on(precision, how, monkeypatch):
    for part in FLAGS:
        part.fp32_precision = "tf32" if how == "ieee" else "ieee"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    devices.use_precision(torch.device("cuda"), precision)
    assert [part.fp32_precision for part in FLAGS] == [how] * 3


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_device_without_tf32_is_an_error(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(devices, "describe", lambda device: f"{device.type} (old)")
    with pytest.raises(UserError, match=rf"expected a CUDA GPU .* TF32, but got {device} \(old\); set fp32"):
        devices.use_precision(torch.device(device), "tf32")


def test_what_is_not_deterministic_is_in_the_record_and_in_the_log(tmp_path, monkeypatch, caplog):
    def step(self, ctx, batch, before=Method.step):
        said = "does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms(True'"
        for name in ("pool_backward_cuda", "other_cuda"):
            warnings.warn(f"{name} {said}", UserWarning, stacklevel=1)
        before(self, ctx, batch)

    silent = make_run(tmp_path / "silent")
    train(silent)
    assert "nondeterministic" not in json.loads(silent.record.read_text())
    monkeypatch.setattr(Method, "step", step)
    one = make_run(tmp_path / "one")
    train(one)
    assert json.loads(one.record.read_text())["nondeterministic"] == ["pool_backward_cuda", "other_cuda"]
    assert "not deterministic on cpu: pool_backward_cuda, other_cuda" in caplog.text


def test_another_error_stays_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(Method, "step", lambda self, ctx, batch: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        train(make_run(tmp_path))


def test_clips_that_do_not_fit_on_the_device_are_streamed(monkeypatch, caplog):
    cache, init = SyntheticCache(2), Loader.__init__

    def full(self, cache, split, modalities, device, resident, *more):
        if resident and split == "val":
            raise OUT_OF_MEMORY[0]
        init(self, cache, split, modalities, device, resident, *more)

    monkeypatch.setattr(Loader, "__init__", full)
    params = SimpleNamespace(
        training=SimpleNamespace(resident_fraction=1.0),
        resources=SimpleNamespace(train=SimpleNamespace(mem_mb=1000)),
    )
    loaders = run.make_loaders(cache, spec(cache), CPU, params)
    assert all(loader.resident is None for loader in loaders.values())
    assert "do not fit on cpu: streamed from disk" in caplog.text
