"""Ctrl-C at a study that Snakemake works on: the terminal sends it to Snakemake, to the shells and to the jobs."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.attacks.judge import ROOT, STUDY, put
from tests.attacks.study import targets
from tests.workflow.small import kill, start


def until(process, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def test_ctrl_c_three_times_keeps_what_was_done_and_the_next_call_goes_on(finished):
    before = {path: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()}
    Path("p.yaml").write_text(put(STUDY, "training.epochs", "5000"))
    shutil.copy(ROOT / "workflow/resources.yaml", "resources.yaml")
    (target,) = targets("train")
    folder = Path(target).parent
    process = start(finished, "--config", "params=p.yaml")
    until(process, (folder / "checkpoint.safetensors").exists)
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in output, output
    assert output.count("still stopping: the jobs save what they have done") == 2
    assert output.count("goes on when started again") == 1
    assert json.loads((folder / "attempt.json").read_text())["status"] == "interrupted"
    assert {path: path.read_bytes() for path in before} == before

    rows = (folder / "metrics.jsonl").read_text()
    process = start(finished, "--config", "params=p.yaml")
    try:
        until(process, lambda: len((folder / "metrics.jsonl").read_text()) > len(rows))
    finally:
        kill(process)
    assert (folder / "metrics.jsonl").read_text().startswith(rows), "finished epochs are kept"
    (log,) = Path("logs/train").rglob("*.log")
    assert "goes on after epoch" in log.read_text()
