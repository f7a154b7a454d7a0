"""The benchmark of a GPU runs on the CPU at a tiny size, without network and without the packages of the workflow."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import aims, busy, clips, compiling, gpu, published, run_epochs
from benchmarks.gpu import COLD, RESIDENT, STREAMED, Rate
from pipeline_src.core.errors import UserError
from pipeline_src.training import checkpoint

CODE = """
import sys, socket
for name in ("snakemake", "dvc", "mlflow", "av"):
    sys.modules[name] = None
connect = socket.socket.connect
def refuse(self, address):
    if self.family != socket.AF_UNIX:  # by which the workers of a DataLoader hand over memory
        raise OSError("no network")
    return connect(self, address)
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
        for kind in (RESIDENT, STREAMED, COLD):
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
    whole = said.partition("Whole epochs as a run does them, in bf16: trained on 24 clips, scored on 8 of val")[2]
    for kind in (RESIDENT, COLD):
        (line,) = (line for line in whole.splitlines() if line.startswith(f"| {kind} |"))
        assert all(float(cell.replace(",", "")) > 0 for cell in line.split("|")[2:5]), line
    assert "The published way, JPEG and WAV files of 16 clips, a DataLoader with" in said
    assert "batches of 8, after the first" in said and "Times the published way, resident: bf16 " in said
    lines = said.partition("Aims, in bf16;")[2].splitlines()[1:-1]
    assert len(lines) == 7 and all(line.startswith("  not measured here busy") for line in lines[:2])
    assert all(line.startswith("  not measured here ") and "no CUDA GPU" in line for line in lines)
    assert not list(tmp_path.iterdir())


def test_a_part_that_there_is_not_is_an_error():
    with pytest.raises(UserError, match=r"--only with some of rates, epochs, .*, but got speed"):
        gpu.measure(gpu.TINY, "cpu", ["rates", "speed"])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The tiny cache, in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    return gpu.write_cache(Path("cache"), published.Pictures(1), gpu.TINY)


def test_a_cache_holds_its_distinct_clips_again_and_again(cache):
    assert (len(cache.rows("train")), len(cache.rows("val"))) == (24, 8)
    for m in cache.modalities:
        values = cache.gather(m, np.arange(24))
        assert np.array_equal(values[16:], values[:8])
        assert len({row.tobytes() for row in values[:16]}) == 16


def test_whole_epochs_are_those_of_a_run(cache, monkeypatch):
    dropped = []
    monkeypatch.setattr(clips, "forget", dropped.append)
    run = gpu.trainer(cache, torch.device("cpu"), gpu.TINY, "fp32", False)
    epochs = run_epochs.Epochs(run, Path("run"), True)
    rate, training, rest = run_epochs.of(epochs, 0.0)
    rows = epochs.keeper.rows
    assert [row["epoch"] for row in rows] == [0, 1] and all("val_accuracy" in row for row in rows)
    assert {file.name for file in Path("run").iterdir()} == {
        "metrics.jsonl",
        "checkpoint.safetensors",
        "weights-1.safetensors",
    }
    assert checkpoint.load(Path("run/checkpoint.safetensors"))[1]["rows"] == rows
    assert training == rows[0]["seconds"] and rest > 0
    assert rate.samples == pytest.approx(24 / (training + rest)) and math.isnan(rate.busy)
    assert dropped == [cache.folder, cache.folder]


def test_rates_are_of_whole_epochs_after_some_steps(cache, monkeypatch):
    run = gpu.trainer(cache, torch.device("cpu"), gpu.TINY, "fp32", True)
    monkeypatch.setattr(gpu, "WARM", 2)
    taken, train = [], run.epoch

    def epoch(number, *pulse):
        taken.append(number)
        return {**train(number, *pulse), "seconds": 3.0}

    monkeypatch.setattr(run, "epoch", epoch)
    samples, _ = gpu.rate(run, 6.0)
    assert taken == [gpu.WARMING, 0, 1] and samples == 8.0
    assert run.context.step == 2 + 3 + 3


def test_rates_of_steps_end_with_the_time(cache, monkeypatch):
    run = gpu.trainer(cache, torch.device("cpu"), gpu.TINY, "fp32", True)
    monkeypatch.setattr(gpu.time, "perf_counter", lambda: float(run.context.step))
    assert gpu.rate_of_steps(run, 4.0) == 8.0 and run.context.step == 4


def test_busy_time_counts_what_overlaps_once():
    assert busy.covered([(30, 40), (0, 10), (5, 20), (6, 7)]) == (30.0, 40.0)
    assert all(math.isnan(value) for value in busy.covered([]))


def test_only_the_device_is_busy(monkeypatch):
    def event(kind, start, end, annotation=False):
        functions = {"device_type": SimpleNamespace(name=kind), "start_ns": start, "duration_ns": end - start}
        functions["is_user_annotation"] = annotation
        return SimpleNamespace(**{name: lambda value=value: value for name, value in functions.items()})

    events = [event("CUDA", 0, int(1e9)), event("CUDA", int(3e9), int(4e9))]
    events += [event("CPU", 0, int(9e9)), event("CUDA", 0, int(9e9), annotation=True)]

    class Profile:
        profiler = SimpleNamespace(kineto_results=SimpleNamespace(events=lambda: events))

        def __init__(self, activities):
            assert [activity.name for activity in activities] == ["CUDA"]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(torch.profiler, "profile", Profile)
    monkeypatch.setattr(busy.devices, "synchronize", lambda device: None)
    done = []
    seconds, between, whole = busy.profiled(torch.device("cuda"), lambda: done.append(1))
    assert (seconds, between, done) == (2.0, 4.0, [1]) and 0 <= whole < 1


def rates(resident, cold, busy=(0.95, 0.97), from_disk=1.0):
    return {RESIDENT: Rate(resident, busy[0]), COLD: Rate(cold, busy[1], from_disk)}


def test_methods_for_which_there_is_no_time_are_named(monkeypatch, capsys):
    clock = iter(range(0, 100, 10))
    monkeypatch.setattr(compiling.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(compiling, "trainer", lambda *_: None)
    monkeypatch.setattr(compiling, "loss_of", lambda run, steps: 1.0)
    size = replace(gpu.TINY, compiled=("joint", "ogm", "pmr", "mla"), limit=25.0)
    compiling.every_method(torch.device("cpu"), None, size, "kernels")
    said = capsys.readouterr().out
    assert said == "  kernels: 2 of 2 methods within 1e-04 of the loss: all agree; not measured, after 25 s: pmr, mla\n"


def test_aims_by_figures_worked_by_hand():
    """VGGSound x 100 epochs are 19,946,700 visits: 3.5 hours at 1,583.07 a second."""
    training, whole = rates(2100.0, 2000.0), rates(1800.0, 1583.0, (0.89, 0.95))
    found = {aim: (verdict, value) for aim, verdict, value in aims.aims(training, whole, 200.0)}
    assert found == {
        "busy at least 90 % of the time, steps alone": ("met", "95.0 % (resident, the least)"),
        "busy at least 90 % of the time, whole epochs": ("not met", "89.0 % (resident, the least)"),
        "streamed, cold: at most 1.05 times resident, training alone": ("met", "1.050"),
        "streamed, cold: at most 1.05 times resident, whole epochs": ("not met", "1.137"),
        "at least 10 times the published way, training alone": ("met", "10.5 (resident)"),
        "VGGSound x 100 epochs below 3.5 hours, training alone": ("met", "2.77 h (streamed, cold)"),
        "VGGSound x 100 epochs below 3.5 hours, whole epochs": ("not met", "3.50 h (streamed, cold)"),
    }


def test_aims_without_a_figure_are_not_met_and_not_missed():
    nothing = aims.aims({}, {}, None)
    assert len(nothing) == 7
    assert {(verdict, value) for _, verdict, value in nothing} == {("not measured here", "no figure")}
    other = aims.aims(rates(9e4, 9e4), rates(9e4, 9e4), 1.0, "no CUDA GPU")
    assert {verdict for _, verdict, _ in other} == {"not measured here"}
    assert all(value.startswith("no CUDA GPU; here ") for _, _, value in other)


@pytest.mark.parametrize("share, why", [(0.3, "30% came from the disk"), (float("nan"), "does not say")])
def test_a_cache_that_came_from_memory_is_not_cold(share, why):
    warm = rates(9e4, 9e4, from_disk=share)
    found = aims.aims(warm, warm, 1.0)
    verdicts = {aim: verdict for aim, verdict, _ in found}
    assert [verdict for aim, verdict in verdicts.items() if "cold" in aim or "VGGSound" in aim] == [aims.MISSING] * 4
    assert [verdict for aim, verdict in verdicts.items() if not ("cold" in aim or "VGGSound" in aim)] == ["met"] * 3
    assert sum(why in value for _, _, value in found) == 4


class Marked(torch.utils.data.Dataset):
    """Samples that say which process gave them."""

    def __len__(self):
        return 5

    def __getitem__(self, clip):
        return torch.tensor([float(os.getpid())]), torch.zeros(1), clip % 2


class Linear(torch.nn.Module):
    """Remembers the process that gave each batch."""

    def __init__(self):
        super().__init__()
        self.head, self.seen = torch.nn.Linear(1, 2), []

    def forward(self, inputs):
        (process,) = set(inputs["audio"].flatten().tolist())
        self.seen.append((process, len(inputs["audio"])))
        return SimpleNamespace(logits=self.head(inputs["visual"]))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_published_way_is_timed_when_every_worker_has_given_a_batch(workers, monkeypatch):
    """20 clips of 5 files in a stream: workers persist from epoch to epoch, and each gives as many batches."""
    model = Linear()
    monkeypatch.setattr(published.time, "perf_counter", lambda: float(len(model.seen)))  # a second for each batch
    timed = published.train(model, Marked(), torch.device("cpu"), 4, workers, 4)
    turn = max(1, workers)
    assert timed == (4.0, 4 * turn, turn)  # all but the first turn, and its clips, are timed
    processes, sizes = zip(*model.seen, strict=True)
    assert len(set(processes)) == turn and sizes == (4,) * 5 * turn
    assert processes == processes[:turn] * 5 and (os.getpid() in processes) == (workers == 0)


def test_enough_of_the_published_way_is_timed():
    assert gpu.Size().turns >= 4 and gpu.TINY.turns >= 4


def test_steps_are_as_many_as_asked(cache):
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
