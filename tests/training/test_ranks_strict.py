"""One run in several processes on a device that is not the CPU (see `strict`), as far as this can be shown without one:
nothing waits for it within a step. What goes over NCCL on GPUs goes over gloo, as if the host waited for nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from pipeline_src.models import collective
from pipeline_src.models.parts import Place
from pipeline_src.training.interrupt import Stop
from pipeline_src.training.loop import Trainer
from pipeline_src.training.ranks import Ranks, launch
from tests.synthetic import SyntheticCache
from tests.tasks.tasked import SEGMENTS, cache_of
from tests.training import strict
from tests.training.test_ranks import CPU, LOSSES, STATE
from tests.training.test_strict_device import SPLITS, trainer
from tests.training.together import trained

CASES: dict[str, dict[str, Any]] = {
    "joint, streamed": {"resident": False},
    "mmtm": {"fusion": "mmtm", "method": "greedy"},
    "statistics of a batch": {"method": "opm_ogm"},
    "prototypes, streamed": {"method": "pmr", "resident": False, "params": {"per_epochs": 1}},
    "gradients": {"method": "mmpareto", "fusion": "avga"},
    "segments": {"method": "agm", "task": "segments"},
    "teachers": {"method": "umt"},
}


def made(name: str, watch: strict.Watch, place: Place | None) -> Trainer:
    what = {"resident": True, "task": "classification", "precision": "fp32", **CASES[name]}
    segments = SEGMENTS.get(what["task"], 0)
    cache = cache_of(what["task"]) if segments else SyntheticCache(2, splits=SPLITS)
    return trainer(watch, cache, segments=segments, place=place, **what)


@contextmanager
def gloo_behind() -> Iterator[None]:
    """What goes over NCCL on GPUs goes over gloo, from and to the tensors behind those of the device."""

    def bare(x: Tensor) -> Tensor:
        return x.inner if isinstance(x, strict.Strict) else x

    stand_in = SimpleNamespace(
        get_world_size=dist.get_world_size,
        all_gather=lambda found, x: dist.all_gather([bare(one) for one in found], bare(x)),
        all_reduce=lambda x: dist.all_reduce(bare(x)),
        broadcast=lambda x, of: dist.broadcast(bare(x), of),
    )
    before, collective.dist = collective.dist, stand_in
    try:
        yield
    finally:
        collective.dist = before


def every_case(ranks: Ranks, folder: str) -> None:
    """Train every case in these processes; each writes what it gives, and what its device noted."""
    torch.set_num_threads(1)
    results = {}
    for name in CASES:
        with strict.watched() as watch, gloo_behind():
            given = trained(made(name, watch, ranks.place), Ranks(ranks.place, strict.device()))
            results[name] = {key: x.cpu() for key, x in given.items()}, list(watch.problems)
    torch.save(results, Path(folder) / f"{ranks.place.rank}.pt")


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> list[dict]:
    """What each of two processes gives and notes."""
    folder = tmp_path_factory.mktemp("together")
    with Stop() as stop:
        launch("cases", [CPU] * 2, stop, every_case, str(folder))
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_several_processes_give_what_one_gives_and_wait_for_nothing(name, together):
    with strict.watched() as watch:
        one = {key: x.cpu() for key, x in trained(made(name, watch, None)).items()}
    for several, problems in (found[name] for found in together):
        assert not problems, "\n".join(problems)
        assert one.keys() == several.keys()
        for key, value in one.items():
            tolerance = (LOSSES if key == "losses" else STATE) * value.double().abs().max().clamp_min(1e-3)
            assert (several[key].double() - value.double()).abs().max() <= tolerance, key
