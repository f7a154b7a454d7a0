"""Work on a list of clips in shards: the same whatever the processes, and no process left of what fails."""

import multiprocessing
import os
import signal
import tracemalloc
from pathlib import Path

import pytest

from pipeline_src.datasets import listing
from pipeline_src.datasets.base import Clip
from pipeline_src.datasets.listing import Listing, in_shards


def clip(i: int) -> Clip:
    file = Path(f"videos/{i:08d}.mp4")
    return Clip(f"clip{i:08d}", f"class{i % 7}", "train", f"video{i // 2:08d}", {"audio": file, "visual": file})


def squares(shard: range) -> list[int]:
    return [i * i for i in shard]


@pytest.mark.parametrize("processes", [1, 2, 3, 64])
def test_shards_come_in_their_order_whatever_the_processes(monkeypatch, processes):
    monkeypatch.setattr(listing, "SHARD", 10)
    parts = list(in_shards(squares, 95, processes))
    assert [len(part) for part in parts] == [10] * 9 + [5]
    assert [square for part in parts for square in part] == [i * i for i in range(95)]


def test_small_lists_need_no_process():
    own = list(in_shards(lambda shard: os.getpid(), listing.SHARD, 8))
    assert own == [os.getpid()]
    others = set(in_shards(lambda shard: os.getpid(), 2 * listing.SHARD, 8))
    assert len(others) == 2 and os.getpid() not in others


def test_an_error_of_a_shard_is_raised_and_ends_the_processes(monkeypatch):
    monkeypatch.setattr(listing, "SHARD", 1)

    def work(shard: range) -> int:
        if shard.start == 5:
            raise FileNotFoundError(2, "gone", "videos/5.mp4")
        return shard.start

    found = in_shards(work, 1000, 3)
    assert [next(found) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(FileNotFoundError, match=r"videos/5\.mp4"):
        next(found)
    assert not multiprocessing.active_children()


class PluginError(Exception):
    """One that pickle writes and cannot read."""

    def __init__(self, file: str, why: str):
        super().__init__(f"{file}: {why}")


def test_an_error_says_where_it_was_raised_whatever_its_kind(monkeypatch):
    monkeypatch.setattr(listing, "SHARD", 1)

    def work(shard: range) -> None:
        raise PluginError("a.dat", "no header") if shard.start else ValueError("first")

    for first, kind, text in ((0, ValueError, "first"), (1, RuntimeError, "PluginError: a.dat: no header")):
        with pytest.raises(kind, match=text) as caught:
            list(in_shards(lambda shard, first=first: work(range(first, 2)), 4, 2))
        assert "in work" in caught.value.__notes__[0]


def test_a_process_that_is_killed_is_an_error(monkeypatch):
    monkeypatch.setattr(listing, "SHARD", 1)
    with pytest.raises(ChildProcessError, match="ended with -9"):
        list(in_shards(lambda shard: os.kill(os.getpid(), signal.SIGKILL), 4, 2))
    assert not multiprocessing.active_children()


def test_who_takes_only_some_leaves_no_process(monkeypatch):
    monkeypatch.setattr(listing, "SHARD", 1)
    found = in_shards(squares, 1000, 2)
    next(found)
    found.close()
    assert not multiprocessing.active_children()


def test_a_list_gives_its_clips_back_and_takes_little_memory():
    tracemalloc.start()
    clips = [clip(i) for i in range(5000)]
    as_clips = tracemalloc.get_traced_memory()[0]
    found = Listing(("audio", "visual"))
    for one in clips:
        found.add(one)
    assert list(found) == clips and found[3:5] == clips[3:5] and len(found) == 5000
    del clips, one
    as_columns = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert as_columns < as_clips / 2.5, f"{as_columns} bytes of {as_clips}"
