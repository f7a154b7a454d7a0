"""The one reader of a run's folder: what its files hold, checked, and the state that they show.

    record.json             what the run is and was; written last by training
    metrics.jsonl           a line per epoch
    weights.safetensors     of the selected epoch
    attempt.json, checkpoint.safetensors    until the record is there: who trains it, and how far that is
    evaluation-<fp>/metrics.json, predictions.parquet; attempt.json if evaluating it failed

The record holds its own checksum and those of metrics.jsonl and the weights; metrics.json and the predictions hold
their own. Each is verified when the file is read. All errors are UserErrors of one line, which name the file and what
to do. It needs no PyTorch.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_src.core import checksums, files
from pipeline_src.core.errors import UserError, listed
from pipeline_src.core.progress import clock
from pipeline_src.evaluation import FUSED
from pipeline_src.study.places import ATTEMPT, CHECKPOINT, HISTORY, METRICS, PREDICTIONS, RECORD, WEIGHTS

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Run

STATES = ("evaluated", "trained", "diverged", "running", "stopped", "failed", "missing")
EVALUATED, TRAINED, DIVERGED, RUNNING, STOPPED, FAILED, MISSING = STATES
COMPLETE = "complete"  # status in a record; the other one is DIVERGED
INTERRUPTED = "interrupted"  # status in an attempt, besides RUNNING and FAILED

NEEDED = ("status", "fingerprint", "parameters", "cache", "machine", "versions", "seconds", "files")  # of a record
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


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record of a run, whose other files are there."""
    siblings = {name: files.sha256(folder / name) for name in (HISTORY, WEIGHTS) if (folder / name).exists()}
    files.write_sealed(folder / RECORD, {**record, "files": siblings})


class RunFiles:
    """The files of a run (of a Plan). Each is read when it is asked for."""

    def __init__(self, run: Run):
        self.run, self.folder, self.evaluation = run, run.folder, run.evaluation
        self._record: dict[str, Any] | None = None
        self._fix = f"delete {self.folder} and run snakemake again"
        self._fix_evaluation = f"delete {self.evaluation} and run snakemake again"

    # What training wrote.

    def trained(self) -> bool:
        """Whether training has ended: well, or by diverging."""
        return (self.folder / RECORD).exists()

    def record(self) -> dict[str, Any]:
        """The record, of this run and with all that is NEEDED."""
        if self._record is not None:
            return self._record
        file = files.awaited(self.folder / RECORD)
        record = files.read_sealed(file, self._fix)
        if missing := [key for key in NEEDED if key not in record]:
            raise UserError(f"{file}: expected {listed(missing)}, but got none; {self._fix}")
        expected = {**self.run.names, "fingerprint": self.run.cell.fp}
        got = {key: record.get(key) for key in expected}
        if got != expected:
            raise UserError(f"{file}: expected the record of {expected}, but got {got}; {self._fix}")
        self._record = record
        return record

    def rows(self) -> list[dict[str, Any]]:
        """A row per epoch: all of a trained run; else those that its checkpoint covers, as later ones are trained
        again when the run goes on.
        """
        if not self.trained():
            return self._lines()[: self._covered()]
        self._verified(HISTORY)
        return self._lines()

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
        return self._verified(WEIGHTS)

    def _verified(self, name: str, fresh: bool = False) -> Path:
        """A file whose hash the record names."""
        file = files.awaited(self.folder / name)
        checksums.match(file, self.record()["files"].get(name, ""), self._fix, fresh)
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

    def _metrics(self) -> dict[str, Any]:
        return files.read_sealed(files.awaited(self.evaluation / METRICS), self._fix_evaluation)

    def diverged(self) -> dict[str, Any] | None:
        """{epoch, step, reason} of a run whose loss, weights or features are not finite; else None."""
        record = self.record()
        about = record.get("diverged") if record["status"] == DIVERGED else None
        return about if about is not None or not self.evaluated() else self._metrics().get("diverged")

    def metrics(self) -> list[dict[str, Any]]:
        """Rows {split, modality, metric, value} of metrics.json, each once, with test metrics of the fused model.

        Of a run that has diverged, only the rows of its costs.
        """
        file, value = self.evaluation / METRICS, self._metrics()

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
        if "diverged" not in value and not any(key[:2] == ("test", FUSED) for key in seen):
            raise wrong("metrics", "expected test metrics of the fused model, but got none")
        return rows

    def predictions(self) -> Path:
        """The Parquet file of predictions."""
        file = files.awaited(self.evaluation / PREDICTIONS)
        checksums.verify(file, self._fix_evaluation)
        return file

    def hashes(self) -> dict[str, str]:
        """Hashes of the record and the metrics: with what these name, of all that the run is."""
        return {path.name: checksums.sha256(path, self._fix) for path in (self.run.record, self.run.metrics)}

    def checks(self) -> Iterator[tuple[Path, Callable[[], object], bool]]:
        """Every file: what raises a UserError if it is damaged, read whole, and whether the file is due."""
        trained, evaluated = self.trained(), self.evaluated()
        yield self.folder / RECORD, lambda: checksums.verify(self.folder / RECORD, self._fix, fresh=True), False
        for name in (HISTORY, WEIGHTS) if trained else ():
            yield self.folder / name, lambda name=name: self._verified(name, fresh=True), True
        for name, due in ((METRICS, False), (PREDICTIONS, evaluated)):
            file = self.evaluation / name
            yield file, lambda file=file: checksums.verify(file, self._fix_evaluation, fresh=True), due

    # What both show.

    def state(self) -> State:
        """The run's state. A file that is being written counts as not there; a damaged one as a failure."""
        run = self.run
        if self.trained():
            try:
                record = self.record()
                diverged = self.diverged()
            except UserError as error:
                return State(run, FAILED, str(error), error=str(error))
            seconds, complete = record["seconds"], self.evaluated()
            if diverged is not None:
                said = told(diverged)
                return State(run, DIVERGED, said, 1.0, seconds, complete, error=said)
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


def told(diverged: dict[str, Any]) -> str:
    """`epoch 3, step 17: the loss is not finite`."""
    step = f", step {diverged['step']}" if diverged.get("step") is not None else ""
    return f"epoch {diverged['epoch']}{step}: {diverged['reason']}"


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


def _text(file: Path, fix: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise checksums.unreadable(file, fix, error) from error
    except UnicodeDecodeError as error:
        raise checksums.damaged(file, fix, "it is no text") from error
