"""Every method with every task that it takes: finite, and exact when it goes on; others are refused before a run."""

import pytest
import torch

from pipeline_src.methods.base import methods
from pipeline_src.tasks.base import tasks
from tests.tasks.tasked import refused, trainer

FUSIONS = ("concat", "sum", "shared", "mmtm")
TASKS = [task for task in tasks if task != "classification"]


def fusion_of(task: str, method: str) -> str | None:
    """The first fusion with which the method takes the task."""
    return next((fusion for fusion in FUSIONS if refused(task, method, fusion) is None), None)


CASES = [(task, method) for task in TASKS for method in methods if fusion_of(task, method)]


@pytest.mark.parametrize(("task", "method"), CASES)
def test_a_method_trains_the_task_and_goes_on_exactly(task, method):
    fusion = fusion_of(task, method)
    whole = trainer(task, method, fusion, epochs=2)
    rows = [whole.epoch(epoch) for epoch in range(2)]
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in rows)
    assert all(torch.isfinite(p).all() for p in whole.model.parameters())
    assert f"val_{tasks[task].metrics[0].name}/m0" in whole.score("val")
    begun = trainer(task, method, fusion, epochs=2)
    begun.epoch(0)
    with pytest.raises(StopIteration):
        begun.epoch(1, iter([None]).__next__)
    resumed = trainer(task, method, fusion, epochs=2)
    tensors, position = begun.snapshot()
    resumed.restore({name: value.clone() for name, value in tensors.items()}, position)
    resumed.epoch(1)
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("task", TASKS)
def test_what_is_refused_is_refused_for_the_task(task):
    """A method that takes classification with a fusion refuses another task for what the task lacks, and says so."""
    for method in methods:
        for fusion in FUSIONS:
            if refused("classification", method, fusion) is None and (why := refused(task, method, fusion)) is not None:
                assert why.startswith("expected ") and f"but got {task}" in why, (method, why)


def test_methods_of_the_first_papers_take_segments():
    assert {"ogm", "ogm_ge", "opm", "opm_ogm", "pmr", "relearning"} <= {m for task, m in CASES if task == "segments"}
    assert {"ogm", "ogm_ge", "opm", "opm_ogm"} <= {m for task, m in CASES if task == "regression"}
