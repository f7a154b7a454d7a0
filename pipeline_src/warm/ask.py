"""Hand a job to the warm process (see `serve`), if there is one for it. Every job comes this way: it imports little."""

import json
import os
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

from pipeline_src.training.interrupt import SIGNALS

ADDRESS = "COUNTERPOISE_WARM"  # environment variable: the socket; `off`: every job is a process of its own


def ask(arguments: list[str]) -> int | None:
    """Have a command line run in a copy of the warm process; its exit status, or None if this process is to run it."""
    address = os.environ.get(ADDRESS, "")
    if arguments[:1] != ["train"] or not address.startswith("/"):
        return None
    with socket.socket(socket.AF_UNIX) as server, server.makefile() as answers:
        try:
            server.connect(address)
            request = json.dumps([arguments, dict(os.environ), place()]).encode()
            socket.send_fds(server, [struct.pack("!I", len(request))], [0, 1, 2])
            server.sendall(request)
            job = int(answers.readline())
        except (OSError, ValueError):  # none there, or not for us
            return None

        def hand_on(number: int, frame: object) -> None:
            with suppress(ProcessLookupError):
                os.kill(job, number)

        for number in SIGNALS:
            signal.signal(number, hand_on)
        ended = answers.readline()
        if not ended:  # the warm process was killed, and nobody would tell how the job ends
            hand_on(signal.SIGKILL, None)
            print(
                "error: train: expected the warm process to say how the job ended, but it is gone; run snakemake "
                f"again, with {ADDRESS}=off if that does not help",
                file=sys.stderr,
            )
            return 1
    status = os.waitstatus_to_exitcode(int(ended))
    if status < 0:
        with suppress(OSError):  # SIGKILL has no handler
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def place() -> list[str]:
    """What else must be the same in both processes: folder and Python."""
    return [str(Path.cwd()), os.path.realpath(sys.executable), sys.prefix, sys.version]
