"""`unpack`: reads an archive of `pack` back, checks every file, and compares its study with one of yours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline_src.core import files
from pipeline_src.core.errors import UserError, listed, plain
from pipeline_src.datasets import download
from pipeline_src.study.crate import METADATA, PROFILES, SOFTWARE
from pipeline_src.tasks.base import tasks

if TYPE_CHECKING:
    from pipeline_src.study.plan import Plan

FOLDER = "supplements/{name}"
KEY = ["dataset", "recipe", "fusion", "method"]
COLUMNS = {*KEY, "seed", "split", "modality", "metric", "value"}
AGAIN = "get the archive again"
MOST = 100 << 20  # bytes of the metadata: millions of files


def unpack(archive: Path, folder: Path | None) -> Path:
    """Unpack an archive of `pack` into a new folder, once every file is there and right; the folder.

    Raises UserError if the archive is damaged, is none of ours, or the folder is there already.
    """
    if not archive.is_file():
        raise UserError(f"{plain(archive, 300)}: expected an archive that `counterpoise pack` made, but got no file")
    if archive.suffix != ".zip":
        raise UserError(f"{archive}: expected a name that ends with .zip; rename the archive")
    folder = folder or Path(FOLDER.format(name=archive.name.removesuffix(".zip").removesuffix(".crate")))
    if folder.exists():
        raise UserError(f"{folder}: expected no such folder, but it is there; remove it or name another by --folder")
    with files.whole(folder) as written:
        written.mkdir()
        download.unpack(archive, written)
        _check(archive, written)
    return folder


def _check(archive: Path, folder: Path) -> None:
    """Raises UserError unless the folder holds what the metadata says, all of it and nothing else."""
    held = metadata(folder, archive)
    named = {name: one for name, one in held.items() if "File" in _list(one.get("@type"))}
    there = {name for name, _ in files.below(folder)} - {METADATA}
    if missing := sorted(named.keys() - there):
        raise UserError(f"{archive}: expected {listed(missing)}, but got none ({len(missing)} in all); {AGAIN}")
    if more := sorted(there - named.keys()):
        raise UserError(f"{archive}: expected no {listed(more)}, which {METADATA} does not name; {AGAIN}")
    wrong = [name for name, one in sorted(named.items()) if one.get("sha256") != files.sha256(folder / name)]
    if wrong:
        raise UserError(
            f"{archive}: expected files as they were packed, but got {listed(wrong)} damaged ({len(wrong)} in all); "
            f"{AGAIN}"
        )


def metadata(folder: Path, shown: Path | None = None) -> dict[str, dict[str, Any]]:
    """What the archive in a folder says of itself, by the entities' ids. Raises UserError if it is none of ours."""
    file, where = folder / METADATA, shown or folder
    foreign = f"{where}: expected an archive that `counterpoise pack` made, but got "
    if not file.is_file():
        raise UserError(f"{foreign}no {METADATA}")
    if file.stat().st_size > MOST:
        raise UserError(f"{foreign}a {METADATA} of {file.stat().st_size:,} bytes")
    try:
        graph = json.loads(file.read_text(encoding="utf-8"))["@graph"]
        held = {one["@id"]: one for one in graph}
        root = held["./"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{foreign}a {METADATA} that is no RO-Crate ({type(error).__name__})") from None
    profiles = {one.get("@id") for one in _list(root.get("conformsTo")) if isinstance(one, dict)}
    if SOFTWARE not in held or not PROFILES.keys() <= profiles:
        name = plain(root.get("name") or "one without a name")
        raise UserError(f"{foreign}an RO-Crate of another program: {name}")
    return held


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def summary(folder: Path) -> str:
    """What was packed, by whom and when, its table of accuracies, and where the report is."""
    held = metadata(folder)
    root = held["./"]
    authors = [held.get(one["@id"], {}).get("name") for one in _list(root.get("author")) if isinstance(one, dict)]
    by = f" by {listed([name for name in authors if name])}" if authors else ""
    licence = root.get("license")
    said = licence.get("@id") if isinstance(licence, dict) else licence
    software = held[SOFTWARE]
    results = _results(folder)
    lines = [
        f"{plain(root.get('name'), 300)}{by}, {plain(root.get('datePublished'))}",
        f"licence: {plain(said, 300)}; made by Counterpoise {plain(software.get('softwareVersion'), 300)}",
    ]
    table = results / "tables/accuracy.md"
    lines += ["", table.read_text(encoding="utf-8").strip()] if table.is_file() else []
    return "\n".join([*lines, "", f"report: {results / 'report.html'}"])


def _results(folder: Path) -> Path:
    """The folder of the study's tables and report."""
    found = sorted(folder.glob("results/studies/*/metrics.parquet"))
    if len(found) != 1:
        raise UserError(f"{folder}: expected results/studies/<name>/metrics.parquet once, but got {len(found)} of them")
    return found[0].parent


def comparison(folder: Path, plan: Plan) -> str:
    """The test scores of the archive's configurations beside those of a study of yours, as text."""
    own = plan.results / "metrics.parquet"
    if not own.is_file():
        raise UserError(f"{own}: expected the metrics of {plan.file}, but got none; run the study first")
    primary = {one.name: one for one in (tasks[data.dataset.task].metrics[0] for data in plan.data)}
    scale = {name: 100 if one.unit == "%" else 1 for name, one in primary.items()}
    theirs, mine = (_scores(file, scale) for file in (_results(folder) / "metrics.parquet", own))
    same = {path.parent for path in (folder / "results/runs").rglob("record.json")}
    same = {path.relative_to(folder) for path in same} & {run.folder for run in plan.runs}
    rows = [["dataset", "recipe", "fusion", "method", "metric", "archive", str(plan.file), "difference"]]
    for key in sorted({*theirs.index, *mine.index}):
        digits, difference = 1 if scale[key[-1]] == 100 else 3, ""
        cells = [_shown(table.loc[key], digits) if key in table.index else "" for table in (theirs, mine)]
        if all(cells):
            difference = f"{mine.loc[key, 'mean'] - theirs.loc[key, 'mean']:+.{digits}f}"
        rows.append([*map(plain, key), *cells, difference])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    both = sum(bool(row[5] and row[6]) for row in rows[1:])
    note = (
        f"Mean ± standard deviation (seeds), fractions in percent. {both} of {len(rows) - 1} configurations are in "
        f"both studies by name; {len(same)} runs have one address, so the same data, code and parameters."
    )
    return "\n".join([*lines, "", note])


def _scores(file: Path, scale: dict[str, int]) -> pd.DataFrame:
    """Mean, standard deviation and number of the test scores of the fused model, by configuration and metric, of the
    metrics in `scale`, times it.
    """
    try:
        table = pd.read_parquet(file)
    except (OSError, ValueError) as error:  # pyarrow's own are one of these
        raise UserError(f"{file}: expected a Parquet file, but got an error: {plain(error, 200)}") from None
    if not set(table.columns) >= COLUMNS:
        raise UserError(f"{file}: expected the columns {', '.join(sorted(COLUMNS))}, but got {listed(table.columns)}")
    test = table[(table.split == "test") & (table.modality == "fused") & table.metric.isin(scale)]
    test = test.assign(value=test.value * test.metric.map(scale).astype(float))
    grouped = test.astype(dict.fromkeys([*KEY, "metric"], str)).groupby([*KEY, "metric"])
    return grouped["value"].agg(["mean", "std", "count"])


def _shown(row: pd.Series, digits: int) -> str:
    spread = f" ± {row['std']:.{digits}f}" if row["count"] > 1 else ""
    return f"{row['mean']:.{digits}f}{spread} ({row['count']:.0f})"
