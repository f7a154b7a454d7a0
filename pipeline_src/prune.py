"""Removes outputs that params.yaml, the code and the raw data no longer lead to; they pile up because addresses never
clash.
"""

from pathlib import Path

from pipeline_src import files
from pipeline_src.plan import Plan

DEPTH = {"data/raw": 1, "data/manifest": 1, "data/cache": 2, "results/runs": 5}  # of an address below each root


def stale(plan: Plan) -> list[Path]:
    """Folders of addresses that the plan does not name, of all data sets."""
    named = {data.raw for data in plan.data.values()} | {data.manifest for data in plan.data.values()}
    named |= {data.cache for data in plan.data.values()} | {run.folder for run in plan.runs}
    found = []
    for root, depth in DEPTH.items():
        found += [
            path for path in sorted(Path(root).glob("/".join("*" * depth))) if path.is_dir() and path not in named
        ]
    for run in plan.runs:
        found += [path for path in sorted(run.folder.glob("evaluation-*")) if path != run.evaluation]
    return found


def prune(plan: Plan, yes: bool) -> None:
    """Print what is stale and its size; remove it if `yes`."""
    total = 0
    for path in stale(plan):
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        total += size
        print(f"{size / 2**20:10.1f} MB  {path}")
        if yes:
            files.remove(path)
    print(f"{total / 2**20:10.1f} MB  " + ("removed" if yes else "in all; --yes removes them"))
