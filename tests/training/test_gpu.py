"""Slots on GPUs: real processes, made-up GPUs."""

import select
import subprocess
import sys
import time

import pytest

from pipeline_src.training import gpu

HOLD = """
import sys
from pathlib import Path
from pipeline_src.core import progress
from pipeline_src.training import gpu
progress.show()
count = int(sys.argv[4])
numbers = gpu.take(sys.argv[2].split(), int(sys.argv[3]), Path(sys.argv[1]), look=0.01, count=count)
again = gpu.take(sys.argv[2].split(), int(sys.argv[3]), Path(sys.argv[1]), look=0.01)  # as evaluation asks
assert again == numbers[:1]
print(*numbers, flush=True)
sys.stdin.read()
"""


class Cell:
    """A process that takes a slot and keeps it until it is killed."""

    def __init__(self, folder, uuids: str, cells: int, count: int):
        command = [sys.executable, "-c", HOLD, str(folder), uuids, str(cells), str(count)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, **pipes, text=True)

    def gpu(self) -> int:
        """The number of its GPU; waits until it has one."""
        return self.gpus()[0]

    def gpus(self) -> list[int]:
        return [int(number) for number in self.process.stdout.readline().split()]

    def waits(self) -> bool:
        """Whether it found no slot; waits until it says so."""
        return "waits for " in self.process.stderr.readline()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(tmp_path):
    """A function that starts a cell; all are ended with the test."""
    cells = []
    yield lambda uuids, slots, count=1: cells.append(Cell(tmp_path / "slots", uuids, slots, count)) or cells[-1]
    for cell in cells:
        cell.kill()


def test_every_gpu_gets_one_cell_before_any_gets_two(start):
    assert [start("a b", 2).gpu() for _ in range(4)] == [0, 1, 0, 1]
    assert start("a b", 2).waits()


def test_a_run_on_several_gpus_takes_all_of_them_or_none(start):
    assert start("a b c", 1).gpu() == 0
    assert start("a b c", 1, 3).waits()
    pair = start("a b c", 1, 2)  # the one that waits for three holds none
    assert pair.gpus() == [1, 2]
    pair.kill()


def test_a_gpu_goes_by_its_uuid_whatever_its_number(start):
    assert start("a b", 1).gpu() == 0
    assert start("b a", 1).gpu() == 0  # what CUDA_VISIBLE_DEVICES=1,0 shows
    assert start("a", 1).waits()


def test_a_killed_process_leaves_its_slot_to_one_other(start):
    first, others = start("a", 1), []
    assert first.gpu() == 0
    others = [start("a", 1) for _ in range(3)]
    assert all(cell.waits() for cell in others)
    holder = first
    while others:
        holder.kill()
        deadline, inside = time.monotonic() + 120, []
        while not inside and time.monotonic() < deadline:
            inside = [cell for cell in others if held(cell)]
        assert len(inside) == 1
        holder = inside[0]
        others.remove(holder)


def held(cell: Cell) -> bool:
    """Whether a cell has said which GPU it is on."""
    return bool(select.select([cell.process.stdout], [], [], 0.05)[0])


@pytest.mark.parametrize(
    ("shown", "there", "slots"),
    [(None, 4, 8), ("0,1", 4, 4), ("", 4, None), ("-1", 4, None), ("GPU-1a2b", 4, 2), (None, 0, None), ("0", 0, None)],
)
def test_how_many_cells_at_once(shown, there, slots, tmp_path, monkeypatch):
    for i in range(there):
        (tmp_path / "gpus" / f"0000:{i:02x}:00.0").mkdir(parents=True)
    monkeypatch.setattr(gpu, "HERE", tmp_path / "gpus")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert gpu.slots(2) == slots
