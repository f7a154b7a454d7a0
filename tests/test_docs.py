"""The examples of plug-ins in docs/ run; that of a method learns, and is joint training where it says so."""

import re
from pathlib import Path

import torch

from pipeline_src.corruptions.base import corruptions
from pipeline_src.methods.base import methods
from pipeline_src.observers.base import SECONDS, observers
from pipeline_src.training.observe import Observers
from tests.methods.test_abilities import trainer

PAGE = Path(__file__).parent.parent / "docs" / "methods-how-to.md"


def test_the_example_of_a_method_runs():
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    exec(compile(code, str(PAGE), "exec"), {"__name__": "example"})
    plugin = methods["weighted"]
    run, neutral, joint = trainer("weighted"), trainer("weighted", params={"weight": 0.0}), trainer("joint")
    row = run.epoch(0)
    logged = {name.partition("/")[0] for name in row if "/" in name}
    assert logged == {quantity.name for quantity in plugin.quantities}
    assert 0 < row["behind/m0"] < 1
    neutral.epoch(0), joint.epoch(0)
    for ours, theirs in zip(neutral.model.parameters(), joint.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not all(torch.equal(a, b) for a, b in zip(run.model.parameters(), joint.model.parameters(), strict=True))


def example(page: str) -> None:
    """Run the Python code of a page, which registers a plug-in."""
    code = re.search(r"```python\n(.*?)```", (PAGE.parent / page).read_text(encoding="utf-8"), re.DOTALL)[1]
    exec(compile(code, page, "exec"), {"__name__": "example"})


def test_the_example_of_an_observer_runs():
    example("observers.md")
    run = trainer("joint")
    seeing = Observers(run)
    seeing.every = {"norms": observers["norms"](observers["norms"].Params())}
    (quantity,) = observers["norms"].quantities
    assert seeing.observe(0).keys() == {f"{quantity.name}/{m}" for m in run.model.modalities} | {SECONDS.name}


def test_the_example_of_a_corruption_runs():
    example("robustness.md")
    x = torch.ones(2, 1, 3, 4, 4)
    dimmed = corruptions["dimmed"]()
    assert torch.equal(dimmed(x, "frames", 0.25, torch.ones(1), torch.Generator()), 0.75 * x)
    assert dimmed.layouts == ("frames",) and dimmed.caption
