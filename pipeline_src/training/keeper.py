"""What a run keeps on disk while it trains, so that a kill at any moment loses little and changes nothing.

Of a run's several processes the first writes, and says when a checkpoint is due and whether to stop.

checkpoint.safetensors is the truth: the trainer's state and every epoch's row so far. It is written after every epoch,
within one when it is due, and when the run is asked to stop. Rows and weights are written before it and named in it;
what is on disk beyond it is dropped and made again.

The state is copied to the host between two steps. On a GPU it is hashed and written while the next ones train; the next
copy, and whoever ends the run, waits for that.
"""

from __future__ import annotations

import json
import logging
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_src.core import files
from pipeline_src.study.places import CHECKPOINT, HISTORY, WEIGHTS
from pipeline_src.training import checkpoint, divergence
from pipeline_src.training.interrupt import Stop, StoppedError
from pipeline_src.training.loop import Trainer
from pipeline_src.training.writer import Writer

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_src.training.ranks import Ranks

log = logging.getLogger(__name__)

MODEL = "model/"  # of the names of a snapshot, those of the model's tensors


class Keeper:
    """`rows` of the epochs that are done, the `best` epoch so far, `seconds` spent, and how often `resumed`.

    What leaves it leaves `writer`, too, which may still be at the last checkpoint.
    """

    def __init__(
        self, folder: Path, label: str, trainer: Trainer, minutes: float, stop: Stop, ranks: Ranks | None = None
    ):
        self.folder, self.label, self.trainer, self.minutes, self.stop = folder, label, trainer, minutes, stop
        self.ranks, self.writes = ranks, ranks is None or ranks.first
        self.writer = Writer(trainer.device)
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"epoch": -1}  # none so far
        self.resumed, self._before = 0, 0.0
        self._started = self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def resume(self) -> bool:
        """Take up the checkpoint; False if there is none, or none that can be used: then the run begins."""
        device, found = self.trainer.device.type, self._load()
        if found is not None:
            tensors, about = found
            self.trainer.restore(tensors, about["at"])
            self.rows, self.best = about["rows"], about["best"]
            self.resumed, self._before = about["resumed"] + 1, about["seconds"]
            log.info(f"train {self.label}  goes on {self._where()}")
            if device != about["device"]:
                log.warning(
                    f"train {self.label}  on {device}, begun on {about['device']}: not bit for bit what one gives"
                )
        if self.ranks:  # all have read the checkpoint before it changes
            self.ranks.agreed(0)
        if self.writes:
            files.write_text(self.folder / HISTORY, "".join(map(_line, self.rows)))
            self._drop_weights(self.best["epoch"])
        return found is not None

    def _load(self) -> tuple | None:
        file = self.folder / CHECKPOINT
        try:
            return checkpoint.load(file) if file.exists() else None
        except checkpoint.DamagedError as error:
            log.warning(f"train {self.label}  {file} cannot be used and the run begins anew: {error}")
            return None

    def pulse(self) -> None:
        """Between two steps: end if the run has diverged, save if it is time to, and stop if that was asked."""
        divergence.check_loss(self.trainer)
        asked, due = int(self.stop.asked or 0), int(time.monotonic() - self._saved >= 60 * self.minutes)
        if self.ranks:
            asked, due = self.ranks.agreed(asked, due)
        if asked or due:
            self.save()
        if asked:
            self.writer.wait()
            raise StoppedError(signal.Signals(asked), self._where())

    def epoch_done(self, row: dict[str, Any], select: str) -> None:
        """Keep the epoch's row, and its weights if it is the one to be selected so far."""
        primary = self.trainer.task.primary
        key = f"val_{primary.name}"
        selected = select == "last" or self.best["epoch"] < 0 or primary.at_least(row[key], self.best[key])
        if selected:
            self.best = {"epoch": row["epoch"], key: row[key]}
        self.rows.append(row)
        self.save(_line(row), selected)

    def save(self, line: str = "", selected: bool = False) -> None:
        """Have a checkpoint written; before it the line of an epoch that is done, and its weights if it is selected."""
        if not self.writes:
            return
        self.writer.wait()  # so that there is one copy at a time
        tensors, at = self.trainer.snapshot()
        about = {
            "epoch": len(self.rows) - 1,  # the last that is done; the mirror in MLflow reads it
            "rows": self.rows,
            "at": at,
            "best": self.best,
            "seconds": self.seconds,
            "resumed": self.resumed,
            "device": self.trainer.device.type,
        }
        # As text, as the rows and counts go on changing, too.
        texts = json.dumps(self.best), line, json.dumps(about)
        self.writer.give(partial(self._write, checkpoint.on_host(tensors), *texts, self.best["epoch"], selected))
        self._saved = time.monotonic()

    def _write(
        self, tensors: dict[str, Tensor], selection: str, line: str, about: str, best: int, selected: bool
    ) -> None:
        """What `save` has gathered; reads nothing else that changes."""
        if selected:
            weights = {name.removeprefix(MODEL): x for name, x in tensors.items() if name.startswith(MODEL)}
            checkpoint.write(self._weights(best), weights, selection)
        if line:
            files.append_text(self.folder / HISTORY, line)
        checkpoint.write(self.folder / CHECKPOINT, tensors, about)
        if line:
            self._drop_weights(best)

    def finish(self) -> None:
        """Give the selected epoch's weights their name."""
        self.writer.wait()
        weights = self._weights(self.best["epoch"])
        if self.writes and weights.exists():  # else a run that was killed after this has done it
            weights.replace(self.folder / WEIGHTS)

    def finish_diverged(self) -> None:
        """Keep the weights as they were when the run diverged."""
        self.writer.wait()
        if not self.writes:
            return
        checkpoint.save(self.folder / WEIGHTS, self.trainer.model.state_dict(), {})
        for file in self.folder.glob("weights-*.safetensors"):
            file.unlink()

    def _weights(self, epoch: int) -> Path:
        return self.folder / f"weights-{epoch}.safetensors"

    def _drop_weights(self, best: int) -> None:
        """Of epochs that the checkpoint does not name: superseded, or to be trained again."""
        for file in self.folder.glob("weights-*.safetensors"):
            if file != self._weights(best):
                file.unlink()

    def _where(self) -> str:
        epochs = self.trainer.schedule.epochs
        return f"after epoch {len(self.rows)} of {epochs}, step {self.trainer.context.step}"


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"
