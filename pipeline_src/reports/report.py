"""The HTML report: one file that needs nothing else, with the answer, the tables, the figures and the provenance."""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from pipeline_src.core import files
from pipeline_src.core.fingerprint import HEX
from pipeline_src.reports.answer import answers, comparisons
from pipeline_src.reports.figures import drawing, style
from pipeline_src.reports.figures.balance import balance, diagnosis
from pipeline_src.reports.figures.clips import examples
from pipeline_src.reports.figures.contributions import contributions, cost
from pipeline_src.reports.figures.gains import gains
from pipeline_src.reports.figures.learning import learning
from pipeline_src.reports.figures.predictions import confusion, features
from pipeline_src.reports.published import Published, published
from pipeline_src.reports.runs import Part
from pipeline_src.reports.tables import CELL, NONE, Table, level, tables

TEMPLATE = "report.html.j2"
QUARANTINE_ROWS = 50  # shown; the rest is counted
RUN_ROWS = 300  # shown; the index names all
# Where the figures of a dataset stand in the report, in their order; each gives one drawing, several, or none.
FIGURES = {
    "answer": (gains,),
    "curves": (learning, balance, diagnosis),
    "views": (contributions, features, confusion, cost),
}


@dataclass(frozen=True)
class Shown:
    """A drawing ready for the page."""

    drawing: drawing.Drawing
    svg: str
    panels: list[drawing.Panel]
    keys: list[drawing.Key]


@dataclass(frozen=True)
class Section:
    """What the report has of one dataset besides its data: tables, figures by place, and the published figures."""

    part: Part
    tables: list[Table]
    drawings: dict[str, list[Shown]]
    published: Published

    @property
    def figures(self) -> list[Shown]:
        found = [shown for place in self.drawings.values() for shown in place]
        return [*found, *([self.published.drawing] if self.published.drawing else [])]


def sections(plan, parts: list[Part], table: pd.DataFrame, extensions: dict) -> list[Section]:
    """Tables and figures, dataset by dataset; `table` is the accuracy table with all of its columns."""
    found, seeds = [], len(plan.params.study.seeds)
    for part, data in zip(parts, plan.data.values(), strict=True):
        rows = table[(table.dataset == part.name) & (table.recipe == part.recipe)]
        drawings = {
            place: [_shown(one) for make in makers for one in _each(make(part))] for place, makers in FIGURES.items()
        }
        drawings["data"] = [_shown(one) for one in _each(examples(part.name, data.cache))]
        known = published(part.name, getattr(data.dataset, "name", part.name), part.recipe, rows, seeds)
        known = replace(known, drawing=_shown(known.drawing) if known.drawing else None)
        made = tables(rows, seeds, plan.params.reporting.confidence, extensions)
        found.append(Section(part, made, drawings, known))
    return found


def _each(made) -> list[drawing.Drawing]:
    """What a maker of figures gave, as a list."""
    return [] if made is None else [made] if isinstance(made, drawing.Drawing) else list(made)


def _shown(one: drawing.Drawing) -> Shown:
    text = style.svg(one.figure)
    return Shown(one, text, drawing.panels(one, text), drawing.keys(one))


def render(plan, table: pd.DataFrame, made: list[Section], records: dict) -> str:
    """The report as one HTML text.

    `plan` is the plan, `table` its accuracy table, `made` the sections made from it, `records` the record.json (a dict)
    of every complete run by (dataset, recipe, fusion, method, seed). The same inputs give the same text: it bears no
    date of its own.
    """
    study, confidence = plan.params.study, plan.params.reporting.confidence
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"number": number, "clock": clock}
    runs = [(run, records.get(tuple(run.names.values()))) for run in plan.runs]
    seeds = len(study.seeds)
    data = []
    for one, section, answer in zip(plan.data.values(), made, answers(table, seeds, confidence), strict=True):
        rows = table[(table.dataset == one.name) & (table.recipe == one.recipe)]
        data.append(
            {
                **_data(one),
                "answer": answer,
                "tables": section.tables,
                "drawings": section.drawings,
                "published": section.published,
                "comparisons": comparisons(rows, seeds, confidence),
            }
        )
    return environment.get_template(TEMPLATE).render(
        plan=plan,
        study=study,
        seeds=seeds,
        schedule=plan.params.training,
        confidence=level(confidence),
        complete=bool(table.complete.all()),
        done=len(records),
        data=data,
        stages=benchmarks(_addresses(plan)).to_dict("records"),
        costs=costs(plan.cells, records),
        devices=sorted({record["machine"]["device"] for record in records.values()}),
        command=command(plan.file),
        runs=runs[:RUN_ROWS],
        count=len(runs),
        caches=_distinct(records, lambda r: {"dataset": r["dataset"], "recipe": r["recipe"], **r["cache"]}),
        machines=_distinct(records, lambda r: r["machine"]),
        versions=_distinct(records, lambda r: r["versions"]),
    )


def command(params: Path) -> str:
    """What a user types to have this study made."""
    return "snakemake --cores all" + (f" --config params={params}" if str(params) != "params.yaml" else "")


def _data(data) -> dict[str, Any]:
    """A dataset's clips by split and its quarantine; empty where its cache is not there."""
    cache, table = data.cache_file, data.cache / "quarantine.parquet"
    info = files.read_json(cache) if cache.exists() else {}
    bad = pd.read_parquet(table) if table.exists() else None
    order = {split: i for i, split in enumerate(("train", "val", "test"))}
    return {
        "name": data.name,
        "recipe": data.recipe,
        "classes": len(data.dataset.classes),
        "modalities": list(data.extractors),
        "splits": dict(sorted(info.get("splits", {}).items(), key=lambda item: order.get(item[0], len(order)))),
        "known": bad is not None,
        "bad": 0 if bad is None else len(bad),
        "reasons": [] if bad is None else list(bad.reason.value_counts().items()),
        "rows": [] if bad is None else bad.head(QUARANTINE_ROWS).to_dict("records"),
    }


def _addresses(plan) -> set[str]:
    """Fingerprints of all that the plan names, as they stand in paths."""
    paths = [path for data in plan.data.values() for path in (data.raw, data.manifest, data.cache)]
    return {str(path).rpartition("-")[2] for path in [*paths, *(cell.folder for cell in plan.cells)]}


def benchmarks(addresses: set[str], folder: Path = Path("logs")) -> pd.DataFrame:
    """Where the time went, by stage (the first folder below `folder`), longest first, from Snakemake's benchmark files.

    Only files with one of `addresses` (fingerprints) in their path count: others are of earlier parameters or studies.
    Columns: stage, jobs, seconds (wall clock, summed), share (of all seconds), cpu_seconds (summed), max_rss (MB, of
    the largest job). A file without figures, as a killed job leaves it, counts as a job alone. The aggregate stage is
    left out: its file is written after the report.
    """
    rows = []
    for file in sorted(folder.glob("*/**/*.tsv")):
        if not addresses & set(re.findall(HEX, str(file.relative_to(folder)))):
            continue
        try:
            found = pd.read_csv(file, sep="\t", na_values=["-", "NA"])
        except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError):
            found = pd.DataFrame()
        columns = {
            name: pd.to_numeric(found.get(name, pd.Series(dtype=float)), errors="coerce")
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
        return pd.DataFrame(columns=["stage", "jobs", "seconds", "share", "cpu_seconds", "max_rss"])
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
    stages.insert(3, "share", stages.seconds / stages.seconds.sum() if stages.seconds.sum() else 0.0)
    return stages


COSTS = ("seconds", "fixed_seconds", "forwards", "backwards", "peak_memory_mb")


def costs(cells, records: dict) -> list[dict[str, Any]]:
    """What training cost per cell: the mean over its complete runs of each of COSTS, and how many runs that is."""
    rows = []
    for cell in cells:
        names = tuple(cell.names[name] for name in CELL)
        own = [record for key, record in records.items() if key[:-1] == names]
        values = pd.DataFrame(
            [{name: record.get(name) for name in COSTS} for record in own], columns=COSTS, dtype=float
        )
        rows.append({**cell.names, "runs": len(own), **values.mean().to_dict()})
    return rows


def _distinct(records: dict, part) -> list[tuple[dict, int]]:
    """The distinct values of a part of the records, and how many runs have each."""
    found: list[tuple[dict, int]] = []
    for record in records.values():
        value = part(record)
        for i, (known, count) in enumerate(found):
            if known == value:
                found[i] = (known, count + 1)
                break
        else:
            found.append((value, 1))
    return found


def number(value: float, digits: int = 0) -> str:
    """`12 345`, with thin spaces; a dash for NaN."""
    return NONE if value is None or math.isnan(value) else f"{value:,.{digits}f}".replace(",", "\u2009")


def clock(seconds: float) -> str:
    """`45.2 s`, `3 min 20 s` or `2 h 05 min`; a dash for NaN."""
    if math.isnan(seconds):
        return NONE
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
