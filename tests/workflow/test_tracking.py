"""The mirror in MLflow beside a real run of Snakemake, and with a server that hangs."""

import json
import shutil
import time
from pathlib import Path

import pandas as pd

from tests.tracking.study import LOCAL, hanging, stored
from tests.workflow.small import snakemake, write_params

TRACKED = {
    "study": {"unimodal": False, "seeds": [0]},
    "training": {"track_test": False},
    "tracking": {"enabled": True},
}


def followers(folder: Path) -> list[Path]:
    """Processes that work in a folder as followers."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cwd").resolve() == folder and b"--follow" in (process / "cmdline").read_bytes():
                found.append(process)
        except OSError:
            continue
    return found


def test_a_workflow_is_mirrored_and_a_hanging_server_costs_seconds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write_params(tmp_path, TRACKED)
    snakemake(tmp_path, "-n")
    assert not (tmp_path / "logs/track.log").exists(), "a dry run was followed"
    started = time.monotonic()
    output = snakemake(tmp_path)
    usual = time.monotonic() - started
    assert followers(tmp_path) == []
    assert "MLflow is behind" not in output, (tmp_path / "logs/track.log").read_text()
    (run,) = stored(LOCAL)
    metrics = pd.read_parquet("results/studies/params/metrics.parquet").query("split == 'test' and modality == 'fused'")
    for row in metrics.itertuples():
        assert run.data.metrics[f"test/{row.metric}"] == round(row.value, 5)
    assert run.info.status == "FINISHED" and run.info.run_name == "av_digits/concat/joint seed 0"
    (record,) = (json.loads(file.read_text()) for file in tmp_path.glob("results/runs/**/record.json"))
    assert run.data.tags["code"] == record["code"] and run.data.tags["data"] == record["cache"]["sha256"]

    shutil.rmtree("results")
    with hanging() as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        started = time.monotonic()
        output = snakemake(tmp_path)
    assert time.monotonic() - started < usual + 60  # the data is there already
    assert "MLflow is behind (logs/track.log says why); `python -m pipeline_src track` brings it up to date" in output
    assert len(list(tmp_path.glob("results/studies/params/metrics.parquet"))) == 1
    assert followers(tmp_path) == []
