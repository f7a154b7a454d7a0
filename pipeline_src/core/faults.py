"""What the system refuses, in one line: where, what it said, and what to do. Everything else is a fault of ours and
keeps its traceback.
"""

import errno
import os
import re

from pipeline_src.core.errors import plain

AGAIN = "then start again: what was finished is kept"
FIXES = {
    errno.EACCES: f"let this user read and write there, {AGAIN}",
    errno.EPERM: f"let this user read and write there, {AGAIN}",
    errno.EROFS: f"mount it for writing, or work in another folder, {AGAIN}",
    errno.ENOSPC: f"free some space, {AGAIN}",
    errno.EDQUOT: f"free some of your quota, {AGAIN}",
    errno.EFBIG: f"raise the limit on a file's size (ulimit -f), {AGAIN}",
    errno.EMFILE: f"raise the limit on open files (ulimit -n), {AGAIN}",
    errno.ENFILE: f"close programs that hold files open, {AGAIN}",
    errno.ENOMEM: f"give the job more memory, {AGAIN}",
    errno.EAGAIN: f"raise the limit on processes (ulimit -u), {AGAIN}",
    errno.ENOENT: "make it, or name another; if a job of the study was to make it, run snakemake again",
    errno.ENOTDIR: "move the file that is where a folder should be",
    errno.EISDIR: "move the folder that is where a file should be",
    errno.EEXIST: "move what is there",
    errno.ELOOP: "remove the link that leads back to itself",
    errno.ENAMETOOLONG: "name it shorter",
    errno.EIO: f"check the disk or the network's file system, {AGAIN}",
    errno.ESTALE: f"mount the network's file system again, {AGAIN}",
    errno.ETIMEDOUT: "try again when the file system or server answers",
}
MEMORY = ("cannot allocate memory", "can't allocate memory", "failed to map segment", "out of memory", "bad allocation")
MORE = f"raise its limit (ulimit -v, or mem_mb of the stage in the resources file) or take a larger machine, {AGAIN}"


def explained(error: BaseException, job: str) -> str | None:
    """One line on an error of the system that ended `job`, or None if it is not the system's."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or any(words in text.lower() for words in MEMORY):
        return f"{job}: expected enough memory, but got: {plain(text, 200) or 'none left'}; {MORE}"
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return f"{job}: expected to start a thread, but got: {text}; {FIXES[errno.EAGAIN]}"
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("pipeline_src"):
        return f"{job}: expected the package {error.name}, but it is not installed; install it as the README says"
    if not isinstance(error, OSError):
        return None
    number = error.errno or _number(text) or (errno.ENOENT if isinstance(error, FileNotFoundError) else None)
    place = error.filename if error.filename is not None else _place(text)
    what = os.strerror(number) if number else plain(text, 200) or type(error).__name__
    where = plain(os.fsdecode(place), 300) if isinstance(place, str | bytes) else job
    return f"{where}: expected the system to read or write it, but got: {what}; {FIXES.get(number or 0, AGAIN[5:])}"


def _number(text: str) -> int | None:
    """The errno that a library wrote into its message."""
    written = re.search(r"\[?errno (\d+)\]?", text, re.IGNORECASE)
    return int(written[1]) if written else None


def _place(text: str) -> str | None:
    """The file that a library, such as Arrow, names in its message alone."""
    written = re.search(r"(?:file '|directory: )([^']+)", text)
    return written[1] if written else None
