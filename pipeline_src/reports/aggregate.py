"""The aggregate stage: all runs' metrics gathered into one table, and what is made from it.

Writes, below the plan's results folder,
    metrics.parquet                  every metric of every complete run, in long form
    metrics/, history.csv            what DVC compares and draws
    tables/accuracy.csv, .md, .tex   over seeds
    figures/<what>-<dataset>.svg    those of the report, on paper
    report.html
    tables/index-<fingerprint>.json  the addresses of all runs; it exists once all else is written and no run is missing
"""

import logging

import pandas as pd

from pipeline_src.core import files
from pipeline_src.core.errors import listed
from pipeline_src.datasets import quarantine
from pipeline_src.reports import summaries, tables
from pipeline_src.reports.report import render, sections
from pipeline_src.reports.runs import add_clips, parts
from pipeline_src.study.runs import RunFiles

log = logging.getLogger(__name__)

UNFINISHED = "index-incomplete.json"


def aggregate(plan) -> None:
    """Write the tables, the report and the index of every run that `plan` (a Plan) names, from those that are there.

    Runs that are missing are shown as missing. Raises UserError if a run's metrics.json or record.json is not valid,
    or if more clips are quarantined than the parameters allow.
    """
    results, study, confidence = plan.results, plan.params.study, plan.params.reporting.confidence
    rows, records, index, finished = [], {}, [], []
    for run in plan.runs:
        read = RunFiles(run)
        complete = read.evaluated()
        index.append({**run.names, "run": str(run.folder), "evaluation": str(run.evaluation), "complete": complete})
        if complete:
            records[tuple(run.names.values())] = read.record()
            rows += [{**run.names, **row} for row in read.metrics()]
            finished.append(run)
    for data in plan.data.values():  # the allowed share may have been lowered since the cache was made
        if data.cache_file.exists():
            bad = pd.read_parquet(data.cache / "quarantine.parquet")
            clips = sum(files.read_json(data.cache_file)["splits"].values()) + len(bad)
            quarantine.check_share(data, bad, clips)
    metrics = pd.DataFrame(rows, columns=tables.COLUMNS).astype({"seed": "int64", "value": "float64"})
    metrics = metrics.astype({name: "str" for name in tables.COLUMNS if name not in ("seed", "value")})
    table = tables.accuracy_table(metrics, [cell.names for cell in plan.cells], study.seeds, confidence)
    found = parts(plan, table, metrics, records)
    table = add_clips(table, found)
    made = sections(plan, found, table, extensions(plan.cells))
    shown = [one for section in made for one in section.tables]

    # The tables have one name whatever the parameters, so only the index that they were made with may stand: when the
    # parameters change back, Snakemake finds the index of then missing and makes the tables anew. They go before
    # the first table is written, so that a killed job leaves none.
    for old in plan.index.parent.glob("index-*.json"):
        old.unlink()
    with files.whole(results / "metrics.parquet") as temporary:
        metrics.to_parquet(temporary, index=False)
    files.write_text(results / "tables" / "accuracy.csv", tables.csv(table))
    files.write_text(results / "tables" / "accuracy.md", tables.markdown(shown))
    files.write_text(results / "tables" / "accuracy.tex", tables.latex(shown))
    files.write_text(results / "history.csv", summaries.history(finished).to_csv(index=False, lineterminator="\n"))
    with files.whole(results / "metrics") as temporary:
        temporary.mkdir()
        for place, numbers in summaries.cells(metrics, len(study.seeds)).items():
            files.write_json(temporary / place, numbers)
    with files.whole(results / "figures") as temporary:
        temporary.mkdir()
        for one in (one for section in made for one in section.figures):
            (temporary / f"{one.drawing.name}.svg").write_text(one.svg, encoding="utf-8")
    files.write_text(results / "report.html", render(plan, table, made, records))

    missing = [run.label for run, entry in zip(plan.runs, index, strict=True) if not entry["complete"]]
    # The planned address promises the whole study: where it is, Snakemake does not look whether runs are missing.
    target = plan.index.with_name(UNFINISHED) if missing else plan.index
    files.write_json(target, {"params": str(plan.file), "complete": not missing, "runs": index})
    log.info(f"aggregate  {len(records)} of {len(index)} runs in {results / 'report.html'}")
    if missing:
        log.warning(f"aggregate  incomplete, not there yet: {listed(missing)}")


def extensions(cells) -> dict[tuple[str, str], str]:
    """(dataset, method) -> what no paper gives about it, for the tables to say."""
    return {(cell.data.name, cell.method): cell.extension for cell in cells if cell.extension}
