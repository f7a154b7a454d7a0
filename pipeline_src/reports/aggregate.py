"""The aggregate stage: all runs' metrics gathered into one table, and what is made from it.

Writes, below the plan's results folder,
    metrics.parquet                  every metric of every complete run, in long form
    metrics/, history.csv            what DVC compares and draws
    tables/accuracy.csv, .md, .tex   over seeds
    tables/tuned.csv, trials.csv     of a study that is tuned: over seeds, and every trial
    figures/<what>-<dataset>.svg    those of the report, on paper
    report.html
    tables/index-<fingerprint>.json  the addresses of all runs; it exists once all else is written and no run is missing
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pipeline_src.core import files
from pipeline_src.core.errors import listed
from pipeline_src.datasets import quarantine
from pipeline_src.features import QUARANTINE_FILE, fix, read_info
from pipeline_src.reports import declared, ensemble, formats, summaries, tuning
from pipeline_src.reports.arranged import arranged
from pipeline_src.reports.grids import grids
from pipeline_src.reports.report import GridSection, Section, grid_sections, render, sections
from pipeline_src.reports.results import add_clips, collect, test_samples
from pipeline_src.reports.scores import COLUMNS, Ended, accuracy_table
from pipeline_src.study.outputs import TRIAL, TUNING
from pipeline_src.study.runs import DIVERGED, FAILED, RunFiles

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline_src.study.outputs import Cell
    from pipeline_src.study.plan import Plan

log = logging.getLogger(__name__)

UNFINISHED = "index-incomplete.json"


def aggregate(plan: Plan) -> None:
    """Write the tables, the report and the index of every run that `plan` (a Plan) names, from those that are there.

    Runs that are missing, have diverged or have failed are shown as such. Raises UserError if a run's metrics.json or
    record.json is not valid, or if more samples are quarantined than the parameters allow.
    """
    results, study, confidence = plan.results, plan.params.study, plan.params.reporting.confidence
    rows, records, index, finished = [], {}, [], []
    ended: dict[tuple, Ended] = {}  # runs without scores, by names and seed
    for run in plan.runs:
        read = RunFiles(run)
        complete = read.evaluated()
        entry = {**run.names, "run": str(run.folder), "evaluation": str(run.evaluation), "complete": complete}
        index.append(entry | {"files": read.hashes() if complete else {}})
        if run.cell.role == TRIAL:  # the record of the tuned runs has its score
            continue
        if complete and read.diverged() is None:
            records[tuple(run.names.values())] = read.record()
            rows += [{**run.names, **row} for row in read.metrics()]
            finished.append(run)
        elif (state := read.state()).state in (DIVERGED, FAILED):
            ended[tuple(run.names.values())] = Ended(state.state, state.error)
    for data in plan.data:  # the allowed share may have been lowered since the cache was made
        if data.cache_file.exists():
            quarantined = data.cache / QUARANTINE_FILE
            bad = files.read_table(quarantined, fix(quarantined))
            clips = sum(read_info(data.cache)["splits"].values()) + len(bad)
            quarantine.check_fraction(data, bad, clips)
    alone = ensemble.ensembles(plan, finished)
    rows += ensemble.rows(plan, alone) + tuning.ensembles(plan, finished)
    metrics = pd.DataFrame(rows, columns=COLUMNS).astype({"seed": "int64", "value": "float64"})
    metrics = metrics.astype({name: "str" for name in COLUMNS if name not in ("seed", "value")})
    cells, samples = ensemble.with_ensembles(plan, alone), test_samples(finished)
    primaries = {name: declared.primary(data.dataset.task) for name, data in plan.datasets.items()}
    table = accuracy_table(metrics, cells, study.seeds, confidence, ended, samples, primaries)
    every = collect(plan, table, metrics, records, alone)
    table = add_clips(table, every)
    tuned = tuning.collected(plan, metrics, finished, records, ended, samples, primaries)
    made = sections(plan, every, table, extensions(plan.rows), ended, tuned)
    of_grids = grid_sections(grids(plan, every))
    every_section: list[GridSection | Section] = [*of_grids, *made]
    laid_out = arranged(plan.params, table)
    shown = [each for section in every_section for each in section.tables] + laid_out

    # The tables have the same names whatever the parameters, so only the index that they were made with may remain.
    # When the parameters change back, its index is missing and Snakemake makes the tables again. Indexes are removed
    # before the first table is written, so that a killed job leaves none.
    for old in plan.index.parent.glob("index-*.json"):
        old.unlink()
    with files.whole(results / "metrics.parquet") as temporary:
        metrics.to_parquet(temporary, index=False)
    files.write_text(results / "tables" / "accuracy.csv", formats.csv(table))
    for name in TUNING:
        (results / "tables" / name).unlink(missing_ok=True)
    if tuned is not None:
        for name, values in zip(TUNING, (tuned.table, tuning.trials(tuned)), strict=True):
            files.write_text(results / "tables" / name, formats.csv(values))
    files.write_text(results / "tables" / "accuracy.md", formats.markdown(shown))
    files.write_text(results / "tables" / "accuracy.tex", formats.latex(shown))
    files.write_text(results / "history.csv", summaries.history(finished).to_csv(index=False, lineterminator="\n"))
    with files.whole(results / "metrics") as temporary:
        temporary.mkdir()
        for place, numbers in summaries.cells(metrics, len(study.seeds), primaries).items():
            files.write_json(temporary / place, numbers)
    with files.whole(results / "figures") as temporary:
        temporary.mkdir()
        for figure in (figure for section in every_section for figure in section.figures):
            (temporary / f"{figure.drawing.name}.svg").write_text(figure.svg, encoding="utf-8")
    files.write_text(results / "report.html", render(plan, table, made, of_grids, records, ended, laid_out))

    missing = [run.label for run, entry in zip(plan.runs, index, strict=True) if not entry["complete"]]
    # The planned address promises the whole study: where it is, Snakemake does not look whether runs are missing.
    target = plan.index.with_name(UNFINISHED) if missing else plan.index
    written = {path.relative_to(results).as_posix(): files.sha256(path) for path in outputs(results)}
    about = {
        "params": str(plan.file),
        "complete": not missing,
        "confidence_level": confidence,
        "runs": index,
        "files": written,
    }
    files.write_sealed(target, about)
    log.info(f"aggregate  {len(records)} of {len(index)} runs in {results / 'report.html'}")
    if missing:
        log.warning(f"aggregate  incomplete, not there yet: {listed(missing)}")


def outputs(results: Path) -> list[Path]:
    """What `aggregate` writes below a results folder, but for the index."""
    places = [results.glob("*"), *((results / name).rglob("*") for name in ("tables", "metrics", "figures"))]
    kept = {path for place in places for path in place if path.is_file() and not path.name.startswith(("index-", "."))}
    return sorted(kept)


def extensions(cells: Iterable[Cell]) -> dict[tuple[str, str], str]:
    """(dataset, method) -> what no paper gives about it, for the tables to say."""
    return {(cell.data.name, cell.method): cell.extension for cell in cells if cell.extension}
