"""The process that mirrors a call of Snakemake in MLflow, as Snakemake's own process starts and ends it."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline_src.study.plan import Plan

log = logging.getLogger(__name__)

LOG = Path("logs/track.log")
FIX = "`python -m pipeline_src track` brings it up to date"
BEHIND = 3  # exit status of a follower that could not mirror all
LAST = 20.0  # seconds that the last sync may take


class Follower:
    """The process that follows a run of Snakemake."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, if params.yaml wants it and MLflow is installed."""
        if not self.plan.params.tracking.enabled or importlib.util.find_spec("mlflow") is None:
            return
        command = [sys.executable, "-m", "pipeline_src", "track", f"--params={self.plan.file}"]
        try:
            LOG.parent.mkdir(exist_ok=True)
            with LOG.open("a", encoding="utf-8") as sink:
                self.process = subprocess.Popen(
                    [*command, "--follow", "--parent", str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                )
        except OSError as error:
            log.warning(f"track  not followed: {error}; {FIX}")

    def end(self) -> None:
        """Let it finish, for a few seconds at most; one line if MLflow is behind."""
        if self.process is None:
            return
        try:
            self.process.terminate()
            status = self.process.wait(LAST + 5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = BEHIND
        if status:
            log.warning(f"track  MLflow is behind ({LOG} says why); {FIX}")
