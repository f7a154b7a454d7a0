"""A table of a paper from all studies that are for it: `counterpoise table pmr-2023/table-1`."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from pipeline_src.core.errors import UserError, brief
from pipeline_src.core.registry import closest
from pipeline_src.reports import formats
from pipeline_src.reports.arranged import Found, finder, laid_out
from pipeline_src.reports.papers import Place, items
from pipeline_src.study import config
from pipeline_src.study.naming import study_name
from pipeline_src.study.outputs import STUDY
from pipeline_src.study.shipped import ROOT


def listed() -> str:
    """Every table and figure of the papers, a line each, with its experiments."""
    declared = _declared()
    lines = []
    for name, (_, item) in items().items():
        files = ", ".join(file.stem for file, of in declared.items() if name in of) or "no experiment"
        lines.append(f"{name:34} {item.shows}: {files}")
    return "\n".join(lines)


def shown(name: str) -> str:
    """The table of a paper from the studies that there are, and the commands that make the others.

    Raises UserError, with the closest name, if there is no such table or figure.
    """
    if name not in items():
        raise UserError(
            f"expected a table or figure of a paper, but got {brief(name)}{closest(name, items())};"
            " `counterpoise table` lists them"
        )
    paper, item = items()[name]
    files = [file for file, of in _declared().items() if name in of]
    there = {file: table for file in files if (table := _accuracies(file)).exists()}
    finders = [finder(config.load(file), pd.read_csv(table)) for file, table in there.items()]

    def find(place: Place) -> Found | None:
        found = (one(place) for one in finders)
        return next((row for row in found if row is not None), None)

    parts = [f"{paper.title}, {item.title}: {item.shows}"]
    if item.rows and not item.panels:
        parts = [formats.markdown([laid_out(paper, item, find)]).rstrip()]
    parts += [f"{what}: {figure or 'not drawn'}" for what, figure in item.panels.items()]
    parts += [f"Report: {table.parents[1] / 'report.html'}" for table in there.values()]
    missing = [file for file in files if file not in there]
    if missing:
        parts.append("Not there yet:\n" + "\n".join(f"    snakemake --cores all --config params={f}" for f in missing))
    if not files:
        parts.append(f"No experiment. Missing: {item.lacks or item.unread or 'an experiment'}.")
    return "\n\n".join(parts)


def _declared() -> dict[Path, list[str]]:
    """The shipped experiments, relative to the working directory, and what they are for."""
    files = [Path(os.path.relpath(file)) for file in sorted((ROOT / "experiments").glob("*.yaml"))]
    return {file: of for file in files if (of := config.load(file).reproduces)}


def _accuracies(file: Path) -> Path:
    return Path(STUDY.format(study=study_name(file))) / "tables" / "accuracy.csv"
