"""`pack`: a finished study as one archive, a Workflow Run RO-Crate, to be deposited, cited and read back by `unpack`.

It holds the params files (with those extended, and the whole study with the place of each value), the workflow, the
recipes and pins, tables, figures, report, and of every run the record, the history, metrics and predictions; weights if
they are asked for; no media and no caches. Paths are those of the working directory, so that links in the report lead
to the runs. Every file has its SHA-256 in ro-crate-metadata.json.

RO-Crate 1.1 (https://w3id.org/ro/crate/1.1), Workflow RO-Crate 1.0, Workflow Run Crate 0.5 (Leo et al., PLOS ONE 2024,
doi:10.1371/journal.pone.0309210).
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pipeline_src
from pipeline_src.core import files
from pipeline_src.core.errors import UserError, listed, plain
from pipeline_src.study import config, verify
from pipeline_src.study.origins import origins
from pipeline_src.study.places import HISTORY, RECORD, WEIGHTS
from pipeline_src.study.runs import RunFiles

if TYPE_CHECKING:
    from rocrate.model.entity import Entity
    from rocrate.rocrate import ROCrate

    from pipeline_src.study.plan import Plan

ROOT = Path(__file__).parents[2]
METADATA = "ro-crate-metadata.json"
SOFTWARE = "#counterpoise"  # the entity that says that an archive is one of ours
WHOLE = "params/whole-study.yaml"
PROFILES = {  # that the archive conforms to: name, version
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
TYPES = {  # media types, by suffix
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".svg": "image/svg+xml",
    ".tex": "application/x-tex",
    ".yaml": "application/yaml",
}
ORCID = re.compile(r"(.*?),?\s*(?:https://orcid\.org/)?(\d{4}-\d{4}-\d{4}-\d{3}[\dX])")
NO_LICENCE = "No licence is stated; ask the authors."


@dataclass(frozen=True)
class About:
    """What a deposit says of itself. An author may have an ORCID: `Ada Lovelace, 0000-0002-1825-0097`."""

    title: str | None = None
    authors: tuple[str, ...] = ()
    licence: str | None = None  # SPDX's name, or an address
    weights: bool = False


def pack(plan: Plan, archive: Path, about: About) -> str:
    """Write the archive; returns a sentence on it. Raises UserError if the study is not finished, a file of it is
    damaged, or the archive is there already.
    """
    try:
        from rocrate.rocrate import ROCrate
    except ImportError:
        raise UserError("pack: expected the package rocrate, but got none; pip install rocrate") from None
    if archive.exists():
        raise UserError(f"{archive}: expected no such file, but it is there; remove it or name another by --output")
    started, ended = _finished(plan)
    crate = ROCrate(version="1.1")
    with tempfile.TemporaryDirectory() as folder:
        _fill(crate, plan, about, Path(folder), started, ended)
        with files.whole(archive) as written:
            crate.write_zip(written)
    count = sum(entity.type == "File" for entity in crate.data_entities)
    return f"{archive}: {len(plan.runs)} runs, {count} files, {archive.stat().st_size / 1e6:,.1f} MB"


def _finished(plan: Plan) -> tuple[str, str]:
    """When the first run started and the last one ended. Every file that will be packed is checked."""
    missing = [path for path in [plan.index, *(run.metrics for run in plan.runs)] if not path.exists()]
    if missing or not files.read_sealed(plan.index, f"delete {plan.index} and run snakemake again").get("complete"):
        raise UserError(
            f"{plan.file}: expected a finished study, but {listed([str(path) for path in missing]) or 'a run'} is not "
            f"there; run `snakemake --cores all --config params={plan.file}`"
        )
    damaged: dict[Path, str] = {}
    for file, check, due in [*verify.results(plan), *(one for run in plan.runs for one in RunFiles(run).checks())]:
        try:
            if due or file.exists():
                check()
        except UserError as error:
            damaged.setdefault(file, str(error))
    if damaged:
        raise UserError("\n".join(damaged.values()))
    records = [RunFiles(run).record() for run in plan.runs]
    starts, ends = [[one[key] for one in records if one.get(key)] for key in ("started", "ended")]
    written = datetime.fromtimestamp(plan.index.stat().st_mtime, UTC).isoformat(timespec="seconds")
    return min(starts, default=written), max([*ends, written])


def _fill(crate: ROCrate, plan: Plan, about: About, folder: Path, started: str, ended: str) -> None:
    """Everything that the archive holds and says."""
    crate.metadata.extra_contexts.append("https://w3id.org/ro/terms/workflow-run/context")
    name = plan.results.name
    root = crate.root_dataset
    root["name"] = about.title or f"Counterpoise study {name}"
    root["description"] = _description(plan)
    root["datePublished"] = datetime.now(UTC).date().isoformat()
    root["license"] = _licence(crate, about.licence)
    root["conformsTo"] = [
        _entity(crate, address, "CreativeWork", name=title, version=number)
        for address, (title, number) in PROFILES.items()
    ]
    authors = [_author(crate, text) for text in about.authors]
    if authors:
        root["author"] = authors if len(authors) > 1 else authors[0]
    snakefile = ROOT / "Snakefile"
    said = {"name": "Counterpoise", "encodingFormat": "text/plain", "sha256": files.sha256(snakefile)}
    workflow = crate.add_workflow(
        snakefile,
        "Snakefile",
        main=True,
        lang="snakemake",
        lang_version=version("snakemake"),
        properties={**said, **_size(snakefile)},
    )
    workflow["license"] = _entity(crate, "https://spdx.org/licenses/MIT", "CreativeWork", name="MIT License")
    workflow["version"] = f"{pipeline_src.__version__} ({', '.join(_commits(plan)) or 'no Git'})"
    workflow["conformsTo"] = {"@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"}
    workflow["softwareRequirements"] = _entity(
        crate, SOFTWARE, "SoftwareApplication", name="Counterpoise", softwareVersion=workflow["version"]
    )
    for file, place in _program(plan):
        _add(crate, file, place)
    whole = folder / "whole-study.yaml"
    whole.write_text(f"# Every value of the study, and where it is from.\n{origins(plan)}\n", encoding="utf-8")
    given = [_add(crate, whole, WHOLE, "Every value of the study, and where it is from")]
    given += [_add(crate, file, f"params/{_inside(file)}") for file in (plan.file, *plan.params.extended)]
    made = [_add(crate, file, file.as_posix()) for file in _results(plan)]
    made += [_add(crate, file, file.as_posix()) for file in _runs(plan, about.weights)]
    readme = folder / "README.md"
    readme.write_text(_readme(plan, root["name"]), encoding="utf-8")
    _add(crate, readme, "README.md", "What is in here", about=root)
    action = crate.add_action(
        workflow,
        identifier="#run",
        object=given,
        result=made,
        properties={
            "name": f"Run of the study {name}",
            "description": f"Trained and evaluated {len(plan.runs)} runs and made the report of them.",
            "startTime": started,
            "endTime": ended,
            "actionStatus": "http://schema.org/CompletedActionStatus",
        },
    )
    if authors:
        action["agent"] = authors[0]
    root["mentions"] = action


def _program(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Files of the program that say what was run: rules, recipes, pins, licence, citation."""
    recipes = {data.recipe for data in plan.data} & set(config.shipped_recipes())
    for pattern in ("workflow/rules/*.smk", *(f"recipes/{name}.yaml" for name in sorted(recipes))):
        yield from ((file, file.relative_to(ROOT).as_posix()) for file in sorted(ROOT.glob(pattern)))
    for name in ("envs/requirements.txt", "LICENSE", "CITATION.cff"):
        if (ROOT / name).is_file():  # an installed package has none of them
            yield ROOT / name, name


def _results(plan: Plan) -> list[Path]:
    """Tables, figures, report and the index of the study."""
    return [plan.results / path for path, _ in sorted(files.below(plan.results)) if not Path(path).name.startswith(".")]


def _runs(plan: Plan, weights: bool) -> Iterator[Path]:
    for run in plan.runs:
        names = [RECORD, HISTORY, *([WEIGHTS] if weights else [])]
        yield from (run.folder / name for name in names if (run.folder / name).exists())
        yield from (path for path in sorted(run.evaluation.iterdir()) if path.is_file())


def _add(crate: ROCrate, file: Path, place: str, what: str | None = None, **more: Any) -> Entity:
    """A file of the archive, with its checksum; the same one if it is there already."""
    known = crate.get(place)
    if known is not None:
        return known
    kind = TYPES.get(file.suffix, "application/octet-stream")
    properties = {"name": what or place, "encodingFormat": kind, "sha256": files.sha256(file), **_size(file), **more}
    return crate.add_file(file, place, properties=properties)


def _entity(crate: ROCrate, address: str, kind: str, **properties: Any) -> Entity:
    from rocrate.model.contextentity import ContextEntity

    return crate.get(address) or crate.add(ContextEntity(crate, address, properties={"@type": kind, **properties}))


def _licence(crate: ROCrate, licence: str | None) -> Any:
    if licence is None:
        return NO_LICENCE
    address = licence if "://" in licence else f"https://spdx.org/licenses/{licence}"
    return _entity(crate, address, "CreativeWork", name=licence)


def _author(crate: ROCrate, text: str) -> Entity:
    found = ORCID.fullmatch(text.strip())
    if found:
        return _entity(crate, f"https://orcid.org/{found[2]}", "Person", name=found[1].strip())
    name = text.strip()
    if not name:
        raise UserError("--author: expected a name, but got none")
    return _entity(crate, f"#{re.sub(r'[^A-Za-z0-9]+', '-', name)}", "Person", name=name)


def _description(plan: Plan) -> str:
    study = plan.params.study
    return (
        f"Balanced multimodal learning: {listed(study.methods, 50)} on {listed(study.datasets, 50)} with "
        f"{listed(study.fusions, 50)}, {len(study.seeds)} seeds, {len(plan.runs)} runs. Parameters, records, metrics, "
        "predictions, tables and the report of the study, made by Counterpoise."
    )


def _readme(plan: Plan, title: str) -> str:
    return (
        f"# {title}\n\n{_description(plan)}\n\n"
        f"- `{plan.results.as_posix()}/report.html`: the report, to open first\n"
        f"- `{plan.results.as_posix()}/tables/`: the tables; `metrics.parquet`: every metric of every run\n"
        f"- `{WHOLE}`: every value of the study, and where it is from\n"
        "- `results/runs/`: of every run, `record.json` (parameters, versions, hashes, machine), `metrics.jsonl` (a "
        "line per epoch), `predictions.parquet`\n"
        f"- `{METADATA}`: what each file is, with its checksum (Workflow Run RO-Crate)\n\n"
        "`counterpoise unpack ARCHIVE --with mine.yaml` checks all files and compares the study with one of yours.\n"
    )


def _commits(plan: Plan) -> list[str]:
    """Versions of the program by which the runs were made."""
    return sorted({str(RunFiles(run).record()["versions"].get("git")) for run in plan.runs} - {"None"})


def _inside(file: Path) -> str:
    """Where a params file is in the archive: as in the working directory, or by its name alone."""
    path = Path(os.path.relpath(file))
    return plain(path.name if ".." in path.parts or path.is_absolute() else path.as_posix())


def _size(file: Path) -> dict[str, str]:
    return {"contentSize": str(file.stat().st_size)}
