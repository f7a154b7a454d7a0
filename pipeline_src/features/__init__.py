"""The feature cache."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline_src.core import files
from pipeline_src.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

CACHE_FILE = "cache.json"  # index of a finished cache, in its folder
QUARANTINE_FILE = "quarantine.parquet"  # all of its clips that could not be read, and those of the manifest


class Room(NamedTuple):
    """A folder of this machine, in which `$VARIABLES` and `~` are replaced, and how many bytes may lie there."""

    folder: str
    bytes: int

    @property
    def path(self) -> Path:
        path = os.path.expandvars(self.folder)
        if "$" in path:
            raise UserError(
                f"local_copy.folder: expected variables that this machine sets, but got {self.folder}; set them in the "
                "environment of the jobs, or name another folder"
            )
        return Path(path).expanduser()


def fix(file: Path) -> str:
    """How a damaged file of a cache is made again: cache.json goes too, as it makes the others count as done."""
    index = file.with_name(CACHE_FILE)
    names = f"{file} and {index}" if file != index else str(file)
    return f"delete {names}, and run snakemake again"


def read_info(folder: Path, fresh: bool = False) -> dict[str, Any]:
    """cache.json of a finished cache. Raises UserError if there is none, or a damaged one."""
    file = files.awaited(folder / CACHE_FILE)
    return files.read_sealed(file, fix(file) if file.exists() else "run snakemake", fresh)


def unseen_in_val(label: "pd.Series", split: "pd.Series") -> list[Any]:
    """Classes that train has and val lacks, sorted: choosing an epoch on val does not see them. Labels may be lists."""
    return sorted(set(label[split == "train"].explode()) - set(label[split == "val"].explode()))
