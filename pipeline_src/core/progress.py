"""Progress lines that a person can follow while several jobs write to one terminal."""

import sys
import time
from contextlib import suppress


def say(job: str, message: str) -> None:
    """One line: time of day, job, message."""
    with suppress(OSError):  # who reads them may have gone: no reason to end a job
        print(f"{time.strftime('%H:%M:%S')}  {job}  {message}", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
