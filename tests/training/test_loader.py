"""A streamed cache gives the very batches of one on the device, and leaves no thread behind."""

import threading

import numpy as np
import pytest
import torch

from pipeline_src.training.loader import Loader, sizes
from pipeline_src.training.stream import Reader
from tests.synthetic import SPLITS, SyntheticCache
from tests.training import strict

CPU = torch.device("cpu")


def both(cache: SyntheticCache, split: str = "train") -> list[Loader]:
    return [Loader(cache, split, list(cache.modalities), CPU, resident) for resident in (True, False)]


def test_streamed_equals_resident_and_nothing_is_dropped():
    order = torch.randperm(SPLITS["train"], generator=torch.Generator().manual_seed(0))
    seen = []
    resident, streamed = both(SyntheticCache(3))
    for a, b in zip(resident.batches(8, order), streamed.batches(8, order), strict=True):
        assert torch.equal(a.label, b.label) and torch.equal(a.index, b.index)
        assert all(torch.equal(a.inputs[m], b.inputs[m]) for m in a.inputs)
        seen.append(a.index)
    assert torch.equal(torch.cat(seen), order)
    assert [len(part) for part in seen] == [8, 8, 8, 2]


@pytest.mark.parametrize("split", list(SPLITS))
def test_rows_are_those_of_the_split_in_order(split):
    cache = SyntheticCache(2)
    for loader in both(cache, split):
        batch = next(loader.batches(1000))
        rows = cache.rows(split)
        assert batch.label.tolist() == cache.clips.label[rows].tolist()
        assert torch.equal(batch.inputs["m0"], torch.from_numpy(cache.gather("m0", rows)))


def test_leaving_early_ends_the_reading_threads():
    _, streamed = both(SyntheticCache(2))
    before = threading.active_count()
    batches = streamed.batches(2)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before


def test_a_read_that_fails_is_raised_where_the_batch_is_used():
    cache = SyntheticCache(2)
    _, streamed = both(cache)
    cache.gather = lambda modality, rows, out=None: (_ for _ in ()).throw(OSError("disk gone"))
    with pytest.raises(OSError, match="disk gone"):
        list(streamed.batches(8))


@pytest.mark.parametrize(
    ("count", "least", "found"),
    [
        (26, 1, [8, 8, 8, 2]),
        (26, 2, [8, 8, 8, 2]),
        (25, 1, [8, 8, 8, 1]),
        (25, 2, [8, 8, 9]),
        (24, 2, [8, 8, 8]),
        (9, 2, [9]),
        (1, 2, [1]),
        (0, 2, []),
    ],
)
def test_a_last_batch_that_is_too_small_joins_the_one_before(count, least, found):
    assert sizes(count, 8, least) == found
    samples = torch.arange(count) % SPLITS["train"]
    for loader in both(SyntheticCache(2)):
        parts = [batch.index for batch in loader.batches(8, samples=samples, least=least)]
        assert [len(part) for part in parts] == found
        assert torch.equal(torch.cat([*parts, samples[:0]]), samples)
        later = [batch.index for batch in loader.batches(8, samples=samples, first=1, least=least)]
        assert all(torch.equal(a, b) for a, b in zip(later, parts[1:], strict=True)), "a pass that goes on"


def test_a_thread_that_reads_sets_its_device_before_it_waits():
    """In PyTorch a new thread is on the first GPU, whichever the process trains on."""
    with strict.watched() as watch:
        thread = threading.Thread(target=torch.get_device_module(strict.device()).Event().synchronize)
        thread.start()
        thread.join()
        reader = Reader(SyntheticCache(1), ["m0"], strict.device())
        assert len(list(reader.batches([np.arange(4), np.arange(4, 8)]))) == 2
    (said,) = watch.problems
    assert said.startswith(threading.__file__) and "waits for an event and has not set its device" in said
