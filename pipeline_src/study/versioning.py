"""What DVC must not record: a stage with lost files, or with files of the user's own that dvc.yaml does not watch. And
what Git must not: a remote's password.
"""

from __future__ import annotations

from configparser import ConfigParser, Error
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import yaml

from pipeline_src.core.errors import UserError, listed
from pipeline_src.core.stages import STAGES

if TYPE_CHECKING:
    from pipeline_src.study.plan import Plan

# The stages of dvc.yaml but the last -> the pipeline's stages in each, two by two.
PARTS = {"data": STAGES[0:2], "features": STAGES[2:4], "runs": STAGES[4:6]}
FILE = Path("dvc.yaml")
CONFIG = Path(".dvc/config")  # in Git; .dvc/config.local is not
SECRETS = ("password", "secret", "secret_access_key", "token", "account_key", "customer_key", "connection_string")


def check(plan: Plan, stage: str) -> None:
    """Check, before DVC records a stage of dvc.yaml, that all it made is there.

    Raises UserError for files that are missing although the stage has ended, and for raw media or weights of the
    user's own that are not among the stage's dependencies: DVC would not see that they changed. And for a password in
    the file of DVC's remotes that is in Git.
    """
    _check_remotes()
    lost = [path for part in PARTS[stage] for job in plan.jobs(part) for path in job if not path.exists()]
    if lost:
        raise UserError(
            f"{listed([str(path) for path in lost])}: expected a file, but got none ({len(lost)} in all); "
            "restore it (dvc checkout), or delete its folder and run snakemake again"
        )
    watched = {Path(path) for path in yaml.safe_load(FILE.read_text(encoding="utf-8"))["stages"][stage]["deps"]}
    for key, path in _own(plan, stage).items():
        if not any(path == one or one in path.parents for one in watched):
            raise UserError(
                f"{FILE}: stages.{stage}.deps: expected {path}, which {key} names, but it is not; "
                f"add the line `- {path}`, or DVC does not see when it changes"
            )


def _check_remotes() -> None:
    config = ConfigParser(interpolation=None)
    try:
        config.read(CONFIG, encoding="utf-8")
    except (Error, UnicodeDecodeError):
        return  # DVC says so itself
    for section in config.sections():
        for key, value in config[section].items():
            if (key.endswith(SECRETS) and key != "ask_password") or _password(value):
                name = section.strip("'").removeprefix('remote "').rstrip('"')
                raise UserError(
                    f"{CONFIG}: expected no password in a file that Git records, but got {key} of {name}; remove it "
                    f"there and set it by `dvc remote modify --local {name} ...`, which writes .dvc/config.local"
                )


def _password(address: str) -> str | None:
    try:
        return urlsplit(address).password
    except ValueError:  # no address
        return None


def _own(plan: Plan, stage: str) -> dict[str, Path]:
    """Key of params.yaml -> the file or folder outside the pipeline that it makes a stage read."""
    plugins = {f"plugins.{i}": Path(folder) for i, folder in enumerate(plan.params.plugins)}
    plugins |= {f"`extends` of {by}": file for by, file in pairwise([plan.file, *plan.params.extended])}
    if stage == "data":
        folders = {data.name: data.dataset.folder for data in plan.data}
        return plugins | {f"datasets.{name}": folder for name, folder in folders.items() if folder is not None}
    if stage == "runs":
        weights = {m: getattr(params, "weights", None) for m, params in plan.params.model.encoders.items()}
        return plugins | {f"model.encoders.{m}.weights": Path(file) for m, file in weights.items() if file}
    return plugins
