"""What DVC must not record: a stage with lost files, or with raw media that dvc.yaml does not watch."""

from pathlib import Path

import yaml

from pipeline_src.errors import UserError, listed

# The stages of dvc.yaml but the last -> the pipeline's stages in each.
STAGES = {"data": ("fetch", "manifest"), "features": ("extract", "cache"), "runs": ("train", "evaluate")}
FILE = Path("dvc.yaml")


def check(plan, stage: str) -> None:
    """Check, before DVC records a stage of dvc.yaml, that all it made is there.

    Raises UserError for files that are missing although the stage has ended, and for a data set's own folder that is
    not among the stage's dependencies: DVC would not see that it changed.
    """
    lost = [path for part in STAGES[stage] for job in plan.jobs(part) for path in job if not path.exists()]
    if lost:
        raise UserError(
            f"{listed([str(path) for path in lost])}: expected a file, found none ({len(lost)} in all); "
            "restore it (dvc checkout), or delete its folder and run snakemake again"
        )
    if stage == "data":
        watched = {str(Path(path)) for path in yaml.safe_load(FILE.read_text())["stages"]["data"]["deps"]}
        for data in plan.data.values():
            if not data.fetched and str(data.raw) not in watched:
                raise UserError(
                    f"{FILE}: stages.data.deps: expected {data.raw}, the folder of datasets.{data.name}, found it not; "
                    f"add the line `- {data.raw}`, or DVC does not see that a file in it changed"
                )
