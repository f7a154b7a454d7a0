"""`python -m benchmarks coverage > docs/coverage.md`: every table and figure of the papers, with what reproduces it.

It is made from pipeline_src/reports/papers.yaml and from the files in experiments/, each of which declares by
`reproduces` what it stands beside.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

from pipeline_src.core.errors import listed
from pipeline_src.reports.figures.registry import figures
from pipeline_src.reports.papers import Item, Own, Paper, Place, cells, own, papers
from pipeline_src.study import config
from pipeline_src.study.params import Settings

ROOT = Path(__file__).parents[1]
YES, PARTLY, NO, NOTHING = "yes", "partly", "no", "no data"
SHOWN = 4  # missing cells that are named

HEAD = """# Tables and figures of the papers

`python -m benchmarks coverage > docs/coverage.md` writes this file from `pipeline_src/reports/papers.yaml` and the
experiments. Do not edit it. An experiment names in `reproduces` the tables and figures that it is for; its report has
published values and ours in their rows and columns.

- yes: the experiments have every cell of the table, or draw every panel of the figure. Several files share their runs.
- partly: some of it is missing, or is not known because the paper itself could not be read. The last column says what.
- no: no experiment. The last column says what is missing.

None of the experiments on published data has been run here, for want of the data. What differs from a paper's protocol
is at the top of each file: the epoch is selected on val, no test sample is dropped, and there are several seeds.
"""


@cache
def studies() -> dict[str, Settings]:
    """The experiments that declare what they reproduce, by the name of their file."""
    files = sorted((ROOT / "experiments").glob("*.yaml"))
    return {file.stem: params for file in files if (params := config.load(file)).reproduces}


def coverage() -> str:
    """docs/coverage.md."""
    parts, counts = [HEAD], {}
    for name, paper in papers().items():
        lines = ["| item | shows | experiments | status | why |", "|---|---|---|---|---|"]
        count: Counter[str] = Counter()
        for key, item in paper.items.items():
            files = declaring(f"{name}/{key}")
            status, why = judged(item, [studies()[file] for file in files])
            count[status] += 1
            where = ", ".join(f"[{file}](../experiments/{file}.yaml)" for file in files)
            lines.append(f"| {item.title} | {item.shows} | {where} | {status} | {why} |".replace("|  |", "| |"))
        counts[name] = count
        parts.append("\n".join([f"## {paper.title}", "", *lines, ""]))
    return "\n".join([parts[0], summary(counts), *parts[1:]])


def summary(counts: dict[str, Counter[str]]) -> str:
    """How many items of each paper have which status."""
    lines = [f"| paper | {YES} | {PARTLY} | {NO} | {NOTHING} |", "|---|---|---|---|---|"]
    for name, paper in papers().items():
        numbers = " | ".join(str(counts[name][status]) for status in (YES, PARTLY, NO, NOTHING))
        lines.append(f"| {short(paper)} | {numbers} |")
    return "\n".join([*lines, ""])


def short(paper: Paper) -> str:
    """The name of a paper before its authors."""
    return paper.title.partition(":")[0].partition(" (")[0]


def declaring(name: str) -> list[str]:
    """The experiments that declare a table or figure."""
    return [file for file, params in studies().items() if name in params.reproduces]


def judged(item: Item, of: list[Settings]) -> tuple[str, str]:
    """The status of an item that these studies declare, and why it is not more; a remark of what differs follows."""
    if item.schematic:
        return NOTHING, ""
    missing = lacking(item, of)
    reasons = [f"missing: {item.lacks}"] if item.lacks else []
    if of and missing:
        reasons.append(f"cells missing: {named(item, missing)}")
    if undrawn := [what for what, figure in item.panels.items() if figure not in figures]:
        reasons.append(f"not drawn: {'; '.join(undrawn)}")
    if of and item.observers:
        unseen = [one for one in item.observers if not any(one in params.observers for params in of)]
        reasons += [f"not observed: {listed(unseen)}"] if unseen else []
    if item.unread:
        reasons.append(f"not known: {item.unread}")
    status = NO if not of else PARTLY if reasons else YES
    if not of and not item.lacks:
        reasons.insert(0, "no experiment")
    if item.remark:
        reasons.append(item.remark)
    return status, ". ".join(f"{reason[0].upper()}{reason[1:]}" for reason in reasons)


def lacking(item: Item, of: list[Settings]) -> list[tuple[str, str]]:
    """Rows and columns of which none of the studies has the cell."""
    there: dict[Place, Own] = {}
    for params in of:
        there |= cells(params)
    return [(r, c) for r in item.rows for c in item.columns if own(item.place(r, c), there) is None]


def named(item: Item, missing: list[tuple[str, str]]) -> str:
    """Missing cells in words: whole columns and rows by their name."""
    lost = Counter(column for _, column in missing)
    whole = [column for column in item.columns if lost[column] == len(item.rows)]
    rest = [cell for cell in missing if cell[1] not in whole]
    by_row = Counter(row for row, _ in rest)
    left = len(item.columns) - len(whole)
    rows = [row for row in by_row if by_row[row] == left]
    words = [*whole, *rows, *(f"{row} ({column})" for row, column in rest if row not in rows)]
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return f"{', '.join(words[:SHOWN])}{more} ({len(missing)} of {len(item.rows) * len(item.columns)})"
