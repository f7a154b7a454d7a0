"""A small study on real media files: the shipped params.yaml with a few clips, a tiny network and two epochs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
SMALL = {
    "study": {"fusions": ["concat"], "methods": ["joint"], "seeds": [0, 1]},
    "datasets": {"av_digits": {"clips": 84, "pixels": 32, "fps": 6}},
    "recipes": {"av-digits-2": {"visual": {"size": 32, "count": 2}}},
    "model": {"encoders": {m: {"width": 4, "depth": [1, 1]} for m in ("audio", "visual")}},
    "training": {"epochs": 2, "batch_size": 32, "track_test": True},
    "methods": {"relearning": {"every": 20}},  # not in this study
    "tracking": {"enabled": False},  # but in its own tests
}


def merged(base: dict, change: dict) -> dict:
    """`base` with the values of `change` at any depth."""
    return base | {
        key: merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in change.items()
    }


def write_params(folder: Path, *changes: dict) -> None:
    """params.yaml and resources.yaml of the small study, with changes (of resources: below that key), in `folder`."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["resources"] = yaml.safe_load((ROOT / "workflow/resources.yaml").read_text())
    for change in (SMALL, *changes):
        values = merged(values, change)
    (folder / "resources.yaml").write_text(yaml.safe_dump(values.pop("resources"), sort_keys=False))
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    """Snakemake in `folder`, in a process group of its own."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    environment = {"COUNTERPOISE_LOG": "INFO", **os.environ, "PYTHONPATH": str(ROOT)}  # every job's lines
    environment["COUNTERPOISE_RESOURCES"] = str(folder / "resources.yaml")
    return subprocess.Popen(
        [*command, "--cores", "2", *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def snakemake(folder: Path, *arguments: str, succeeds: bool = True) -> str:
    """Output of a whole run of snakemake in `folder`; fails if its end is not as expected."""
    process = start(folder, *arguments)
    output, _ = process.communicate()
    assert (process.returncode == 0) == succeeds, output
    return output


def kill(process: subprocess.Popen) -> None:
    """End a process and all it started, as the kernel or a scheduler does."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def jobs(dry_run: str) -> dict[str, int]:
    """Rule -> number of jobs, from the table that a dry run prints."""
    lines = dry_run.rsplit("Job stats:", 1)[-1].splitlines()
    pairs = [line.split() for line in lines]
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit() and pair[0] != "total"}
