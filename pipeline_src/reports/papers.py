"""Tables and figures of the papers (papers.yaml in this folder), and which of their cells a study has.

A params file names those that it reproduces: `reproduces: [pmr-2023/table-1]`. The report of such a study has
published values and ours in the rows and columns of the paper (`arranged`). docs/coverage.md lists all of them
(`benchmarks.coverage`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import BaseModel, ConfigDict

from pipeline_src.datasets.base import datasets
from pipeline_src.study.outputs import NO_FUSION

if TYPE_CHECKING:
    from pipeline_src.study.params import Settings

FILE = Path(__file__).parent / "papers.yaml"


@dataclass(frozen=True)
class Place:
    """What a row and a column of a published table select: a cell of a study that has it, and a published value."""

    dataset: str  # kind
    fusion: str
    method: str  # as the study names it
    optimizer: str = ""  # empty: any
    printed: str = ""  # the fusion of the published value, if ours is another
    modality: str = ""  # whose score inside the model it is; empty: the fused model's


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Item(_Strict):
    """A table or a figure of a paper. papers.yaml says what the fields are."""

    title: str
    shows: str
    columns: dict[str, dict[str, str]] = {}
    rows: dict[str, dict[str, str]] = {}
    metric: str = "accuracy"
    table: str | None = None
    unread: str = ""
    lacks: str = ""
    remark: str = ""
    panels: dict[str, str] = {}
    observers: list[str] = []
    schematic: bool = False

    def place(self, row: str, column: str) -> Place:
        """What a row and a column select."""
        given = self.columns[column] | self.rows[row]
        words = {key: value.format_map(given) for key, value in given.items()}
        return Place(**{key: value for key, value in words.items() if key in Place.__annotations__})

    def places(self) -> Iterator[Place]:
        """Of every row and column."""
        for row in self.rows:
            for column in self.columns:
                yield self.place(row, column)

    @property
    def named(self) -> str:
        """Its name in published.csv."""
        return self.title if self.table is None else self.table


class Paper(_Strict):
    """A paper, and its tables and figures by name."""

    title: str
    source: str  # in published.csv
    items: dict[str, Item]


@cache
def papers() -> dict[str, Paper]:
    """papers.yaml."""
    return {name: Paper(**of) for name, of in yaml.safe_load(FILE.read_text(encoding="utf-8")).items()}


@cache
def items() -> dict[str, tuple[Paper, Item]]:
    """Every table and figure by the name that `reproduces` has: pmr-2023/table-1."""
    return {f"{name}/{key}": (paper, item) for name, paper in papers().items() for key, item in paper.items.items()}


@dataclass(frozen=True)
class Own:
    """A cell of a study, by its names in the study's tables."""

    dataset: str
    fusion: str
    method: str


def cells(params: Settings) -> dict[Place, Own]:
    """Every cell of a study by its place, once with its optimizer and once without. Of several that differ in what no
    place says, the first counts.
    """
    study = params.study
    found: dict[Place, Own] = {}
    for name in study.datasets:
        block = params.datasets[name]
        alone = [f"{m}-only" for m in datasets[block.kind](block).modalities] if study.unimodal else []
        pairs = [(NO_FUSION, method) for method in alone]
        pairs += [(fusion, method) for fusion in study.fusions for method in study.methods]
        for fusion, method in pairs:
            for optimizer in (params.training_of(name).optimizer, ""):
                found.setdefault(Place(block.kind, fusion, method, optimizer), Own(name, fusion, method))
    return found


def own(place: Place, of: dict[Place, Own]) -> Own | None:
    """The cell of a study (`cells`) at a place; None if it has none."""
    return of.get(Place(place.dataset, place.fusion, place.method, place.optimizer))
