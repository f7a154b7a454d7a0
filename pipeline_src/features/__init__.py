"""The feature cache."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_src.core import files

if TYPE_CHECKING:
    import pandas as pd

CACHE_FILE = "cache.json"  # index of a finished cache, in its folder
QUARANTINE_FILE = "quarantine.parquet"  # all of its clips that could not be read, and those of the manifest


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
