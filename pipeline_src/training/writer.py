"""What is written of a run while it trains on."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

INLINE = ("cpu",)  # devices whose training needs the cores itself: there nothing is written beside it


class Writer:
    """Does one task at a time, in the order in which they are given: on a GPU in a thread of its own, which ends with
    the task, so that the host goes on feeding the device. Leaving it waits.
    """

    def __init__(self, device: torch.device):
        self._apart = device.type not in INLINE
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def give(self, task: Callable[[], None]) -> None:
        """Have a task done, after the one before it. It must read nothing that training changes. Raises as `wait`."""
        self.wait()
        if not self._apart:
            return task()
        self._thread = threading.Thread(target=self._do, args=(task,), name="writes")
        self._thread.start()

    def wait(self) -> None:
        """Until the last task is done. Raises what a task has raised, then and ever after."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    def _do(self, task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            self._error = error
