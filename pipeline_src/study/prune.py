"""Removes outputs that no params file, the code and the raw data lead to any more; they pile up because addresses never
clash.
"""

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.core.fingerprint import HEX
from pipeline_src.study.outputs import CACHE, MANIFEST, RAW, RUN, STUDY
from pipeline_src.study.plan import Plan

STUDY_KEY = re.compile(rb"^(study|extends):", re.MULTILINE)  # of a params file


def stale(*plans: Plan) -> list[Path]:
    """Folders of addresses that none of the plans names, of all datasets."""
    data = [one for plan in plans for one in plan.data]
    runs = [run for plan in plans for run in plan.runs]
    named = {path for one in data for path in (one.raw, one.manifest, one.cache)} | {run.folder for run in runs}
    evaluations, absent = {run.evaluation for run in runs}, _absent(plans)
    found = []
    for address in (RAW, MANIFEST, CACHE, RUN):
        shape = re.compile(re.sub(r"{\w+}", lambda part: HEX if part[0] == "{fp}" else "[^/.][^/]*", address))
        for path in sorted(Path().glob(re.sub(r"{\w+}", "*", address))):
            # Whatever else lies there is no output of ours: a user's own folder, or what a running job writes.
            ours = path.is_dir() and path not in named and shape.fullmatch(path.as_posix())
            if ours and not any(_of(path, name) for name in absent):
                found.append(path)
    for folder in sorted({run.folder for run in runs}):
        found += [path for path in sorted(folder.glob("evaluation-*")) if path not in evaluations]
    return found


def studies(given: Iterable[str | Path] = ()) -> list[Plan]:
    """The plans of every study: of the files given, of YAML files here and in experiments/ that have a `study` or
    extend one, and of those that tables were made of. Raises UserError for one that cannot be read, as nobody knows
    what it names.
    """
    made = []
    for index in sorted(Path().glob(STUDY.format(study="*") + "/tables/index*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            made.append(Path(files.read_json(index)["params"]))
    near = [path for pattern in ("*.y*ml", "experiments/*.y*ml") for path in sorted(Path().glob(pattern))]
    others = [path for path in [*near, *made] if path.is_file() and STUDY_KEY.search(path.read_bytes())]
    plans = {}
    for path in [*map(Path, given), *others]:
        if path.resolve() in plans:
            continue
        try:
            plans[path.resolve()] = plan = Plan(path)
            plan.runs  # noqa: B018
        except UserError as error:
            raise UserError(
                f"{error}\n{path}: not pruned, as what this study names is not known; fix or move it"
            ) from None
    return list(plans.values())


def prune(given: Iterable[str | Path], yes: bool, objects: bool = False) -> None:
    """Print the studies that were considered, what none of them names, and its size; remove that if `yes`.

    A cache whose shards lie in storage goes with them, if `objects`, or stays: another clone may read them.
    """
    from pipeline_src.features import storage  # pyarrow, which no plan needs

    plans, total = studies(given), 0
    print(f"kept, as named by one of {len(plans)} studies: {', '.join(str(plan.file) for plan in plans)}")
    for name in sorted(_absent(plans)):
        print(f"kept, as its folder is not there: everything of {name}")
    for path in stale(*plans):
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        stored = [about for file in sorted(path.glob("*.arrow")) if (about := storage.listed(file)) is not None]
        size += sum(about.bytes for about in stored)
        where = f"; shards in storage: {len(stored)}, {stored[0].address} ..." if stored else ""
        if stored and not objects:
            print(f"{size / 2**20:10.1f} MB  {path}{where}; kept: --storage removes it, see that nobody else reads it")
            continue
        total += size
        print(f"{size / 2**20:10.1f} MB  {path}{where}")
        if yes:
            for about in stored:
                storage.Storage(about.base).remove(about.key)
            files.remove(path)
    print(f"{total / 2**20:10.1f} MB  " + ("removed" if yes else "in all; --yes removes them"))


def _absent(plans: Iterable[Plan]) -> set[str]:
    """Datasets whose folder, the user's own, is not there now, so that addresses made from it are not known."""
    data = [data for plan in plans for data in plan.data]
    return {one.name for one in data if one.dataset.folder is not None and not one.dataset.folder.is_dir()}


def _of(path: Path, dataset: str) -> bool:
    """Whether an address is of a dataset: its third part is the name, or the name and a fingerprint."""
    return path.parts[2] == dataset or re.fullmatch(rf"{re.escape(dataset)}-{HEX}", path.parts[2]) is not None
