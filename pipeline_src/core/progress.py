"""Messages of the jobs. Modules log to `logging.getLogger(__name__)`, as usual in Python, and a message begins with its
job and two spaces; `show` prints them, so that a person can follow several jobs in one terminal.
"""

import logging
import os
import sys
from contextlib import suppress

from pipeline_src.core.errors import UserError, concealed

LEVEL = "COUNTERPOISE_LOG"  # environment variable: the least level that is printed; INFO if it is not set
PACKAGE = logging.getLogger("pipeline_src")


class _Stderr(logging.Handler):
    """Prints a line to what `sys.stderr` is at that time. A reader that has gone does not end a job."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            print(concealed(self.format(record)), file=sys.stderr, flush=True)


HANDLER = _Stderr()
HANDLER.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))


def show() -> None:
    """Print the package's messages to standard error: time of day, job, message. Raises UserError on a wrong level."""
    level = os.environ.get(LEVEL) or "INFO"
    try:
        PACKAGE.setLevel(level.upper())
    except ValueError:
        raise UserError(
            f"{LEVEL}: expected DEBUG, INFO, WARNING or ERROR, but got {level!r}; set one of them"
        ) from None
    PACKAGE.addHandler(HANDLER)


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
