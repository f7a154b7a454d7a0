"""Choosing a device, and what is said where its memory does not suffice."""

import json
import subprocess
import sys
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


@pytest.mark.parametrize(("count", "context_on"), [(1, [1]), (2, [])])
def test_who_trains_nothing_takes_no_memory_of_a_gpu(count, context_on, monkeypatch):
    """The process of a job that several train for: its context on the first GPU fails where processes share none."""
    made = []
    for name in ("set_device", "set_per_process_memory_fraction", "mem_get_info", "synchronize", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda device, *_: made.append(device.index))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid=f"GPU-{number}"))
    monkeypatch.setattr(devices.gpu, "take", lambda uuids, cells_per_gpu, count: [1, 2][:count])
    assert devices.pick_several("cuda", count) == [torch.device("cuda", 1), torch.device("cuda", 2)][:count]
    assert made == context_on


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
    older = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = older
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


READ_BY_LIBRARIES = """
import os

import torch
from pipeline_src.training import device

torch.cuda.is_bf16_supported = lambda including_emulation: True
torch.cuda.get_device_capability = lambda device: (8, 0)


def check(precision):
    tf32 = precision == "tf32"
    device.use_precision(torch.device("cuda"), precision)
    for _ in range(2):
        assert torch.backends.cuda.matmul.allow_tf32 is tf32
        assert torch.backends.cudnn.allow_tf32 is tf32
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
        for part in (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn):
            assert (part.fp32_precision == "tf32") is tf32
        with torch.backends.cudnn.flags(enabled=False):
            assert not torch.backends.cudnn.enabled
        assert torch.backends.cudnn.enabled


for precision in ("fp32", "tf32", "bf16"):  # each in a process of its own, as the flags start
    if not os.fork():
        check(precision)
        os._exit(0)
    assert os.wait()[1] == 0, precision
"""


def test_what_libraries_read_is_what_was_set():
    subprocess.run([sys.executable, "-c", READ_BY_LIBRARIES], check=True)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_device_without_tf32_is_an_error(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(devices, "describe", lambda device: f"{device.type} (old)")
    with pytest.raises(UserError, match=rf"expected a CUDA GPU .* TF32, but got {device} \(old\); set fp32"):
        devices.use_precision(torch.device(device), "tf32")


NO_VERSION = (
    "does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms(True, "
    "warn_only=True)'."
)
FUSED = (
    "defaults to a non-deterministic algorithm. To explicitly enable determinism call "
    "torch.use_deterministic_algorithms(True, warn_only=False)."
)
CUBLAS = (
    "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or "
    "`at::Context::setDeterministicAlgorithms(true)`, but this operation is not deterministic because it uses CuBLAS "
    "and you have CUDA >= 10.2."
)
WARNINGS = {  # what PyTorch 2.11 and 2.14 say
    "pool_backward_cuda": f"pool_backward_cuda {NO_VERSION}",
    "_histc_cuda with floating point input": f"_histc_cuda with floating point input {NO_VERSION}",
    "Flash Attention": f"Flash Attention {FUSED}",
    "Memory Efficient attention": f"Memory Efficient attention {FUSED}",
    "cuDNN Attention": f"cuDNN Attention {FUSED}",
    "CuBLAS": CUBLAS,
}


def test_what_is_not_deterministic_is_in_the_record_and_in_the_log(tmp_path, monkeypatch, caplog):
    def step(self, ctx, batch, before=Method.step):
        for said in WARNINGS.values():
            warnings.warn(said, UserWarning, stacklevel=1)
        before(self, ctx, batch)

    silent = make_run(tmp_path / "silent")
    train(silent)
    assert "nondeterministic" not in json.loads(silent.record.read_text())
    monkeypatch.setattr(Method, "step", step)
    one = make_run(tmp_path / "one")
    train(one)
    assert json.loads(one.record.read_text())["nondeterministic"] == [*WARNINGS]
    assert f"not deterministic on cpu: {', '.join(WARNINGS)};" in caplog.text


@pytest.fixture
def determinism():
    """Whatever `deterministic` sets is put back."""
    mode, fill = torch.get_deterministic_debug_mode(), torch.utils.deterministic.fill_uninitialized_memory
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    yield
    devices.deterministic(CPU, threads)
    torch.set_deterministic_debug_mode(mode)
    torch.utils.deterministic.fill_uninitialized_memory = fill
    torch.backends.cudnn.benchmark = benchmark


@pytest.mark.usefixtures("determinism")
def test_pytorchs_own_warning_is_noted_in_every_run_of_a_process():
    devices.deterministic(torch.device("cuda"), 1)
    for _ in range(2):
        with devices.nondeterministic() as found:
            assert torch.is_warn_always_enabled()
            torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
        assert len(found) == 1 and found[0].startswith("put_")
        assert not torch.is_warn_always_enabled()


@pytest.mark.usefixtures("determinism")
def test_a_gpu_computes_attention_by_plain_products_and_the_cpu_as_pytorch_does():
    def attention() -> list[torch.Tensor]:
        q, k, v = torch.randn(3, 2, 4, 6, 8, generator=torch.Generator().manual_seed(0)).requires_grad_().unbind(0)
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return [out, *torch.autograd.grad(out.square().sum(), [q, k, v])]

    def fused() -> list[bool]:
        return [getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in ("flash", "mem_efficient", "cudnn")]

    before = attention()
    devices.deterministic(torch.device("cuda"), 1)
    assert fused() == [False] * 3 and torch.backends.cuda.math_sdp_enabled()
    assert "Flash" not in attention()[0].grad_fn.name()
    devices.deterministic(CPU, 1)
    assert fused() == [True] * 3
    after = attention()
    assert "Flash" in after[0].grad_fn.name() and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


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
