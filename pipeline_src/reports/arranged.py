"""Published values and ours in the arrangement of the paper: its rows, its columns, and in each row what is published,
what was found here, and what was found here by the papers' rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd

from pipeline_src.reports.papers import Item, Paper, Place, cells, items, own
from pipeline_src.reports.published import values
from pipeline_src.reports.scores import primary_of, read
from pipeline_src.reports.tables import Entry, Table, entry
from pipeline_src.reports.wording import NONE

if TYPE_CHECKING:
    from pipeline_src.study.params import Settings

Found = tuple[pd.Series, int]  # a row of the accuracy table, and the number of the study's seeds
Find = Callable[[Place], Found | None]


def arranged(params: Settings, table: pd.DataFrame) -> list[Table]:
    """A table for every table of a paper that the study declares to reproduce; `table` is the accuracy table."""
    declared = [items()[name] for name in params.reproduces]
    find = finder(params, table) if declared else None
    return [laid_out(paper, item, find) for paper, item in declared if find and item.rows and not item.panels]


def laid_out(paper: Paper, item: Item, find: Find) -> Table:
    """The table of a paper: what is published, and what is found."""
    rows = []
    for row in item.rows:
        places = [item.place(row, column) for column in item.columns]
        ours = [_ours(find(place), place.modality) for place in places]
        rows.append([Entry(row), Entry("published"), *(Entry(printed(paper, item, place)) for place in places)])
        rows.append([Entry(row), Entry("here"), *(score for score, _ in ours)])
        if any(best.value != NONE for _, best in ours):
            rows.append([Entry(row), Entry("here, best test epoch"), *(best for _, best in ours)])
    return Table(f"{paper.title}, {item.title}", _caption(item), ["row", "value", *item.columns], rows, 2)


def finder(params: Settings, table: pd.DataFrame) -> Find:
    """Finds the cells of a study by their places; `table` is its accuracy table."""
    of, seeds = cells(params), len(params.study.seeds)
    rows = {(row["dataset"], row["fusion"], row["method"]): row for _, row in table.iterrows()}

    def find(place: Place) -> Found | None:
        cell = own(place, of)
        row = rows.get((cell.dataset, cell.fusion, cell.method)) if cell else None
        return None if row is None else (row, seeds)

    return find


def _ours(found: Found | None, modality: str) -> tuple[Entry, Entry]:
    """The score at a place, and that by the papers' rule; of a modality, its probe, which has no such rule."""
    if found is None:
        return Entry(NONE), Entry(NONE)
    row, seeds = found
    primary = primary_of(row)
    kinds = (f"{modality}/{primary.view('probe')}",) if modality else (primary.score, primary.best)
    score, *best = (entry(read(row, what), seeds, unit=primary.metric.unit) for what in kinds)
    return score, best[0] if best else Entry(NONE)


def panels(params: Settings) -> list[str]:
    """A sentence for every figure of a paper that the study declares to reproduce: which of the report's draws what."""
    said = []
    for name in params.reproduces:
        paper, item = items()[name]
        drawn = "; ".join(f"{what}: {figure or 'not drawn'}" for what, figure in item.panels.items())
        if drawn:
            said.append(f"{paper.title}, {item.title}. {drawn}.")
    return said


def printed(paper: Paper, item: Item, place: Place) -> str:
    """The published value at a place, in percent; several if the source gives several."""
    known = values()
    rows = known[
        (known.source == paper.source)
        & known.table.map(lambda shown: item.named in shown.split("; "))
        & (known.dataset == place.dataset)
        & (known.fusion == (place.printed or place.fusion))
        & (known.method == place.method)
        & (known.metric == item.metric)
        & (known.modality == place.modality)
    ]
    if place.optimizer:
        rows = rows[rows.optimizer == place.optimizer]
    return " / ".join(f"{value:.1f}" for value in dict.fromkeys(rows.percent)) or NONE


def _caption(item: Item) -> str:
    parts = [
        f"{item.shows[0].upper()}{item.shows[1:]}; {item.metric.replace('_', ' ')} on test in percent.",
        "Published: a single number, mostly of one run at its best test epoch. Here: the epoch selected on val;"
        " best test epoch: by the papers' rule.",
        f"Not known of the published table: {item.unread}." if item.unread else "",
        f"What differs: {item.remark}." if item.remark else "",
        f"{NONE}: not published, or not in this study.",
    ]
    return " ".join(filter(None, parts))
