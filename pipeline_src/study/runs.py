"""The one reader of a run's folder: what its files hold, checked, and the state that they show.

    record.json             what the run is and was; written last by training
    metrics.jsonl           a line per epoch
    weights.safetensors     of the selected epoch
    attempt.json, checkpoint.safetensors    until the record is there: who trains it, and how far that is
    evaluation-<fp>/metrics.json, predictions.parquet; attempt.json if evaluating it failed

It needs no PyTorch. Everything that it raises is a UserError of one line, which names the file and what to do.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_src.core import files
from pipeline_src.core.errors import UserError, listed
from pipeline_src.core.progress import clock
from pipeline_src.evaluation import FUSED

if TYPE_CHECKING:
    from pipeline_src.study.plan import Run

RECORD, HISTORY, WEIGHTS = "record.json", "metrics.jsonl", "weights.safetensors"
ATTEMPT, CHECKPOINT = "attempt.json", "checkpoint.safetensors"
METRICS, PREDICTIONS = "metrics.json", "predictions.parquet"

STATES = ("evaluated", "trained", "diverged", "running", "stopped", "failed", "missing")
EVALUATED, TRAINED, DIVERGED, RUNNING, STOPPED, FAILED, MISSING = STATES
COMPLETE = "complete"  # status in a record; the other one is DIVERGED
INTERRUPTED = "interrupted"  # status in an attempt, besides RUNNING and FAILED

NEEDED = ("status", "fingerprint", "parameters", "cache", "machine", "versions", "seconds")  # of a record
ROW = {"split": str, "modality": str, "metric": str}  # of metrics.json, besides the value
QUIET = 600.0  # seconds; see `alive`
EPOCHS, SAVES = 5, 3  # see `alive`


@dataclass(frozen=True)
class State:
    """One run's state: `about` describes it, `fraction` is how much of its training is done.

    `complete` if nothing is left to do; `error` says why a run failed or diverged; `last` is when a run that is being
    trained last wrote something, Unix time.
    """

    run: Run
    state: str  # of STATES
    about: str = ""
    fraction: float = 0.0
    seconds: float | None = None  # measured, of a run that is trained
    complete: bool = False
    error: str = ""
    last: float = 0.0


class RunFiles:
    """The files of a run (of a Plan). Each is read when it is asked for."""

    def __init__(self, run: Run):
        self.run, self.folder, self.evaluation = run, run.folder, run.evaluation
        self._fix = f"delete {self.folder} and run snakemake again"
        self._fix_evaluation = f"delete {self.evaluation} and run snakemake again"

    # What training wrote.

    def trained(self) -> bool:
        """Whether training has ended: well, or by diverging."""
        return (self.folder / RECORD).exists()

    def record(self) -> dict[str, Any]:
        """The record, of this run and with all that is NEEDED."""
        file = self.folder / RECORD
        record = _object(file, self._fix)
        if missing := [key for key in NEEDED if key not in record]:
            raise UserError(f"{file}: expected {listed(missing)}, but got none; {self._fix}")
        expected = {**self.run.names, "fingerprint": self.run.cell.fp}
        got = {key: record.get(key) for key in expected}
        if got != expected:
            raise UserError(f"{file}: expected the record of {expected}, but got {got}; {self._fix}")
        return record

    def rows(self) -> list[dict[str, Any]]:
        """A row per epoch: all of a trained run; else those that its checkpoint covers, as later ones are trained
        again when the run goes on.
        """
        return self._lines() if self.trained() else self._lines()[: self._covered()]

    def _lines(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; a line that is being written does not count."""
        file = self.folder / HISTORY
        text = _text(file, self._fix) if file.exists() else ""
        rows = []
        for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines()):
            try:
                row = json.loads(line)
            except ValueError as error:
                row = error
            if not isinstance(row, dict):
                raise UserError(f"{file}:{number + 1}: expected an epoch's JSON object, but got {row}; {self._fix}")
            rows.append(row)
        return rows

    def weights(self) -> Path:
        """The selected epoch's weights, a file of `training.checkpoint`."""
        return self._there(WEIGHTS)

    def _there(self, name: str) -> Path:
        file = files.awaited(self.folder / name)
        if not file.exists():
            raise UserError(f"{file}: expected the run's {name}, but got none; {self._fix}")
        return file

    def attempt(self) -> dict[str, Any] | None:
        """Who trains the run, or how that ended; None if nobody has begun, or while it is being written."""
        return _attempt(self.folder / ATTEMPT)

    def _covered(self) -> int:
        """Epochs that the checkpoint covers."""
        from safetensors import SafetensorError, safe_open

        file = self.folder / CHECKPOINT
        if not file.exists():
            return 0
        try:
            with safe_open(file, "numpy") as opened:
                return json.loads(opened.metadata()["about"])["epoch"] + 1
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return 0

    # What evaluation wrote.

    def evaluated(self) -> bool:
        return self.trained() and (self.evaluation / METRICS).exists()

    def metrics(self) -> list[dict[str, Any]]:
        """Rows {split, modality, metric, value} of metrics.json, each once, with the fused test accuracy."""
        file = self.evaluation / METRICS
        value = _object(file, self._fix_evaluation)

        def wrong(where: str, what: str) -> UserError:
            return UserError(f"{file}: {where}: {what}; {self._fix_evaluation}")

        if value.get("names") != self.run.names:
            raise wrong("names", f"expected {self.run.names}, but got {value.get('names')}")
        rows = value.get("metrics")
        if not isinstance(rows, list) or not rows:
            raise wrong("metrics", "expected a list of metrics")
        seen = set()
        for i, row in enumerate(rows):
            where = f"metrics[{i}]"
            if not isinstance(row, dict) or set(row) != {*ROW, "value"}:
                raise wrong(where, f"expected the keys {', '.join([*ROW, 'value'])}, but got {row}")
            if any(not isinstance(row[key], kind) for key, kind in ROW.items()):
                raise wrong(where, f"expected names, but got {row}")
            if isinstance(row["value"], bool) or not isinstance(row["value"], int | float):
                raise wrong(where, f"expected a number, but got {row['value']!r}")
            key = tuple(row[name] for name in ROW)
            if key in seen:
                raise wrong(where, f"expected {'/'.join(key)} once, but got it twice")
            seen.add(key)
        if ("test", FUSED, "accuracy") not in seen:
            raise wrong("metrics", "expected the fused test accuracy, but got none")
        return rows

    def predictions(self) -> Path | None:
        """The Parquet file of predictions; None if there is none."""
        file = self.evaluation / PREDICTIONS
        return file if file.exists() else None

    # What both show.

    def state(self) -> State:
        """The run's state. A file that is being written counts as not there; a damaged one as a failure."""
        run = self.run
        if self.trained():
            try:
                record = self.record()
            except UserError as error:
                return State(run, FAILED, str(error), error=str(error))
            seconds, complete = record["seconds"], self.evaluated()
            if complete:
                return State(run, EVALUATED, fraction=1.0, seconds=seconds, complete=True)
            if (failed := _attempt(self.evaluation / ATTEMPT)) is not None:
                error = str(failed.get("error"))
                return State(run, FAILED, f"trained; evaluation: {error}", 1.0, seconds, error=error)
            return State(run, TRAINED, fraction=1.0, seconds=seconds)
        attempt = self.attempt()
        if attempt is None:
            return State(run, MISSING)
        try:
            rows = self._lines()
        except UserError:
            rows = []  # of a run that is not done: made again from its checkpoint
        epochs = run.cell.spec.training.epochs
        progress, fraction = f"epoch {len(rows)} of {epochs}", len(rows) / epochs
        last = self._last()
        error = str(attempt.get("error") or attempt.get("status"))
        if attempt.get("status") == INTERRUPTED:
            return State(run, STOPPED, f"{progress}, saved; snakemake goes on with it", fraction, last=last)
        if attempt.get("status") != RUNNING:
            if error.startswith(("KeyboardI", "SystemExit")):
                return State(run, STOPPED, f"{progress}: {error}; snakemake goes on with it", fraction, last=last)
            return State(run, FAILED, f"{progress}: {error}", fraction, error=error, last=last)
        host = attempt.get("machine", {}).get("host") or "an unknown machine"
        if (why := dead(attempt, rows, last)) is not None:
            return State(run, STOPPED, f"{progress}, {why}; snakemake goes on with it", fraction, last=last)
        ago = clock(max(time.time() - last, 0))
        return State(run, RUNNING, f"{progress} on {host}, last heard {ago} ago", fraction, last=last)

    def _last(self) -> float:
        """When anything in the folder was last written, Unix time; 0 if the folder has gone."""
        times = [0.0]
        with contextlib.suppress(OSError):
            times += [entry.stat().st_mtime for entry in os.scandir(self.folder)]
        return max(times)


def dead(attempt: dict[str, Any], rows: list[dict[str, Any]], last: float) -> str | None:
    """Why nobody trains a run any more whose attempt says that somebody does; None if somebody may.

    The one rule: its process on this machine has gone, or its folder has been quiet (since `last`) for longer than 10
    minutes, 5 of its longest epochs, and 3 times the interval at which it saves its state within an epoch.
    """
    machine = attempt.get("machine") or {}
    host, pid = machine.get("host") or "an unknown machine", attempt.get("pid")
    if isinstance(pid, int) and host == platform.node() and not _process(pid):
        return f"its process on {host} is gone"
    longest = max((row["seconds"] for row in rows if isinstance(row.get("seconds"), int | float)), default=0.0)
    saves = attempt.get("checkpoint_minutes")
    saves = 60 * saves if isinstance(saves, int | float) else 0.0
    silent = time.time() - last
    if silent > max(QUIET, EPOCHS * longest, SAVES * saves):
        return f"no sign of life for {clock(silent)} on {host}"
    return None


def _process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _attempt(file: Path) -> dict[str, Any] | None:
    try:
        value = files.read_json(file)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _object(file: Path, fix: str) -> dict[str, Any]:
    """A JSON object from a file."""
    try:
        value = json.loads(_text(file, fix))
    except ValueError as error:
        raise UserError(f"{file}: expected valid JSON, but got {error}; {fix}") from error
    if not isinstance(value, dict):
        raise UserError(f"{file}: expected an object, but got {type(value).__name__}; {fix}")
    return value


def _text(file: Path, fix: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: expected a file that can be read, but got {error}; {fix}") from error
