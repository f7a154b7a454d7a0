"""The benchmark of a GPU runs on the CPU at a tiny size, without network and without the packages of the workflow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, published

CODE = """
import sys, socket
for name in ("snakemake", "dvc", "mlflow", "av"):
    sys.modules[name] = None
def refuse(*args, **kwargs):
    raise OSError("no network")
socket.socket.connect = refuse
sys.argv = ["benchmarks", "gpu", "--tiny", "--device", "cpu"]
from benchmarks.__main__ import main
sys.exit(main())
"""


def test_the_whole_benchmark_runs_without_network_and_workflow(tmp_path):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    for precision in ("bf16", "fp32"):
        for kind in ("resident", "streamed", "streamed, cold"):
            (line,) = (line for line in said.splitlines() if line.startswith(f"| {precision} | {kind} |"))
            assert float(line.split("|")[3].replace(",", "")) > 0
    assert "fp32: loss 0.0e+00 (1e-04) agrees; weights 0.0e+00" in said
    assert said.count("the same bits") == 2 and "OTHER BITS" not in said
    assert (said.count("| tiny |"), said.count("| small |")) == (8, 4) and "ended with an error" not in said
    for network in ("tiny", "small"):
        for how in ("none", "kernels"):
            (line,) = (line for line in said.splitlines() if line.startswith(f"| {network} | {how} |"))
            assert float(line.split("|")[3].replace(",", "")) > 0 and "0e+00 agrees" in line
    for precision in ("bf16", "fp32"):
        (line,) = (line for line in said.splitlines() if line.startswith(f"| tiny | {precision} | 2 |"))
        rate, _, apart = (float(cell.replace(",", "")) for cell in line.split("|")[4:7])
        assert rate > 0 and apart < (1e-2 if precision == "bf16" else 1e-5)
    assert "kernels: 2 of 2 methods within 1e-04 of the loss: all agree" in said
    assert said.count("frames of a batch of 8") == said.count("(2e-05) agrees") == 2
    assert "The published way" in said
    aims = said.partition("Aims, in bf16:\n")[2].splitlines()
    assert len(aims) == 4 and all(line.startswith(("  met ", "  not met ")) for line in aims)
    assert "busy at least 90 % of the time: not measured, no CUDA GPU" in aims[0]
    assert not list(tmp_path.iterdir())


def test_steps_are_as_many_as_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = gpu.write_cache(Path("cache"), published.Pictures(1), gpu.TINY)
    run = gpu.trainer(cache, torch.device("cpu"), gpu.TINY, "fp32", True)
    gpu.steps(run, 2)
    assert run.context.step == 2


@pytest.mark.parametrize("frames", [1, 3])
def test_files_and_cache_hold_the_same_clips(tmp_path, frames):
    made = published.Pictures(frames)
    made.write(tmp_path / "files", 3)
    files = published.Files(tmp_path / "files", 3, frames, 32, 2)
    audio, visual, label = files[2]
    assert visual.shape == (frames, 3, 32, 32) and label == 0 and len(files) == 3
    assert torch.equal(audio, published.spectrogram(made.sound_of(2))) and audio.shape == (257, 188)
