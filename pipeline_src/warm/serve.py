"""Training jobs that start at once: a process that has imported what they import, and forks for each of them.

Imports take a quarter of a run of the default study. `Warm` starts the process beside Snakemake, `serve` is what it
does, and `ask` hands it a command line. The job is a copy of it with the standard streams of the process that asked,
which waits, hands signals on, and ends as the job ends; if that is killed, so is the job.

A job is a process of its own, as on a cluster, wherever the copy could differ from one: on a machine with a GPU or
without /proc, in another environment, folder or Python, and after a source has changed.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from select import select
from typing import TYPE_CHECKING, NoReturn

from pipeline_src.core import files, plugins
from pipeline_src.training.interrupt import SIGNALS
from pipeline_src.warm.ask import ADDRESS, place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline_src.study.plan import Plan

ALONE = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}  # Arrow brings an allocator with a thread, and uses another
VOLATILE = {
    "_",
    "SHLVL",
    "PWD",
    "OLDPWD",
    "TMPDIR",
    "TMP",
    "TEMP",
    "TEMPDIR",
    ADDRESS,
    *ALONE,
}  # variables that may differ
LEAST = 4  # jobs; for fewer the imports are not worth a process
TASKS = Path("/proc/self/task")  # the threads of this process: a fork takes only one along
LIBRARIES = ("OMP_NUM", "GOTO_NUM", "OPENBLAS_NUM", "MKL_NUM", "VECLIB_MAXIMUM", "NUMEXPR_NUM")
THREADS = [f"{name}_THREADS" for name in LIBRARIES]  # variables that Snakemake sets to the number of a job's threads

# The C library gives freed memory back and takes it anew, 600,000 page faults a run of the default study. With these it
# keeps it: about 7 % less CPU time, for 10 to 60 MB. Export others to change it; 131072, twice, is its own value.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296"}

IMPORTED = (
    "pipeline_src.commands",
    "pipeline_src.evaluation.run",
    "pipeline_src.models.encoders.resnet",
    "pipeline_src.study.choice",
    "pipeline_src.study.remains",
    "pipeline_src.training.run",
    "pyarrow.parquet",
    "scipy.stats",
    "sklearn.decomposition",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.pipeline",
    "threadpoolctl",
)


def serve(file: str, address: str) -> None:
    """Fork for each command line that comes to the socket, until standard input ends and the jobs have."""
    for number in SIGNALS:  # the jobs are told, too; each begins as if from its shell, which ignores them
        signal.signal(number, signal.SIG_IGN)
    own = _lasting(os.environ)  # which imports add to
    sources = _prepare(file)
    if len(list(TASKS.iterdir())) != 1:  # of a library that computes by several: a copy would wait for them for ever
        return
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    jobs: dict[int, socket.socket] = {}  # who asked for each
    killed: set[int] = set()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(128)
    taking = True
    while taking or jobs:
        waiting = [c for pid, c in jobs.items() if pid not in killed]
        ready, _, _ = select([woken, *waiting, *([sys.stdin, listener] if taking else [])], [], [])
        if woken in ready:
            os.read(woken, 4096)
        for pid, connection in list(jobs.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with suppress(OSError):
                    connection.sendall(f"{status}\n".encode())
                jobs.pop(pid).close()
            elif connection in ready:  # who asked has nothing more to say but that it is gone
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        if sys.stdin in ready or (listener in ready and _changed(sources)):
            taking = False
            listener.close()  # so that nobody waits here any more
        elif listener in ready:
            connection, _ = listener.accept()
            job = _copied(connection, own, [listener, *jobs.values()], [woken, wake])
            if job is None:
                connection.close()
                continue
            jobs[job] = connection
            with suppress(OSError):
                connection.sendall(f"{job}\n".encode())


def _sources() -> dict[str, tuple[int, int]]:
    """Size and time of every file that a job may import or read as a source, the user's plug-ins included."""
    found: dict[str, tuple[int, int]] = {}
    for folder in (Path(__file__).parents[1], *plugins.FOLDERS.values()):
        stats = {entry.path: entry.stat() for name, entry in files.below(folder) if "__pycache__/" not in name}
        found |= {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}
    return found


def _changed(sources: dict[str, tuple[int, int]]) -> bool:
    """Whether a source is not as it was; one that goes while it is looked at is not, and no error of the jobs."""
    try:
        return _sources() != sources
    except OSError:
        return True


def _prepare(file: str) -> dict[str, tuple[int, int]]:
    """Import what a job of the study imports, reading its plan once, and leave it out of garbage collection; the
    sources that it read.
    """
    from pipeline_src.study.plan import Plan

    plan = Plan(file)
    sources = _sources()  # the imports that take long are still to come
    assert plan.index and all(cell.fp for cell in plan.cells)  # sources are read once
    for module in IMPORTED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    return sources


def _copied(connection: socket.socket, own: dict[str, str], others: list[socket.socket], pipe: list[int]) -> int | None:
    """The process of a job that was asked for; None if it is to be a process of its own."""
    streams: list[int] = []
    try:
        connection.settimeout(10)
        size, streams, _, _ = socket.recv_fds(connection, 4, 3)
        with connection.makefile("rb") as sent:
            arguments, environment, where = json.loads(sent.read(struct.unpack("!I", size)[0]))
        if where != place() or _lasting(environment) != own:
            return None
        job = os.fork()
        if not job:
            _run(arguments, environment, streams, [connection, *others], pipe)
        return job
    except (OSError, ValueError, struct.error):
        return None
    finally:
        for stream in streams:
            os.close(stream)


def _lasting(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in VOLATILE}


def _run(
    arguments: list[str], environment: dict[str, str], streams: list[int], others: list[socket.socket], pipe: list[int]
) -> NoReturn:
    """Be the job, to the end of this process."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for other in others:
            other.close()
        for end in pipe:
            os.close(end)
        os.environ.update(environment)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        from pipeline_src.cli import main

        status = main(arguments)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


class Warm:
    """The warm process of a call of Snakemake."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it if it is worth it. Jobs that come before it is ready are processes of their own."""
        left = sum(not run.metrics.exists() for run in self.plan.runs)
        if left < LEAST or ADDRESS in os.environ or not TASKS.is_dir():
            return
        folder = tempfile.mkdtemp(prefix="counterpoise-warm-")
        os.environ[ADDRESS] = f"{folder}/socket"
        threads = dict.fromkeys(THREADS, str(self.plan.params.resources.train.threads))
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline_src.warm.serve", str(self.plan.file), os.environ[ADDRESS]],
                env={**ALLOCATOR, **os.environ, **threads, **ALONE},
                stdin=subprocess.PIPE,  # which ends as Snakemake does, however that is
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            shutil.rmtree(folder)

    def end(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()


if __name__ == "__main__":
    try:
        serve(*sys.argv[1:])
    finally:
        shutil.rmtree(Path(sys.argv[2]).parent, ignore_errors=True)
