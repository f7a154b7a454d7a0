"""Where MLflow keeps what is mirrored: a server, or a local sqlite file that is made here, once.

MLFLOW_TRACKING_URI names the store; without it, it is mlflow.db in the working directory, with the artifacts beside it
in mlartifacts/. The database holds no path of this machine, so the folder can be moved: artifacts have addresses of the
scheme `mlflow-artifacts:`, which a server resolves (`make ui` starts one) and `Store.upload` writes without one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from pipeline_src.core import files
from pipeline_src.core.errors import UserError

if TYPE_CHECKING:
    import mlflow.entities

DEFAULT = "sqlite:///mlflow.db"
SQLITE = "sqlite:///"
ARTIFACTS = "mlartifacts"  # beside the sqlite file
SCHEME = "mlflow-artifacts:"
KIND, TRAINING = "mlflow.experimentKind", "custom_model_development"  # whose first page are the runs
PATIENCE = 60.0  # seconds that one process waits for another to make the store or a run


def uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT


def settings() -> dict[str, str]:
    """Environment variables of MLflow: short timeouts, quiet logs, no telemetry."""
    return {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


class Store:
    """An open experiment of an MLflow store. Opening raises what MLflow raises, or UserError."""

    def __init__(self, uri: str, experiment: str):
        os.environ.update({k: v for k, v in settings().items() if k not in os.environ})
        from mlflow import MlflowClient  # seconds

        self.uri, self.name = uri, experiment
        self.file = Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None
        if self.file is None:
            self.client = MlflowClient(uri)
        else:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.alone():
                self._make()
                self.check_unlocked()
                self.client = MlflowClient(f"{SQLITE}{self.file}")
        self.experiment = self._experiment()

    def _make(self) -> None:
        """The sqlite file, whole or not at all: processes that fill a fresh one together spoil it for good."""
        from mlflow import MlflowClient

        if not self.file.exists():
            with files.whole(self.file) as temporary:
                MlflowClient(f"{SQLITE}{temporary}").search_experiments(max_results=1)

    def _experiment(self) -> str:
        """The id of the experiment, made if there is none."""
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(self.name)
        if found is None:
            place = f"{SCHEME}/{quote(self.name, safe='')}" if self.file else None
            try:
                return self.client.create_experiment(self.name, artifact_location=place, tags={KIND: TRAINING})
            except MlflowException:  # another process was faster
                found = self.client.get_experiment_by_name(self.name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise UserError(
                f"{self.uri}: expected the experiment {self.name!r}, but it is deleted; restore it, "
                "or name another under `tracking` in params.yaml"
            )
        if KIND not in found.tags:
            self.client.set_experiment_tag(found.experiment_id, KIND, TRAINING)
        return found.experiment_id

    def check_unlocked(self) -> None:
        """Raises sqlite3.OperationalError if another program holds the file: MLflow itself would wait for 20 s."""
        if self.file:
            with closing(sqlite3.connect(self.file, timeout=2, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process on this host is in such a block of this store. Raises UserError after `PATIENCE`."""
        lock = self.file.with_name(f"{self.file.name}.lock") if self.file else Path("logs/track.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + PATIENCE
        with lock.open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise UserError(
                            f"{lock}: expected to get the lock within {PATIENCE:.0f} s, but it is held; "
                            "end the other `track`, or try again"
                        ) from None
                    time.sleep(0.02)
            yield

    def upload(self, run: mlflow.entities.Run, source: Path, folder: str = "") -> None:
        """Store a file as an artifact of an MLflow run, in the place of one of the same name."""
        place = run.info.artifact_uri
        if self.file and place.startswith(SCHEME):
            target = self.file.parent / ARTIFACTS / place.removeprefix(SCHEME).lstrip("/") / folder
            target.mkdir(parents=True, exist_ok=True)
            with files.whole(target / source.name) as temporary:
                shutil.copyfile(source, temporary)
        else:
            self.client.log_artifact(run.info.run_id, str(source), folder or None)
