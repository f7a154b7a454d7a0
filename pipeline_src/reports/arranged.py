"""Published values and ours in the arrangement of the paper: its rows, its columns, and in each row what is published,
what was found here, and what was found here by the papers' rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from pipeline_src.reports.papers import Item, Paper, Place, cells, items, own
from pipeline_src.reports.published import values
from pipeline_src.reports.scores import primary_of, read
from pipeline_src.reports.tables import Entry, Table, entry
from pipeline_src.reports.wording import NONE

if TYPE_CHECKING:
    from pipeline_src.study.params import Settings

BEST = "here, best test epoch"
WHICH = ("published", "here", BEST)


def arranged(params: Settings, table: pd.DataFrame) -> list[Table]:
    """A table for every table of a paper that the study declares to reproduce; `table` is the accuracy table."""
    seeds, made = len(params.study.seeds), []
    of = cells(params) if params.reproduces else {}
    rows = {(row["dataset"], row["fusion"], row["method"]): row for _, row in table.iterrows()}
    for name in params.reproduces:
        paper, item = items()[name]
        if not item.rows or item.panels:
            continue
        shown = []
        for row in item.rows:
            places = [item.place(row, column) for column in item.columns]
            for which in WHICH:
                entries = []
                for place in places:
                    cell = own(place, of)
                    found = rows.get((cell.dataset, cell.fusion, cell.method)) if cell else None
                    if which == "published":
                        entries.append(Entry(printed(paper, item, place)))
                    elif found is None:
                        entries.append(Entry(NONE))
                    else:
                        one = primary_of(found)
                        score = one.best if which == BEST else one.score
                        entries.append(entry(read(found, score), seeds, unit=one.metric.unit))
                if which != BEST or any(each.value != NONE for each in entries):
                    shown.append([Entry(row), Entry(which), *entries])
        made.append(Table(f"{paper.title}, {item.title}", _caption(item), ["row", "value", *item.columns], shown, 2))
    return made


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
        & (known.modality == "")
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
