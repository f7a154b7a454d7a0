"""What planning a large study costs: `snakemake -n` here, over that of a bare Snakefile with the same jobs."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import yaml

from benchmarks.synthetic import grid
from pipeline_src.core.errors import UserError
from pipeline_src.features import CACHE_FILE
from pipeline_src.study import outputs
from pipeline_src.study.estimate import COUNTS
from pipeline_src.study.plan import Plan

ROOT = Path(__file__).parents[1]
ROUNDS = 3
# The jobs' outputs, by stage: patterns as in workflow/rules.
RULES = {
    "fetch": [f"{outputs.RAW}/files.json"],
    "manifest": [f"{outputs.MANIFEST}/manifest.parquet", f"{outputs.MANIFEST}/quarantine.parquet"],
    "extract": [f"{outputs.SHARD}.arrow"],
    "cache": [f"{outputs.CACHE}/{CACHE_FILE}", f"{outputs.CACHE}/quarantine.parquet"],
    "evaluate": [f"{outputs.EVALUATION}/metrics.json"],
}
HEAD = """\
import json
from pathlib import Path

jobs = json.loads(Path("jobs.json").read_text())


def reads(stage, pattern):
    return lambda w: jobs[stage][pattern.format(**dict(w.items()))]


wildcard_constraints:
    fp="[0-9a-f]+",
    evaluation="[0-9a-f]+",
    seed="[0-9]+",


rule all:
    input:
        "index",
        list(jobs["evaluate"]),


rule aggregate:
    input:
        list(jobs["evaluate"]),
    output:
        "index",
    shell:
        "true"
"""
RULE = """

rule {name}:
    input:
        reads("{name}", {first!r}),
    output:
        {outputs},
    shell:
        "true"
"""


class Cost(NamedTuple):
    """CPU seconds of a command with all that it started, and the most memory that one of its processes held, MB."""

    cpu: float
    memory: float


def plan(file: Path, runs: int) -> None:
    """Print CPU time and memory of a dry run of about `runs` runs with the file's settings, none of which is there: of
    the bare Snakefile, here after `estimate` has counted the encoders' operations, and here before.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours, bare = folder / "ours", folder / "bare"
        ours.mkdir()
        (ours / "params.yaml").write_text(yaml.safe_dump(grid(file, runs), sort_keys=False), encoding="utf-8")
        count, jobs = write_bare(ours, bare)
        print(f"dry run of {count:,} runs, {jobs:,} jobs; medians of {ROUNDS} turns, and of the ratios of each turn")
        print(f"{'':34}{'CPU s':>8}{'ratio':>8}{'MB':>8}{'ratio':>8}", flush=True)
        turns = []
        for _ in range(ROUNDS):
            (ours / COUNTS).unlink(missing_ok=True)
            alone, first = dry_run(bare / "Snakefile", bare), dry_run(ROOT / "Snakefile", ours)
            count_operations(ours)
            turns.append((alone, dry_run(ROOT / "Snakefile", ours), first))
    for i, label in enumerate(("bare Snakemake", "here", "here, the encoders not yet counted")):
        values = [statistics.median(turn[i][k] for turn in turns) for k in range(2)]
        ratios = [statistics.median(turn[i][k] / turn[0][k] for turn in turns) for k in range(2)]
        print(f"{label:34}{values[0]:8.1f}{ratios[0]:8.2f}{values[1]:8.0f}{ratios[1]:8.2f}")


def count_operations(study: Path) -> None:
    """Run `estimate` on the study of `study`/params.yaml; its counts are remembered."""
    command = [sys.executable, "-m", "pipeline_src", "estimate"]
    subprocess.run(command, cwd=study, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)


def write_bare(study: Path, folder: Path) -> tuple[int, int]:
    """A Snakefile in `folder` with the jobs of the study of `study`/params.yaml and nothing else: the same outputs, the
    same inputs. Gives the numbers of runs and jobs.
    """
    before = Path.cwd()
    os.chdir(study)
    try:
        planned = Plan("params.yaml")
        jobs = {
            stage: {str(path): list(map(str, planned.inputs(stage, str(path)))) for path, _ in planned.places(stage)}
            for stage in RULES
        }
    finally:
        os.chdir(before)
    folder.mkdir()
    (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    rules = [RULE.format(name=name, first=of[0], outputs=", ".join(map(repr, of))) for name, of in RULES.items()]
    (folder / "Snakefile").write_text(HEAD + "".join(rules), encoding="utf-8")
    return len(planned.runs), 2 + sum(map(len, jobs.values()))


def dry_run(snakefile: Path, folder: Path) -> Cost:
    """The cost of `snakemake -n`. Raises UserError if it fails."""
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "--snakefile", str(snakefile)]
    with (folder / "output").open("w+", encoding="utf-8") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            last = output.read().strip().splitlines()[-1:]
            raise UserError(f"{snakefile}: expected a dry run, but it ended with {process.returncode}: {''.join(last)}")
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1000)
