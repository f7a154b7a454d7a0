"""docs/coverage.md is in step with the experiments, and says of every item what is missing."""

from pathlib import Path

import pytest

from benchmarks.coverage import NO, NOTHING, PARTLY, YES, coverage, judged, named
from pipeline_src.reports.papers import Item, papers
from pipeline_src.study import config

ROOT = Path(__file__).parents[2]


def test_the_page_is_in_step():
    same = (ROOT / "docs/coverage.md").read_text(encoding="utf-8") == coverage()
    assert same, "run: python -m benchmarks coverage > docs/coverage.md"


@pytest.fixture(scope="module")
def fusions():
    """Table 1 of PMR on CREMA-D: ten of its 30 cells."""
    return config.load(ROOT / "experiments/pmr-2023-cremad-fusions.yaml")


def changed(item: Item, **fields) -> Item:
    return item.model_copy(update=fields)


def test_an_item_is_judged_by_its_cells_and_panels(fusions):
    table = papers()["pmr-2023"].items["table-1"]
    assert judged(table, []) == (NO, "No experiment")
    assert judged(table, [fusions]) == (PARTLY, "Cells missing: AVE, CG-MNIST (20 of 30)")
    own = changed(table, columns={"CREMA-D": table.columns["CREMA-D"]})
    assert judged(own, [fusions]) == (YES, "")
    assert judged(changed(own, remark="the rest"), [fusions]) == (YES, "The rest")
    assert judged(changed(own, unread="its values"), [fusions]) == (PARTLY, "Not known: its values")
    assert judged(changed(own, lacks="a model"), [fusions]) == (PARTLY, "Missing: a model")
    assert judged(changed(own, panels={"scores": "scoers"}), [fusions]) == (PARTLY, "Not drawn: scores")
    assert judged(changed(own, panels={"curves": "learning"}), [fusions]) == (YES, "")
    assert judged(changed(own, schematic=True), []) == (NOTHING, "")


def test_missing_cells_are_named_by_column_and_row():
    item = Item(title="t", shows="s", columns={c: {} for c in "abc"}, rows={r: {} for r in "1234567"})
    assert named(item, [(r, "c") for r in "1234567"]) == "c (7 of 21)"
    assert named(item, [(r, "c") for r in "1234567"] + [("1", "a"), ("1", "b"), ("2", "b")]) == "c, 1, 2 (b) (10 of 21)"
    assert named(item, [(r, "a") for r in "123456"]).endswith("4 (a) and 2 more (6 of 21)")
