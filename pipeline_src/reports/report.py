"""The HTML report: one file that needs nothing else, with the answer, the tables, the figures and the provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline_src.core import files
from pipeline_src.core.errors import UserError, listed
from pipeline_src.features import QUARANTINE_FILE, fix, read_info
from pipeline_src.reports import arranged, convergence, declared, headroom, provenance, robustness, tuning, wording
from pipeline_src.reports.answer import answers, comparisons
from pipeline_src.reports.figures import base, drawing
from pipeline_src.reports.grids import GridResults, gains_table
from pipeline_src.reports.page import environment
from pipeline_src.reports.published import side_by_side
from pipeline_src.reports.results import Results
from pipeline_src.reports.scores import Ended
from pipeline_src.reports.tables import Entry, Table, ended_table, tables
from pipeline_src.study.outputs import TRIAL

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Data
    from pipeline_src.study.plan import Plan

TEMPLATE = "report.html.j2"
QUARANTINE_ROWS = 50  # shown; the rest is counted
RUN_ROWS = 1000  # shown; the index names all


@dataclass(frozen=True)
class Section:
    """What the report has of one dataset besides its data: tables, and figures by place."""

    results: Results
    tables: list[Table]
    drawings: dict[str, list[drawing.Shown]]
    undrawn: list[str]  # why a figure is left out
    published: Table | None
    points: list[str] = field(default_factory=list)  # what equal tuning says

    @property
    def figures(self) -> list[drawing.Shown]:
        return [shown for place in self.drawings.values() for shown in place]


@dataclass(frozen=True)
class GridSection:
    """What the report has of one grid of datasets."""

    name: str
    headline: str
    tables: list[Table]
    figures: list[drawing.Shown]
    undrawn: list[str]  # why a figure is left out


def grid_sections(grids: list[GridResults]) -> list[GridSection]:
    """Tables and figures of every grid of the study."""
    made = []
    for grid in grids:
        found = headroom.associations(grid)
        drawings, undrawn = _drawn(grid, (base.GRID,))
        shown = [gains_table(grid), *([headroom.table(grid, found)] if found else [])]
        headline = headroom.headline(found, grid.confidence)
        made.append(GridSection(grid.name, headline, shown, drawings[base.GRID], undrawn))
    return made


def sections(
    plan: Plan,
    every: list[Results],
    table: pd.DataFrame,
    extensions: dict,
    ended: Mapping[tuple, Ended],
    tuned: tuning.Tuning | None = None,
) -> list[Section]:
    """Tables and figures, dataset by dataset; `table` is the accuracy table with all of its columns."""
    made, seeds = [], len(plan.params.study.seeds)
    for results, data in zip(every, plan.datasets.values(), strict=True):
        rows = table[(table.dataset == results.name) & (table.recipe == results.recipe)]
        drawings, undrawn = _drawn(results)
        shown = tables(rows, seeds, results.confidence, extensions, declared.metrics(data), _covered(plan, data))
        converged = convergence.tables(results, plan.params.reporting.convergence)
        without = ended_table(results.name, results.recipe, ended)
        beside = side_by_side(results.name, results.recipe, results.published.same, rows, seeds)
        more, points = tuning.said(tuned, rows, seeds, results.confidence) if tuned else ([], [])
        shown = [_linked(each, plan, data) for each in [*shown, *robustness.tables(results), *converged]]
        every_table = [*shown[:1], *more, *shown[1:], *([without] if without else [])]
        made.append(Section(results, every_table, drawings, undrawn, beside, points))
    return made


def _linked(table: Table, plan: Plan, data: Data) -> Table:
    """The table, whose methods link to the folder of their runs where all of them have one."""
    folders: dict[tuple[str, str], set[str]] = {}
    for cell in plan.cells:
        if cell.data.name == data.name and not cell.role and cell.folder.exists():
            folders.setdefault((cell.fusion, cell.method), set()).add(cell.folder.as_posix())
    rows = []
    for row in table.rows:
        of = folders.get((row[0].value, row[1].value.removesuffix(f" {wording.MARK}")), set())
        rows.append([row[0], replace(row[1], folder=min(of)) if len(of) == 1 else row[1], *row[2:]])
    return replace(table, rows=rows)


def _drawn(
    results: Results | GridResults, places: tuple[str, ...] = base.PLACES
) -> tuple[dict[str, list[drawing.Shown]], list[str]]:
    """Every registered figure of the places whose needs are met, by place, and why the others are left out."""
    drawings: dict[str, list[drawing.Shown]] = {}
    undrawn, names = [], set()
    for place in places:
        drawings[place] = []
        for name, draw, needs in base.registered(place):
            if lacking := [need for need in needs if need not in results.offers]:
                undrawn.append(f"{name} (needs {listed(lacking)})")
                continue
            for i, made in enumerate(draw(results)):
                if made.name in names:
                    raise UserError(
                        f"figure {name!r}: expected a drawing with a name of its own, but got {made.name!r} twice; "
                        f"rename it in {base.figures.module(name)}"
                    )
                names.add(made.name)
                drawings[place].append(drawing.shown(made, folded=i > 0))
    return drawings, undrawn


def render(
    plan: Plan,
    table: pd.DataFrame,
    made: list[Section],
    grids: list[GridSection],
    records: dict,
    ended: Mapping[tuple, Ended],
    laid_out: Sequence[Table] = (),
) -> str:
    """The report as one HTML text.

    `plan` is the plan, `table` its accuracy table, `made` the sections made from it, `grids` those of its grids,
    `records` the record.json (a dict) of every complete run by (dataset, recipe, fusion, method, seed), `ended` the
    runs that ended without scores, by the same, `laid_out` the tables in the arrangement of papers. The same inputs
    give the same text: it has no date of its own.
    """
    study, confidence = plan.params.study, plan.params.reporting.confidence
    seeds, runs = len(study.seeds), [run for run in plan.runs if run.cell.role != TRIAL]
    data = []
    for one, section, answer in zip(plan.datasets.values(), made, answers(table, seeds, confidence), strict=True):
        rows = table[(table.dataset == one.name) & (table.recipe == one.recipe)]
        compared = comparisons(rows, seeds, confidence)
        significant = sum(row[3].strong for row in compared.rows)
        data.append(
            {
                **_data(plan.named(one.name)),
                "answer": answer,
                "covered": _covered(plan, one),
                "section": section,
                "comparisons": compared,
                "significant": significant,
            }
        )
    return (
        environment(plan.results)
        .get_template(TEMPLATE)
        .render(
            plan=plan,
            study=study,
            seeds=seeds,
            schedule=plan.params.training,
            confidence=wording.level(confidence),
            complete=len(records) == len(runs),
            done=len(records),
            data=data,
            grids=grids,
            laid_out=laid_out,
            panels=arranged.panels(plan.params),
            ends=_ends(ended),
            stages=provenance.stages_table(provenance.benchmarks(provenance.addresses(plan))),
            costs=provenance.cost_table(plan.rows, records),
            mixture=provenance.mixture(plan.rows, *tuning.halves(records)),
            command=command(plan.file),
            runs=provenance.runs_table(runs[:RUN_ROWS], records, ended),
            count=len(runs),
            caches=provenance.distinct(
                records, lambda r: {"dataset": r["dataset"], "recipe": r["recipe"], **r["cache"]}
            ),
            machines=provenance.distinct(records, lambda r: r["machine"]),
            versions=provenance.distinct(records, lambda r: r["versions"]),
        )
    )


def _covered(plan: Plan, data: Data) -> str:
    return wording.covered(plan.params.study.vary, data.dataset.shared)


def _ends(ended: Mapping[tuple, Ended]) -> str:
    """`; 2 diverged, 1 failed`, or nothing."""
    counts = Counter(how.state for how in ended.values())
    return f"; {', '.join(f'{count} {state}' for state, count in counts.items())}" if counts else ""


def command(params: Path) -> str:
    """What a user types to have this study made."""
    return "snakemake --cores all" + (f" --config params={params}" if str(params) != "params.yaml" else "")


def _data(every: list[Data]) -> dict[str, Any]:
    """A dataset's samples by split, as they differ between its draws, and its quarantine; empty where no cache is."""
    data, tables = every[0], [one.cache / QUARANTINE_FILE for one in every]
    counts = [read_info(one.cache)["splits"] for one in every if one.cache_file.exists()]
    bad = [files.read_table(table, fix(table)) for table in tables if table.exists()]
    quarantined = pd.concat(bad).drop_duplicates() if len(bad) == len(tables) else None
    splits = {split: [of.get(split, 0) for of in counts] for split in ("train", "val", "test")}
    return {
        "name": data.name,
        "recipe": data.recipe,
        "classes": len(data.dataset.classes),
        "modalities": list(data.extractors),
        "splits": {
            split: " to ".join(map(wording.number, sorted({min(n), max(n)}))) for split, n in splits.items() if any(n)
        },
        "draws": len(every),
        "cut": data.dataset.cut,
        "known": quarantined is not None,
        "bad": 0 if quarantined is None else len(quarantined),
        "reasons": None if quarantined is None else _reasons(quarantined),
        "quarantine": None if quarantined is None else _quarantine(quarantined),
    }


def _reasons(bad: pd.DataFrame) -> Table:
    rows = [[Entry(reason), Entry(wording.number(count))] for reason, count in bad.reason.value_counts().items()]
    return Table("Reasons of the quarantine", "", ["reason", "samples"], rows, 1)


def _quarantine(bad: pd.DataFrame) -> Table:
    columns = ["id", "modality", "file", "reason", "stage"]
    rows = [[Entry(str(value)) for value in row] for row in bad[columns].head(QUARANTINE_ROWS).itertuples(index=False)]
    return Table("Quarantined samples", "", ["sample", *columns[1:]], rows, len(columns))
