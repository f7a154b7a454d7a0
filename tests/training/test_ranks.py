"""One run in several processes: what one process gives, within a tolerance; exact when it goes on; and how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline_src.core.errors import UserError
from pipeline_src.models.parts import Place, own_draws
from pipeline_src.training import checkpoint
from pipeline_src.training import device as devices
from pipeline_src.training.interrupt import Stop, StoppedError
from pipeline_src.training.loader import Loader
from pipeline_src.training.ranks import _watch, launch
from tests.synthetic import KINDS, SyntheticCache
from tests.training.killed import CPU
from tests.training.together import Case, all_cases, stopped_and_slow, train_part, trained, trainer

LOSSES = 1e-6  # largest difference from one process, relative to the largest value; seen 2e-7
STATE = 1e-4  # of any tensor of the state in the end, likewise; seen 3e-5, in a momentum

STEPS, CHANNELS = KINDS["sequence"][0]
RECURRENT = {"kind": "recurrent", "channels": CHANNELS, "segments": STEPS, "width": 3}
CASES = [
    Case("joint", corrupted=True),
    Case("ogm_ge", training={"optimizer": "adamw", "lr": 1e-3}),
    Case("opm_ogm", layouts=("sequence", "tokens"), params={"opm": {"execute_probability": 0.7}}),
    Case("pmr", params={"momentum": 0.5, "share": 0.5, "per_epochs": 2}, resident=False, epochs=2),
    Case("relearning", params={"every": 1, "times": 1, "optimizer": "reset"}, epochs=2),
    Case("greedy", "mmtm", epochs=2),  # takes statistics of states that the encoders exchange
    Case("mmpareto", "avga"),  # compares gradients; the fusion reads hidden states
    Case("agm", task="segments"),  # encodes an input of zeros as well; a sample is two rows
    Case("umt"),  # has teachers
    Case("joint", task="segments", layouts=("sequence",), encoder=RECURRENT, epochs=2),
]


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> dict[str, dict[str, torch.Tensor]]:
    """What two processes give of each case."""
    folder = tmp_path_factory.mktemp("together")
    with Stop() as stop:
        launch("cases", [CPU] * 2, stop, all_cases, CASES, str(folder))
    return torch.load(folder / "results.pt")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.fusion} {case.encoder.get('kind', '')}")
def test_several_processes_give_what_one_gives(case, together):
    one, several = trained(trainer(case, None)), together[case.label]
    assert bool(several.pop("resumed_alike"))
    assert one.keys() == several.keys()
    for name, value in one.items():
        if not value.is_floating_point():
            assert torch.equal(several[name], value), name
            continue
        tolerance = (LOSSES if name == "losses" else STATE) * value.abs().max().clamp_min(1e-3)
        assert (several[name] - value).abs().max() <= tolerance, name


def test_a_batch_is_divided_evenly_and_a_small_one_not_at_all():
    cache = SyntheticCache(2)
    whole = Loader(cache, "train", list(cache.modalities), CPU, resident=True)
    for resident in (True, False):
        parts = [
            list(Loader(cache, "train", list(cache.modalities), CPU, resident, place=Place(i, 3)).batches(8))
            for i in range(3)
        ]
        for expected, *batches in zip(whole.batches(8), *parts, strict=True):
            assert all(torch.equal(batch.label, expected.label) for batch in batches)
            divided = [len(batch.inputs["m0"]) for batch in batches]
            assert divided == ([3, 3, 2] if len(expected.label) == 8 else [2, 2, 2])
            for m, x in expected.inputs.items():
                there = torch.cat([batch.inputs[m] for batch in batches])
                assert torch.equal(there, x if len(x) == 8 else x.repeat(3, *[1] * (x.dim() - 1)))


def test_dropout_draws_apart_in_each_process_and_alike_afterwards():
    def draws(rank: int) -> tuple[list[float], float]:
        torch.manual_seed(5)
        inside = []
        for _ in range(2):
            with own_draws(rank, CPU):
                inside.append(float(torch.rand(())))
        return inside, float(torch.rand(()))

    (first, after), (second, after_too) = draws(0), draws(1)
    assert len({*first, *second}) == 4 and after == after_too
    torch.manual_seed(5)
    expected = float(torch.rand(()))
    torch.manual_seed(5)
    with own_draws(1, CPU):
        pass
    assert float(torch.rand(())) == expected  # nothing was drawn


def bits(folder: Path) -> dict:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "rows": [{k: v for k, v in row.items() if k != "seconds"} for row in rows],
        "weights": {k: v.numpy().tobytes() for k, v in checkpoint.load(folder / "weights.safetensors")[0].items()},
    }


def test_stopped_or_with_a_process_killed_it_goes_on_with_the_same_bits(tmp_path):
    def train(folder: Path, *where) -> None:
        with Stop() as stop:
            launch("a run", [CPU] * 2, stop, train_part, "opm_ogm", str(folder), *where)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(whole)
    record = json.loads((whole / "record.json").read_text())
    assert record["machine"]["processes"] == 2 and record["steps"] == 12
    with pytest.raises(StoppedError) as stopped:
        train(cut, "a step", 3, 0, signal.SIGTERM)
    assert str(stopped.value).startswith("stopped by SIGTERM after epoch 0 of 3, step ")
    assert json.loads((cut / "attempt.json").read_text())["status"] == "interrupted"
    with pytest.raises(UserError, match="expected 2 processes to the end, but got an end of process 1 by SIGKILL; "):
        train(cut, "the backward pass", 3, 1, signal.SIGKILL)
    assert not (cut / "record.json").exists()
    train(cut)
    assert bits(cut) == bits(whole)
    assert json.loads((cut / "record.json").read_text())["resumed"] == 2
    assert {path.name for path in cut.iterdir()} == {"record.json", "metrics.jsonl", "weights.safetensors"}


PARENT = """
import os, sys, time
from pathlib import Path
import torch
from pipeline_src.training.interrupt import Stop
from pipeline_src.training.ranks import launch

def sleep(ranks, folder):
    (Path(folder) / f"{os.getpid()}.pid").touch()
    time.sleep(600)

if __name__ == "__main__":
    with Stop() as stop:
        launch("a run", [torch.device("cpu")] * 2, stop, sleep, sys.argv[1])
"""


def test_the_processes_end_with_the_one_that_started_them(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], env=os.environ | {"PYTHONPATH": str(Path.cwd())}
    )
    wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2, 120)
    pids = [int(file.stem) for file in tmp_path.glob("*.pid")]
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() and alive(pid) for pid in pids), 30)


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be buried does not."""
    try:
        return re.search(r"\) (\w)", Path(f"/proc/{pid}/stat").read_text())[1] != "Z"
    except OSError:
        return False


def wait_for(met, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it hangs"
        time.sleep(0.05)


def test_what_a_process_raises_the_job_raises(tmp_path):
    with Stop() as stop, pytest.raises(UserError, match=r"^process 1 has no batch$"):
        launch("a run", [CPU] * 2, stop, train_part, "joint", str(tmp_path), "a step", 2, 1, "has no batch")


def test_who_has_stopped_waits_for_the_one_that_writes(tmp_path):
    with Stop() as stop, pytest.raises(StoppedError, match=r"^stopped by SIGTERM after a step; "):
        launch("a run", [CPU] * 2, stop, stopped_and_slow, str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "written"


def test_a_process_that_ended_between_two_looks_is_seen():
    inside, outside = os.pipe()
    looks = []

    class Waiting:
        sentinel, pid = inside, os.getpid()

        @property
        def exitcode(self) -> None:
            looks.append(1)
            assert len(looks) < 20, "it waits for ever"

        def join(self, seconds: float) -> None: ...

    ended = SimpleNamespace(exitcode=-9, sentinel=inside, pid=os.getpid(), join=lambda seconds: None)
    _watch([Waiting(), ended], Stop())
    for end in (inside, outside):
        os.close(end)
    assert looks


def test_a_machine_with_too_few_gpus_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"^training\.gpus: expected at most the GPUs .*, but got 2 for 0; lower it"):
        devices.pick_several("auto", 2)
    assert devices.pick_several("cpu", 2) == [CPU, CPU]
