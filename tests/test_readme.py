"""The README fits one screen after another, and names every method and fusion."""

from pathlib import Path

from pipeline_src.methods.base import methods
from pipeline_src.models.base import fusions

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_readme_names_every_method_and_fusion():
    assert [name for name in [*methods, *fusions] if f"`{name}`" not in README] == []


def test_the_readme_is_at_most_150_lines():
    assert len(README.splitlines()) <= 150
