"""Being asked to stop: SIGTERM and SIGUSR1 from a scheduler, Ctrl-C from a person.

Where stopping takes care, `Stop` turns these signals into a question that is looked at between two steps; everywhere
else they end the process as they always do.
"""

import signal

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StoppedError(Exception):
    """Training has stopped because a signal asked for it, and everything is on disk."""

    def __init__(self, by: signal.Signals, where: str):
        self.by, self.where = by, where
        super().__init__(f"stopped by {by.name} {where}; goes on when started again")
        self.status = 128 + by  # the exit status that shells give a process that the signal ended


class Stop:
    """While entered, signals only set `asked`, the first of them; more of them change nothing."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None

    def __enter__(self) -> "Stop":
        self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = self.asked or signal.Signals(number)
