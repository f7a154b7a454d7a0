"""The pipeline on a real Slurm of two nodes: both work, and jobs outlive preemption, their time limit and their node.

What Slurm itself recorded is printed: python -m pytest -s tests/workflow/test_slurm.py
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.workflow.small import ROOT, kill, snakemake, start, write_params

CLUSTER = ROOT / "slurm/toy/cluster"
STATE = Path("/run/counterpoise-toy-cluster")
PROFILE = ("--profile", "slurm", "--slurm-init-seconds-before-status-checks", "1")
PARTITIONS = {"default": {"partition": "cpu"}, "train": {"partition": "gpu"}}


@pytest.fixture(scope="module")
def cluster():
    able = subprocess.run([CLUSTER, "check"], capture_output=True, text=True)
    if able.returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(able.stderr.strip())
    ours = not STATE.exists()
    subprocess.run([CLUSTER, "up"], check=True)
    yield
    if ours:
        subprocess.run([CLUSTER, "down"], check=True)


@pytest.fixture(scope="module")
def finished(cluster, tmp_path_factory) -> Path:
    """The small study, run by Slurm."""
    folder = tmp_path_factory.mktemp("study")
    write_params(folder, {"datasets": {"av_digits": {"shards": 1}}, "resources": PARTITIONS})
    (folder / "slurm").symlink_to(ROOT / "slurm")
    snakemake(folder, *PROFILE, "--group-components", "cells=2")
    return folder


def until(true: Callable, process: subprocess.Popen | None = None):
    """What `true` returns as soon as it is so."""
    deadline = time.time() + 300
    while not (value := true()):
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.time() < deadline
        time.sleep(0.02)
    return value


def scontrol(*arguments: str) -> str:
    return subprocess.run(["scontrol", *arguments], check=True, capture_output=True, text=True).stdout


def slurm_jobs(folder: Path) -> list[dict[str, str]]:
    """What the controller knows of every job that was submitted in `folder`, oldest first."""
    jobs = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in scontrol("show", "job", "-o").splitlines()]
    jobs = [job for job in jobs if job.get("WorkDir") == str(folder.resolve())]
    columns = ("JobId", "Comment", "Partition", "NodeList", "TimeLimit", "Restarts", "JobState")
    for job in sorted(jobs, key=lambda job: int(job["JobId"])):
        print("  ".join(job[column] for column in columns), job.get("TresPerJob", "no gpu"))
    return sorted(jobs, key=lambda job: int(job["JobId"]))


def test_both_nodes_train_and_only_who_needs_one_asks_for_a_gpu(finished):
    jobs = slurm_jobs(finished)
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    trained = [job for job in jobs if job["Comment"].startswith("rule_cells")]
    assert {job["NodeList"] for job in trained} == {"gpu1", "gpu2"}
    assert {(job["TresPerJob"], job["Partition"]) for job in trained} == {("gres:gpu:1", "gpu")}
    assert sorted(job["TimeLimit"] for job in trained) == ["02:00:00"] * 3  # six runs, two to a job
    others = [job for job in jobs if job not in trained]
    assert sorted(job["Comment"].split("_")[1] for job in others) == ["cache", "extract", "manifest"]
    assert not any("gpu" in job.get(field, "") for job in others for field in ("TRES", "TresPerJob", "TresPerNode"))
    assert {job["Partition"] for job in others} == {"cpu"}
    log = (STATE / "jobs.log").read_text()
    assert all(re.search(rf"^JobId={job['JobId']} .*JobState=COMPLETED ", log, re.MULTILINE) for job in jobs)
    assert len(list(finished.glob("results/runs/**/record.json"))) == 6


def test_nothing_is_left_to_do(finished):
    assert "Nothing to be done" in snakemake(finished, *PROFILE, "-n")


def test_several_gpus_are_asked_for_on_one_node(finished, tmp_path):
    """No node of this cluster has two, so that Slurm refuses a job that two nodes could serve together."""
    study = shutil.copytree(finished, tmp_path / "study", symlinks=True, ignore=shutil.ignore_patterns("results"))
    write_params(
        study,
        {"datasets": {"av_digits": {"shards": 1}}, "resources": PARTITIONS, "training": {"gpus": 2}},
    )
    output = snakemake(study, *PROFILE, "--retries", "0", "--max-jobs-per-timespan", "100/1s", succeeds=False)
    assert "SLURM sbatch failed. The error message was" in output
    assert "Requested node configuration is not available" in output
    subprocess.run(["sbatch", "--test-only", "--partition=gpu", "--gpus=2", "--wrap=true"], check=True)  # no --nodes=1


class Training:
    """The process that trains a cell of a study, to be held still once the run has more than `epochs`: it then has a
    checkpoint, and waits for what the test does to it, however fast the machine is.
    """

    def __init__(self, study: Path, fusion: str, epochs: int = 1):
        self.study, self.fusion, self.epochs = study, fusion, epochs
        self.pid = self.job = self.node = None

    def held(self) -> bool:
        if self.pid is None and self.lines() > self.epochs and (pid := self.find()):
            os.kill(pid, signal.SIGSTOP)
            self.pid = pid
            self.job, self.node = (environment(pid)[name] for name in ("SLURM_JOB_ID", "SLURMD_NODENAME"))
        return self.pid is not None

    def files(self, name: str) -> list[Path]:
        return list(self.study.glob(f"results/runs/*/*/{self.fusion}/*/seed0/{name}"))

    def lines(self) -> int:
        return sum(len(file.read_text().splitlines()) for file in self.files("metrics.jsonl"))

    def status(self) -> str | None:
        return next((json.loads(file.read_text())["status"] for file in self.files("attempt.json")), None)

    def find(self) -> int | None:
        for pid in processes():
            line = command(pid)
            ours = line[1:4] == ["-m", "pipeline_src", "train"] and f"/{self.fusion}/" in line[-2]
            if ours and Path(f"/proc/{pid}/cwd").resolve() == self.study:
                return pid
        return None

    def has_saved(self) -> bool:
        """Whether it has done as the signal asked. Slurm wakes whom it asks to end; should a version not, we do."""
        with contextlib.suppress(OSError):  # it has ended
            masks = re.findall(r"^S\w*Pnd:\s*(\w+)", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
            if any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in masks):
                os.kill(self.pid, signal.SIGCONT)
        return self.status() == "interrupted"


def processes() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:  # it has ended
        return [""]


def environment(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)


def kill_node(node: str, job: str) -> None:
    """End a node's slurmd and all that its job started, with no chance to say anything, as a loss of power does."""
    os.kill(int((STATE / f"slurmd.{node}.pid").read_text()), signal.SIGKILL)
    for pid in processes():
        if environment(pid).get("SLURM_JOB_ID") == job or command(pid)[0].startswith(f"slurmstepd: [{job}."):
            os.kill(pid, signal.SIGKILL)


def content(run: Path) -> tuple:
    """All that a run found out, to the last bit: hash of the weights, metrics of every epoch, predictions."""
    with safe_open(run / "weights.safetensors", "pt") as weights:
        digest = weights.metadata()["sha256"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (predictions,) = run.glob("*/predictions.parquet")
    return digest, [{k: v for k, v in row.items() if k != "seconds"} for row in rows], predictions.read_bytes()


def test_jobs_outlive_preemption_their_time_limit_and_their_node(finished, tmp_path):
    """One cell is preempted and then runs out of time, the node of another dies: both end as if nothing had been."""
    cells = {"unimodal": False, "fusions": ["concat", "sum"], "methods": ["joint"], "seeds": [0]}
    study, undisturbed = tmp_path.resolve() / "study", tmp_path.resolve() / "undisturbed"
    for folder in (study, undisturbed):
        shutil.copytree(finished, folder, symlinks=True, ignore=shutil.ignore_patterns("results", ".snakemake"))
        data = {"av_digits": {"shards": 1}}
        write_params(folder, {"study": cells, "datasets": data, "training": {"epochs": 60}, "resources": PARTITIONS})
    started = [start(study, *PROFILE, "--group-components", "cells=1"), start(undisturbed)]
    process = started[0]
    try:
        preempted, struck = Training(study, "concat"), Training(study, "sum")
        until(lambda: all([preempted.held(), struck.held()]), process)  # whichever comes first
        assert {preempted.node, struck.node} == {"gpu1", "gpu2"}
        kill_node(struck.node, struck.job)

        scontrol("requeue", preempted.job)
        until(preempted.has_saved, process)
        limited = Training(study, "concat", epochs=preempted.lines())
        until(limited.held, process)
        assert limited.job == preempted.job

        scontrol("update", f"JobId={limited.job}", "TimeLimit=3")  # minutes: its signal is due three before the end
        until(limited.has_saved, process)
        for one in started:
            output, _ = one.communicate(timeout=600)
            assert one.returncode == 0, output
    finally:
        for one in started:
            if one.poll() is None:
                kill(one)
        subprocess.run([CLUSTER, "up"], check=True)  # the node is fixed

    jobs = {job["JobId"]: job for job in slurm_jobs(study)}
    first, other = jobs.pop(preempted.job), jobs.pop(struck.job)
    assert (first["JobState"], first["Restarts"], first["TimeLimit"]) == ("FAILED", "1", "00:03:00")
    assert (other["JobState"], other["Restarts"], other["NodeList"]) == ("COMPLETED", "1", preempted.node)
    (again,) = jobs.values()  # Snakemake's retry of the first
    assert (again["JobState"], again["TimeLimit"]) == ("COMPLETED", "02:00:00")  # an hour, twice on the second try

    resumed = {file.parts[-4]: json.loads(file.read_text())["resumed"] for file in study.glob("results/**/record.json")}
    assert resumed == {"concat": 2, "sum": 1}
    for file in study.glob("results/runs/**/record.json"):
        twin = undisturbed / file.parent.relative_to(study)
        assert content(file.parent) == content(twin)
    assert "Nothing to be done" in snakemake(study, *PROFILE, "-n")
