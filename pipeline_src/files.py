"""Files that are whole or not there, and the state of folders of raw media."""

import glob
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FILES = "files.json"  # index of a fetched folder: {path: sha256}


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A temporary name beside `target`, for a file or a folder; renamed to `target` if the block ends without an error.

    The name is this process's own, so two processes cannot spoil each other's; what one left that was killed on
    this machine is removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    ours = f".{target.name}.tmp-{platform.node()}-"
    for left in target.parent.glob(f"{glob.escape(ours)}*"):
        if not _alive(left.name.removeprefix(ours)):
            remove(left)
    temporary = target.parent / f"{ours}{os.getpid()}"
    remove(temporary)
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        elif temporary.is_dir() and target.is_dir():
            shutil.rmtree(target)
        temporary.replace(target)
    except BaseException:
        remove(temporary)
        raise


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder, or nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    with whole(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    write_text(target, json.dumps(value, indent=2) + "\n")


def read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def sha256(file: Path) -> str:
    """Hash of a file's content, hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def scan(folder: Path, seen: Path) -> dict[str, str]:
    """{path: sha256} of every file below `folder`.

    `seen` keeps {path: [bytes, mtime in ns, sha256]} from one look to the next, so that a second one is a stat per
    file. It holds for this copy of the folder only, and may be lost: file times are no part of what was found.
    """
    known = read_json(seen) if seen.exists() else {}
    now = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name == FILES or not path.is_file():
            continue
        stat = path.stat()
        state = [stat.st_size, stat.st_mtime_ns]
        old = known.get(name)
        now[name] = old if old is not None and old[:2] == state else [*state, sha256(path)]
    if now != known:
        write_json(seen, now)
    return {name: entry[2] for name, entry in now.items()}


def changes(folder: Path, seen: Path) -> dict[str, str | None]:
    """{path: sha256, or None if it is gone} of the files of a fetched folder that are not as they were fetched."""
    recorded, now = read_json(folder / FILES), scan(folder, seen)
    changed = {name: digest for name, digest in now.items() if recorded.get(name) != digest}
    return changed | {name: None for name in recorded if name not in now}


def content(folder: Path, seen: Path) -> str:
    """Hash of all names and contents below `folder`."""
    return hashlib.sha256(json.dumps(scan(folder, seen)).encode()).hexdigest()


def unprotect(job: Iterable[str | Path]) -> None:
    """Give a job of which some files are missing the others as copies that can be written, where they cannot.

    DVC may leave outputs as read-only hard links into its cache, and Snakemake refuses to make a read-only file anew.
    """
    paths = [Path(path) for path in job]
    present = [path for path in paths if path.exists()]
    if len(present) == len(paths):
        return
    for path in present:
        if not path.is_symlink() and not os.access(path, os.W_OK):
            with whole(path) as temporary:
                shutil.copyfile(path, temporary)
