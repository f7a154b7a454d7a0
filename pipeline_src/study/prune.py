"""Removes outputs that params.yaml, the code and the raw data no longer lead to; they pile up because addresses never
clash.
"""

import re
from pathlib import Path

from pipeline_src.core import files
from pipeline_src.core.fingerprint import HEX
from pipeline_src.study.plan import CACHE, MANIFEST, RAW, RUN, Plan


def stale(*plans: Plan) -> list[Path]:
    """Folders of addresses that none of the plans names, of all datasets."""
    data = [one for plan in plans for one in plan.data.values()]
    runs = [run for plan in plans for run in plan.runs]
    named = {path for one in data for path in (one.raw, one.manifest, one.cache)} | {run.folder for run in runs}
    evaluations = {run.evaluation for run in runs}
    found = []
    for address in (RAW, MANIFEST, CACHE, RUN):
        shape = re.compile(re.sub(r"{\w+}", lambda part: HEX if part[0] == "{fp}" else "[^/.][^/]*", address))
        for path in sorted(Path().glob(re.sub(r"{\w+}", "*", address))):
            # Whatever else lies there is no output of ours: a user's own folder, or what a running job writes.
            if path.is_dir() and path not in named and shape.fullmatch(path.as_posix()):
                found.append(path)
    for folder in sorted({run.folder for run in runs}):
        found += [path for path in sorted(folder.glob("evaluation-*")) if path not in evaluations]
    return found


def prune(plans: list[Plan], yes: bool) -> None:
    """Print what is stale and its size; remove it if `yes`."""
    total = 0
    for path in stale(*plans):
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        total += size
        print(f"{size / 2**20:10.1f} MB  {path}")
        if yes:
            files.remove(path)
    print(f"{total / 2**20:10.1f} MB  " + ("removed" if yes else "in all; --yes removes them"))
