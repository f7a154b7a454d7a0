"""A study whose runs are written by hand at the addresses of a real plan, so that nothing is trained; and stores."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from pipeline_src.core import files
from pipeline_src.study.plan import Plan
from pipeline_src.study.runs import write_record
from tests.workflow.small import ROOT, write_params

PATIENCE = 300.0  # seconds, on a machine that does much else


def planned(*changes: dict) -> Plan:
    """The plan of a study in the working directory: joint and OGM-GE, one seed, no unimodal models."""
    study = {"study": {"methods": ["joint", "ogm_ge"], "unimodal": False, "seeds": [0]}}
    write_params(Path(), study, *changes)
    plan = Plan()
    modalities = {
        "audio": {"layout": "spectrogram", "shape": [257, 46], "dtype": "float16"},
        "visual": {"layout": "frames", "shape": [2, 3, 32, 32], "dtype": "uint8"},
    }
    for data in plan.data:
        about = {"dataset": data.name, "recipe": data.recipe, "classes": ["no", "yes"], "quarantined": 0}
        splits = {"train": 48, "val": 12, "test": 24}
        files.write_sealed(data.cache_file, about | {"splits": splits, "modalities": modalities, "sha256": "ab" * 32})
    return plan


def row(epoch: int, attempt: int = 0, **changed: float) -> dict:
    """A line of metrics.jsonl; no two attempts take the same time."""
    values = {"lr": 0.02, "seconds": 1.5 + 0.01 * attempt, "loss": 1 / (1 + epoch), "ratio/audio": 1.1 + epoch}
    values |= {"ratio/visual": 0.9, "val_accuracy": 0.5 + epoch / 100, "val_accuracy/audio": 0.25}
    return {"epoch": epoch, **values, "test_accuracy": 0.4 + epoch / 100, **changed}


def begin(run, rows: list[dict], covered: int | None = None, status: str = "running", **about) -> None:
    """A run that is at work: `rows` are written, of which a checkpoint covers `covered` (default: all)."""
    covered = len(rows) if covered is None else covered
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    if covered:
        about_checkpoint = json.dumps({"epoch": covered - 1})
        save_file({"a": np.zeros(3)}, run.folder / "checkpoint.safetensors", metadata={"about": about_checkpoint})
    files.write_json(run.folder / "attempt.json", record(run) | {"status": status, **about})


def finish(run, rows: list[dict]) -> None:
    """A run that is trained and evaluated."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    write_record(run.folder, record(run) | {"status": "complete", "ended": "2025-01-01T10:05:00+00:00"})
    for left in ("attempt.json", "checkpoint.safetensors"):
        (run.folder / left).unlink(missing_ok=True)
    files.write_table(run.evaluation / "predictions.parquet", pd.DataFrame({"run": [run.label]}))
    files.write_sealed(run.metrics, {"names": run.names, "metrics": metrics(run)})


def metrics(run) -> list[dict]:
    base = 0.7 + 0.01 * len(run.cell.method)
    found = [("test", "fused", "accuracy", base), ("test", "audio", "accuracy_probe", base - 0.1)]
    found += [("test", "visual", "accuracy_probe", base - 0.2), ("val", "fused", "accuracy", base - 0.05)]
    found += [("train", "fused", "seconds", 12.5)]
    return [dict(zip(("split", "modality", "metric", "value"), one, strict=True)) for one in found]


def record(run) -> dict:
    return {
        **run.names,
        "fingerprint": run.cell.fp,
        "code": run.cell.code,
        "parameters": run.cell.spec.record(),
        "cache": {"folder": str(run.cell.data.cache), "fingerprint": run.cell.data.cache_fp, "sha256": "ab" * 32},
        "machine": {"host": "bench", "device": "cpu", "slurm_job": None},
        "versions": {"counterpoise": "0.1.0", "git": "1a2b3c4"},
        "started": "2025-01-01T10:00:00+00:00",
        "seconds": 12.5,
    }


def results(plan: Plan) -> None:
    """What aggregate writes, as far as it is mirrored."""
    rows = [run.names | one for run in plan.runs for one in metrics(run)]
    (plan.results / "tables").mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(plan.results / "metrics.parquet", index=False)
    (plan.results / "tables" / "accuracy.md").write_text("| method | accuracy |\n|---|---|\n")
    (plan.results / "report.html").write_text("<html></html>")
    files.write_json(plan.index, {})


def environment(uri: str | None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    resources = {"COUNTERPOISE_RESOURCES": str(Path("resources.yaml").resolve())}
    return {**kept, **resources, "PYTHONPATH": str(ROOT)} | ({"MLFLOW_TRACKING_URI": uri} if uri else {})


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipeline_src", *arguments]


def track(uri: str | None = None) -> subprocess.CompletedProcess:
    """`python -m pipeline_src track` in the working directory."""
    return subprocess.run(
        command("track"), env=environment(uri), capture_output=True, text=True, check=False, timeout=PATIENCE
    )


def until(what, why: str = "") -> None:
    """Wait for `what()` to be true; fails after minutes."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, why or "waited in vain"
        time.sleep(0.5)  # a look is several requests, which the one at work waits for


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(folder: Path, port: int):
    """A real MLflow server with its data in `folder`; its address."""
    arguments = ["--backend-store-uri", "sqlite:///server.db", "--artifacts-destination", "kept", "--workers", "1"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    address = f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), *arguments],
            cwd=folder,
            env=environment(None) | quiet,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until(lambda: process.poll() is not None or _answers(address), "the server does not answer")
        assert process.poll() is None, (folder / "server.log").read_text()
        yield address
    finally:
        end(process)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=10):
            return True
    except OSError:
        return False


def end(process: subprocess.Popen) -> None:
    """End a process that leads its session, and all it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def hanging():
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


LOCAL = "sqlite:///mlflow.db"  # the default store


def client(uri: str):
    from mlflow import MlflowClient

    # MLflow remembers stores by their address, and each test has a working directory of its own.
    return MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}" if uri == LOCAL else uri)


def stored(uri: str, experiment: str = "counterpoise", every: bool = False) -> list:
    """The active MLflow runs of the grid (`every`: also summaries and superseded ones)."""
    found = client(uri).get_experiment_by_name(experiment)
    return client(uri).search_runs([found.experiment_id], "" if every else "tags.kind = 'run'") if found else []


def points(uri: str, run, name: str) -> list[tuple[int, float]]:
    """(step, value) of a metric of an MLflow run, as often as it is stored."""
    return [(m.step, m.value) for m in client(uri).get_metric_history(run.info.run_id, name)]
