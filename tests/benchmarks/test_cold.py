"""The benchmark of cold reads measures what it says, on a cache of a few clips."""

import os

import numpy as np
import pytest

from benchmarks import clips, cold
from pipeline_src.features.read import Cache


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="cannot drop a file from memory here")
def test_every_way_reads_all_clips_and_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cold, "ROUNDS", 1)
    monkeypatch.setattr(cold, "BATCHES", 6)
    cold.cold(200)
    said = capsys.readouterr().out
    assert said.startswith("40 of 200 clips of 452 kB") and not list(tmp_path.iterdir())
    for name in (
        "page faults of the map",
        "with the system's read-ahead",
        "as training reads",
        "disk, large blocks in order",
        "disk, the same rows",
    ):
        line = next(line for line in said.splitlines() if line.startswith(name))
        rate, _, _, of_disk, read = (float(x) for x in line.removeprefix(name).split())
        assert rate > 0 and of_disk > 0
        assert read <= 1.05 or name != "as training reads"  # whole rows and nothing else
    paces = [line for line in said.splitlines() if line.startswith("steps of ")]
    alone = [float(line.split()[2]) for line in said.splitlines() if line.startswith("such steps: ")]
    assert len(alone) == 3 and all(0.1 < part < 1.2 for part in alone)
    assert len(paces) == 3 and all(float(x) > 0 for line in paces for x in line.partition(": ")[2].split(", "))


def test_the_made_up_cache_is_one_that_the_program_reads(tmp_path):
    shapes = {"a": ("spectrogram", (5, 7), "float16"), "v": ("frames", (2, 3, 4, 4), "uint8")}
    made = clips.write(tmp_path / "cache", {"train": 9, "val": 4}, shapes)
    read = Cache(tmp_path / "cache")
    assert read.clips.split.tolist() == ["train"] * 9 + ["val"] * 4 and len(read.classes) == 6
    for m, (_, shape, dtype) in shapes.items():
        rows = np.array([12, 0, 3])
        values = read.gather(m, rows)
        assert values.shape == (3, *shape) and values.dtype == dtype and np.array_equal(values, made.gather(m, rows))
    clips.forget(tmp_path / "cache")
