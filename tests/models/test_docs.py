"""docs/models.md lists the encoders and fusions that there are, with their facts."""

import re
from pathlib import Path

from pipeline_src.models.base import FusionFacts, encoders, fusion_facts, fusions
from tests.models.test_encoders import SMALL

PAGE = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")


def table(first: str) -> dict[str, list[str]]:
    """Rows of the table whose header begins with `first`: name -> the other cells."""
    lines = PAGE[PAGE.index(f"| {first} |") :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_every_encoder_is_listed_with_what_it_reads_and_its_taps():
    rows = table("kind")
    assert list(rows) == list(encoders)
    for kind, (layouts, features, taps) in rows.items():
        plugin = encoders[kind]
        assert layouts.split(", ") == list(plugin.layouts)
        assert set(re.findall(r"`(\w+)`", features)) <= set(plugin.Params.model_fields)
        built = list(plugin.taps(plugin.Params(**SMALL.get(kind, {"folder": "saved"}))))
        listed = re.findall(r"`(\w+)`", taps)
        assert listed[: len(built)] == built
        assert "one per" in taps or listed == built


def test_every_fusion_is_listed_with_its_facts():
    rows = table("name")
    assert list(rows) == list(fusions)
    for name, (_, unimodal, taps) in rows.items():
        facts = fusion_facts(name)
        assert unimodal == facts.unimodal_by(), name
        assert taps == (str(facts.taps) if facts.taps else "-"), name


def test_every_fusion_has_a_picture():
    drawn = PAGE[PAGE.index("## Pictures") : PAGE.index("## Add an")]
    captions = [part.strip().splitlines()[-1] for part in drawn.split("```text")[:-1]]
    assert {name for line in captions for name in re.findall(r"`(\w+)`", line)} == set(fusions)
    assert len(captions) == drawn.count("```") // 2


def test_every_fact_is_named():
    assert {f"`{fact}`" for fact in FusionFacts.__annotations__} <= set(re.findall(r"`\w+`", PAGE))
