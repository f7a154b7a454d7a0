"""A study with a grid: its part of the report, the tables and the figures."""

import html
import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pytest

from pipeline_src.core import files
from pipeline_src.reports.aggregate import aggregate
from pipeline_src.study.params import Grid
from tests.reports.study import Study


class Gridded(Study):
    """The study's dataset at two levels of sound, with joint training and another method."""

    def __init__(self):
        super().__init__(methods=("joint", "pmr"))
        grid = Grid("av_digits", {"sound": ["noisy", "clear"]}, {(s,): f"av_digits-{s}" for s in ("noisy", "clear")})
        self.params.studied_grids = {grid.name: grid}
        (data,) = self.data
        self.data = [
            replace(data, name=name, cache=Path(f"data/cache/{name}/av-digits-1-0")) for name in grid.datasets.values()
        ]
        self.datasets = {data.name: data for data in self.data}

    @cached_property
    def cells(self):
        every = []
        for data in self.data:
            one = Study(methods=self.params.study.methods)
            one.data = [data]
            every += [replace(cell, data=data, fp=f"{len(every) + i:010x}") for i, cell in enumerate(one.cells)]
        return every


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = Gridded()
    one.write_all()
    return one


def text():
    plain = re.sub(r"<style>.*?</style>", "", Path("results/report.html").read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", plain)).split())


def test_the_report_begins_with_the_grid(study):
    aggregate(study)
    assert len(study.cells) == 8
    drawn = Path("results/figures/heatmaps-av_digits-concat.svg").read_text(encoding="utf-8")
    assert ">noisy<" in drawn and ">clear<" in drawn and drawn.count(">+2.0<") == 2, "a gain on each dataset"
    said = text()
    assert said.index("av_digits: a grid of datasets") < said.index("Where methods gain") < said.index("is prepared by")
    assert "Whether gains grow with the head-room is not tested" in said, "no predictions to make an ensemble of"
    markdown = Path("results/tables/accuracy.md").read_text(encoding="utf-8")
    assert markdown.startswith("## Gains by dataset: av\\_digits") or markdown.startswith(
        "## Gains by dataset: av_digits"
    )
    assert re.search(r"\| concat \| noisy \| +[\d.]+ \| +[\d.]+ \| +[\d.]+ \| +\*?\*?\+2\.0", markdown)
    index = files.read_json(study.index)
    assert "figures/heatmaps-av_digits-concat.svg" in index["files"], "so that MLflow gets it with the others"


def test_a_grid_that_has_just_begun_has_a_report(study):
    for run in study.runs:
        if run.cell.data.name == "av_digits-clear" or run.cell.method == "pmr":
            run.metrics.unlink()
    aggregate(study)
    said = text()
    assert "Figures left out for lack of data: grid_sweeps (needs sweep), heatmaps (needs gains)" in said
    assert "Gains by dataset" in said
