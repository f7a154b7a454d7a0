"""Where the results come from: time by stage, cost of training, machines and versions."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline_src.core.fingerprint import HEX
from pipeline_src.reports.scores import BASELINE, CELL, Ended
from pipeline_src.reports.tables import Entry, Table
from pipeline_src.reports.wording import NONE, clock, number, percent, plural, words

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Cell, Run
    from pipeline_src.study.plan import Plan

COSTS = ("seconds", "fixed_seconds", "forwards", "backwards", "peak_memory_mb")
# Of a record's machine and versions, what cannot change the last digits of a result, or is in its address.
HARMLESS = {"host", "system", "cores", "slurm_job", "counterpoise", "git"}

Records = dict[tuple, dict[str, Any]]  # record.json by (dataset, recipe, fusion, method, seed)


def addresses(plan: Plan) -> set[str]:
    """Fingerprints of all that the plan names, as they are in paths."""
    paths = [path for data in plan.data for path in (data.raw, data.manifest, data.cache)]
    return {str(path).rpartition("-")[2] for path in [*paths, *(cell.folder for cell in plan.cells)]}


def benchmarks(addresses: set[str], folder: Path = Path("logs")) -> pd.DataFrame:
    """Where the time went, by stage (the first folder below `folder`), longest first, from the jobs' benchmark files.

    Only files with one of `addresses` (fingerprints) in their path count: others are of earlier parameters or studies.
    Columns: stage, jobs, seconds (wall clock, summed), fraction (of all seconds), cpu_seconds (summed), max_rss (MB, of
    the largest job). A file without numbers, as a killed job leaves it, counts as a job only. The aggregate stage is
    left out: its file is written after the report.
    """
    rows = []
    for file in sorted(folder.glob("*/**/*.tsv")):
        if not addresses & set(re.findall(HEX, str(file.relative_to(folder)))):
            continue
        try:
            table = pd.read_csv(file, sep="\t", na_values=["-", "NA"])
        except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError):
            table = pd.DataFrame()
        columns = {
            name: pd.to_numeric(table.get(name, pd.Series(dtype=float)), errors="coerce")
            for name in ("s", "cpu_time", "max_rss")
        }
        rows.append(
            {
                "stage": file.relative_to(folder).parts[0],
                "seconds": columns["s"].sum(),
                "cpu_seconds": columns["cpu_time"].sum(),
                "max_rss": columns["max_rss"].max(),
            }
        )
    if not rows:
        return pd.DataFrame(columns=["stage", "jobs", "seconds", "fraction", "cpu_seconds", "max_rss"])
    stages = (
        pd.DataFrame(rows)
        .groupby("stage", as_index=False)
        .agg(
            jobs=("seconds", "size"),
            seconds=("seconds", "sum"),
            cpu_seconds=("cpu_seconds", "sum"),
            max_rss=("max_rss", "max"),
        )
        .sort_values("seconds", ascending=False, ignore_index=True, kind="stable")
    )
    stages.insert(3, "fraction", stages.seconds / stages.seconds.sum() if stages.seconds.sum() else 0.0)
    return stages


def costs(cells: Iterable[Cell], records: Records) -> list[dict[str, Any]]:
    """What training cost per cell: the mean over its complete runs of each of COSTS, and how many runs that is."""
    rows = []
    for cell in cells:
        names = tuple(cell.names[name] for name in CELL)
        runs = [record for key, record in records.items() if key[:-1] == names]
        values = pd.DataFrame(
            [{name: record.get(name) for name in COSTS} for record in runs], columns=COSTS, dtype=float
        )
        rows.append({**cell.names, "runs": len(runs), **values.mean().to_dict()})
    return rows


def distinct(records: Records, what: Callable[[dict], dict]) -> list[tuple[dict, int]]:
    """The distinct values of `what` of the records, and how many runs have each."""
    values: list[tuple[dict, int]] = []
    for record in records.values():
        value = what(record)
        for i, (earlier, count) in enumerate(values):
            if earlier == value:
                values[i] = (earlier, count + 1)
                break
        else:
            values.append((value, 1))
    return values


def pairs(cells: Iterable[Cell], records: Records) -> Iterator[tuple[dict, dict]]:
    """The records of runs that are compared, seed by seed: a fused model's and BASELINE's with the same fusion, and a
    fused model's and those of each modality alone.
    """
    cells = list(cells)
    alone = [cell for cell in cells if len(cell.spec.modalities) == 1]
    names = [tuple(cell.names[name] for name in CELL) for cell in alone]
    for key, record in records.items():
        *cell, seed = key
        if tuple(cell) in names:
            continue
        others = [(*cell[:3], BASELINE, seed), *((*other, seed) for other in names if other[:2] == tuple(cell[:2]))]
        yield from ((record, records[other]) for other in others if other in records and other != key)


def mixture(cells: Iterable[Cell], *records: Records) -> str:
    """A sentence on how many compared pairs of runs differ in processor, instruction set, GPU or versions, and in what;
    empty where nothing is compared.
    """
    total, mixed, reasons = 0, 0, Counter()
    cells = list(cells)
    for pair in chain.from_iterable(pairs(cells, each) for each in records):
        both = [{**record["machine"], **record["versions"]} for record in pair]
        differing = {k for k in both[0].keys() | both[1].keys() if both[0].get(k) != both[1].get(k)} - HARMLESS
        total, mixed = total + 1, mixed + bool(differing)
        reasons.update(differing)
    if not total:
        return ""
    if not mixed:
        return (
            f"All {plural(total, 'compared pair')} of runs have the same processor, instruction set, GPU and versions."
        )
    what = words([f"{key.replace('_', ' ')} in {count}" for key, count in sorted(reasons.items())])
    return (
        f"{mixed} of {plural(total, 'compared pair')} of runs come from different machines or versions ({what}), so"
        " part of their differences may be numerical; train them on one kind of machine to rule that out."
    )


def stages_table(stages: pd.DataFrame) -> Table | None:
    """`benchmarks` as people read it; None where there is no stage."""
    columns = ["stage", "jobs", "time, summed", "fraction", "CPU time", "most memory, MB"]
    rows = [
        [
            s.stage,
            number(s.jobs),
            _clock(s.seconds),
            f"{percent(s.fraction)} %",
            _clock(s.cpu_seconds),
            number(s.max_rss),
        ]
        for s in stages.itertuples()
    ]
    caption = (
        "From the benchmark files of this study's jobs. Jobs run side by side, so less time passed on the"
        " clock. The aggregate stage, which writes this report, is left out."
    )
    return Table("Time by stage", caption, columns, _entries(rows), 1) if rows else None


def cost_table(cells: Iterable[Cell], records: Records) -> Table:
    """`costs` as people read it."""
    columns = ["dataset", "fusion", "method", "runs", "epochs", "start", "forwards", "backwards", "peak memory, MB"]
    rows = [
        [
            *(row[name] for name in columns[:3]),
            str(row["runs"]),
            _clock(row["seconds"]),
            _clock(row["fixed_seconds"]),
            *(number(row[name]) for name in ("forwards", "backwards", "peak_memory_mb")),
        ]
        for row in costs(cells, records)
    ]
    caption = (
        "Epochs: time spent in them, with validation. Start: time from the start of the process to the first epoch,"
        " which runs of one process share; the mean is over all of them. Forwards and backwards: samples passed."
    )
    devices = sorted({record["machine"]["device"] for record in records.values()})
    if len(devices) > 1:
        caption += f" The runs come from different devices ({words(devices)}), so their times are not comparable."
    return Table("Training, mean per run", caption, columns, _entries(rows), 3)


def runs_table(runs: list[Run], records: Records, ended: Mapping[tuple, Ended]) -> Table:
    """The address of each of `runs` (of a Plan), and where and when it was trained."""
    rows: list[list[Any]] = []
    for run in runs:
        key = tuple(run.names.values())
        if record := records.get(key):
            code = record["versions"]["git"] or record["versions"]["counterpoise"]
            places = [run.cell.evaluation_fp, record["cache"]["sha256"][:12], code, record["machine"]["device"]]
            rows.append(
                [Entry(run.label, folder=run.folder.as_posix()), record["fingerprint"], *places, record["ended"]]
            )
        else:
            state = ended[key].state if key in ended else "missing"
            folder = run.folder.as_posix() if run.folder.exists() else ""
            rows.append([Entry(run.label, folder=folder), run.cell.fp, *[NONE] * 4, state])
    columns = ["run", "fingerprint", "evaluation", "cache sha256", "code", "device", "ended"]
    caption = (
        "A run links to its folder, as long as this report is in its place. `make ui` prints an address of this report"
        " in which it links to MLflow, too."
    )
    return Table("Runs", caption, columns, _entries(rows), len(columns))


def _entries(rows: list[list[Any]]) -> list[list[Entry]]:
    return [[one if isinstance(one, Entry) else Entry(one) for one in row] for row in rows]


def _clock(seconds: float) -> Entry:
    return Entry(clock(seconds), order=None if math.isnan(seconds) else round(seconds, 1))
