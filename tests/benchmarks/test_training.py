"""The benchmarks of reading and of starting measure what they say."""

import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import training as bench
from pipeline_src.core.errors import UserError
from pipeline_src.training import device as devices
from pipeline_src.training.loader import Loader
from tests.synthetic import SyntheticCache, spec

CPU = torch.device("cpu")
BATCHES = 8


class Slow:
    """A cache of BATCHES samples, of which the next is read when the test says so."""

    def __init__(self):
        self.clips = pd.DataFrame({"label": np.zeros(BATCHES, dtype=int)})
        self.modalities = {"a": {"shape": [1], "dtype": "float32"}}
        self.asked = [threading.Event() for _ in range(BATCHES + 1)]

    def ahead(self, modalities, parts):
        return nullcontext(lambda: None)

    def rows(self, split):
        return np.arange(BATCHES)

    def row_bytes(self, modalities):
        return 4

    def gather(self, modality, rows, out):
        self.asked[rows[0]].wait()
        out[:] = 0


@pytest.mark.parametrize("measure", [bench.whole, bench.parts])
def test_one_step_is_taken_for_each_batch_that_is_read(measure):
    """A second one in between would give the thread that reads ahead twice the time that it has in training."""
    cache, steps = Slow(), []
    loader = Loader(cache, "train", ["a"], CPU, resident=False)

    def step(batch):
        steps.append(int(batch.index[0]))
        cache.asked[
            len(steps)
        ].set()  # the next batch is read in the time of a step: with fewer steps the loop would stop

    cache.asked[0].set()
    measure(loader.batches(1), lambda batch: batch, step, CPU)
    assert steps == list(range(BATCHES))


def test_the_parts_of_an_epoch_are_booked_where_they_are_spent(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)

    def spend(seconds, value=None):
        clock.now += seconds
        return value

    def batches():
        for i in range(3):
            spend(1.0)
            yield i

    how = (lambda batch: spend(0.25, batch)), (lambda batch: spend(10.0)), CPU
    assert bench.parts(batches(), *how) == (3.0, 0.75)
    assert bench.whole(batches(), *how) == pytest.approx(3 * 11.25)


@pytest.fixture
def plan(monkeypatch):
    """What the benchmarks read of a plan, with a small cache in memory."""
    cache = SyntheticCache(2)
    cell = SimpleNamespace(spec=spec(cache), data=SimpleNamespace(name="toy"), fusion="concat", method="joint")
    monkeypatch.setattr(bench, "_cell", lambda plan: cell)
    monkeypatch.setattr(bench, "_cache", lambda plan: cache)
    asked = SimpleNamespace(
        training=SimpleNamespace(device="cpu", resident_fraction=0.5),
        resources=SimpleNamespace(train=SimpleNamespace(threads=1, mem_mb=1000)),
    )
    return SimpleNamespace(params=asked)


def test_the_first_step_is_reached(plan, capsys):
    bench.first_step(plan)
    marks = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert [mark[2] for mark in marks][:2] == ["plan read", "imports"] and marks[-1][2] == "first step"
    for column in range(2):
        times = [float(mark[column]) for mark in marks]
        assert times == sorted(times)


def test_epochs_of_both_caches_are_printed(plan, capsys):
    bench.loader(plan)
    rows = [line.split()[-5:] for line in capsys.readouterr().out.splitlines()[3:]]
    assert len(rows) == 2
    for epoch, steps, ratio, read, prepare in (map(float, row) for row in rows):
        assert epoch > 0 and steps > 0 and ratio > 0 and read >= 0 and prepare >= 0


def test_the_start_books_the_import_of_determinism_apart_from_the_cache(monkeypatch, capsys, tmp_path):
    """`use_deterministic_algorithms` imports much of PyTorch; it was booked as the cache's time."""
    order = []
    monkeypatch.setattr(devices, "deterministic", lambda *_: order.append(capsys.readouterr().out))
    monkeypatch.setattr(
        bench, "_cell", lambda plan: SimpleNamespace(data=SimpleNamespace(cache_file=tmp_path / "no", cache=tmp_path))
    )
    asked = SimpleNamespace(
        training=SimpleNamespace(device="cpu"), resources=SimpleNamespace(train=SimpleNamespace(threads=1))
    )
    with pytest.raises(UserError, match="expected a finished cache"):
        bench.first_step(SimpleNamespace(params=asked))
    (before,) = order
    assert "imports" in before and "determinism" not in before
    assert "device and determinism" in capsys.readouterr().out, "printed before the cache is opened"
