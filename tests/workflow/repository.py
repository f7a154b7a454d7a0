"""A Git repository with the project in it, DVC's settings included, and the small study's parameters."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.workflow.small import ROOT, write_params

PARTS = ["Snakefile", "dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"]
FOLDERS = [".dvc/plots", "envs", "pipeline_src", "profiles", "recipes", "workflow"]


def make(folder: Path, *changes: dict) -> Path:
    """The repository with one commit; `changes` are those of write_params."""
    for part in PARTS:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / part, folder / part)
    for part in FOLDERS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    write_params(folder, *changes)
    (folder / "resources.yaml").replace(folder / "workflow/resources.yaml")
    run(folder, "git", "init", "--quiet", "--initial-branch", "main")
    commit(folder, "The project")
    return folder


def change(folder: Path, change: dict) -> None:
    """Change values of the repository's params.yaml."""
    from tests.workflow.small import merged

    values = yaml.safe_load((folder / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump(merged(values, change), sort_keys=False))


def environment(folder: Path) -> dict[str, str]:
    """Commands find this interpreter's snakemake and the repository's own package; Git knows who commits."""
    who = {f"GIT_{role}_{what}": "tests" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "DVC_", "COUNTERPOISE_"))}
    return {**kept, **who, "PATH": path, "PYTHONPATH": str(folder), "COUNTERPOISE_LOG": "INFO"}  # every job's lines


def start(folder: Path, *command: str) -> subprocess.Popen:
    """A command in the repository, in a process group of its own."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def run(folder: Path, *command: str, succeeds: bool = True) -> str:
    """Output of a command in the repository; fails if its end is not as expected."""
    process = start(folder, *command)
    output, _ = process.communicate()
    assert (process.returncode == 0) == succeeds, output
    return output


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", message)
