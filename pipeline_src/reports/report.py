"""The HTML report: one file that needs nothing else, with the tables, what they support, and the runs' provenance."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from pipeline_src import files
from pipeline_src.fingerprint import HEX
from pipeline_src.reports.statistics import Summary
from pipeline_src.reports.tables import BASELINE, CELL, NONE, Table, interval, level, modalities_of, read

TEMPLATE = "report.html.j2"
QUARANTINE_ROWS = 50  # shown; the rest is counted


@dataclass(frozen=True)
class Conclusion:
    """One sentence on one comparison, and whether its interval excludes 0."""

    about: str
    text: str
    supported: bool


def render(plan, table: pd.DataFrame, shown: list[Table], records: dict) -> str:
    """The report as one HTML text.

    `plan` is the plan, `table` its accuracy table, `shown` the tables made from it, `records` the record.json (a dict)
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
    return environment.get_template(TEMPLATE).render(
        plan=plan,
        study=study,
        schedule=plan.params.training,
        confidence=level(confidence),
        complete=bool(table.complete.all()),
        done=len(records),
        tables=shown,
        conclusions=conclusions(table, len(study.seeds)),
        data=[_data(data) for data in plan.data.values()],
        stages=benchmarks(_addresses(plan)).to_dict("records"),
        costs=costs(plan.cells, records),
        devices=sorted({record["machine"]["device"] for record in records.values()}),
        runs=runs,
        caches=_distinct(records, lambda r: {"data set": r["dataset"], "recipe": r["recipe"], **r["cache"]}),
        machines=_distinct(records, lambda r: r["machine"]),
        versions=_distinct(records, lambda r: r["versions"]),
    )


def conclusions(table: pd.DataFrame, seeds: int) -> list[Conclusion]:
    """What the table supports about each comparison: a difference only where its interval excludes 0.

    Compared are each modality of a joint model with the model trained on it alone, by linear probe, and the accuracy of
    each method with that of BASELINE.
    """
    found = []
    for row in table.to_dict("records"):
        where = f"{row['dataset']}, {row['fusion']}, {row['method']}"
        for m in modalities_of(table):
            one, probe = read(row, f"{m}/probe_gap"), read(row, f"{m}/accuracy_probe")
            # A unimodal model is what the others are compared with; a model without the modality has no probe.
            if not math.isnan(probe.mean) and not _alone(row, modalities_of(table)):
                what = f"linear probe on the {m} encoder", f"that on the model trained on {m} alone"
                found.append(_conclusion(f"{where}: {m}", *what, one, row["complete"], seeds))
            gain = read(row, f"{m}/probe_gain")
            if not math.isnan(gain.mean):
                what = f"linear probe on the {m} encoder", f"that of {BASELINE}"
                found.append(_conclusion(f"{where}: {m}", *what, gain, row["complete"], seeds))
        if not math.isnan(row["accuracy_gain_mean"]):
            what = f"accuracy of {row['method']}", f"that of {BASELINE}"
            found.append(_conclusion(where, *what, read(row, "accuracy_gain"), row["complete"], seeds))
    return found


def _alone(row: dict[str, Any], modalities: list[str]) -> bool:
    return sum(not math.isnan(row[f"{m}/accuracy_probe_mean"]) for m in modalities) == 1


def _conclusion(about: str, this: str, other: str, one: Summary, complete: bool, seeds: int) -> Conclusion:
    if math.isnan(one.mean):
        why = (
            "its seeds are incomplete" if not complete else "what it is compared with is incomplete or not in the study"
        )
        return Conclusion(about, f"No conclusion: {why}.", False)
    side = "above" if one.mean > 0 else "below"
    size, range_ = f"{abs(100 * one.mean):.1f} points", interval(one, True)
    if one.excludes_zero:
        return Conclusion(about, f"The {this} is {size} {side} {other} {range_}.", True)
    if seeds == 1:
        return Conclusion(about, f"The {this} was {size} {side} {other}, once: one seed supports no conclusion.", False)
    return Conclusion(about, f"No difference supported between the {this} and {other} {range_}.", False)


def _data(data) -> dict[str, Any]:
    """A data set's clips by split and its quarantine; empty where its cache is not there."""
    cache, table = data.cache / "cache.json", data.cache / "quarantine.parquet"
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


def benchmarks(addresses: set[str], folder: Path = Path("benchmarks")) -> pd.DataFrame:
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
