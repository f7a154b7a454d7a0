"""The example of docs/methods-how-to.md runs, learns, and is joint training where it says so."""

import re
from pathlib import Path

import torch

from pipeline_src.methods.base import methods
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
