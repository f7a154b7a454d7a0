"""Files that carry their own checksum, so that damage is found where they are read.

A sealed file holds MARK and 64 hexadecimal digits, in a place that its format has for text: a key of JSON, metadata of
Parquet or Arrow. The digits are the SHA-256 of the whole file with zeros in their place. So a checksum is never apart
from its file, and no bit of the file is left out. MARK is looked for in the first and last EDGE bytes; where it stands
more than once (Arrow repeats its schema at the end), every place holds the same digits.

Large files are read once per machine: what was verified is remembered by path, size, time and inode.
"""

import hashlib
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from pipeline_src.core.errors import UserError

MARK = b"sha256-with-zeros-here:"
DIGITS = 64
SEAL = f"{MARK.decode()}{'0' * DIGITS}"  # what a writer puts where the checksum is to stand
EDGE = 1 << 20  # bytes
BLOCK = 1 << 22  # bytes
REMEMBERED = 1 << 20  # bytes; a smaller file is hashed sooner than looked up
MEMORY = Path("data/seen/checksums")  # no output: it may be lost; only where there is a folder data/


def seal(file: Path) -> None:
    """Put the checksum in the places of a file that hold SEAL."""
    with file.open("r+b") as opened:
        places = _places(opened)
        if not places or any(_at(opened, place) != b"0" * DIGITS for place in places):
            raise ValueError(f"{file}: expected {SEAL!r} in its first or last {EDGE} bytes, and nothing like it")
        digits = _digest(opened, places).encode()
        for place in places:
            opened.seek(place)
            opened.write(digits)


def verify(file: Path, fix: str, fresh: bool = False) -> None:
    """Check a sealed file, all of it if `fresh`, else unless this machine remembers it.

    Raises UserError, with `fix`, if it is missing, cannot be read, or is not as it was written.
    """
    with _Readable(file, fix):
        stat = file.stat()
        if not fresh and _memory(file, stat) == "sealed":
            return
        with file.open("rb") as opened:
            places = _places(opened)
            digits = {_at(opened, place) for place in places}
            right = len(digits) == 1 and digits == {_digest(opened, places).encode()}
    if not right:
        raise damaged(file, fix, "its checksum does not match" if stat.st_size else "it is empty")
    _remember(file, stat, "sealed")


def sha256(file: Path, fix: str, fresh: bool = False) -> str:
    """Hash of a file's content, hex, or what this machine remembers of it. Raises UserError if it cannot be read."""
    with _Readable(file, fix):
        stat = file.stat()
        known = None if fresh else _memory(file, stat)
        if known is not None and known != "sealed":
            return known
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    _remember(file, stat, digest)
    return digest


def match(file: Path, expected: str, fix: str, fresh: bool = False) -> None:
    """Check a file against a hash that another file names. Raises UserError as `verify` does."""
    if sha256(file, fix, fresh) != expected:
        raise damaged(file, fix, "its checksum does not match")


def damaged(file: Path, fix: str, why: str) -> UserError:
    return UserError(f"{file}: expected it as it was written, but got a damaged file ({why}); {fix}")


class _Readable:
    """Turns the errors of reading a file into a UserError."""

    def __init__(self, file: Path, fix: str):
        self.file, self.fix = file, fix

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise unreadable(self.file, self.fix, error) from error


def unreadable(file: Path, fix: str, error: OSError) -> UserError:
    """What to tell the user about a file that the system does not give."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{file}: expected a file, but got none; {fix}")
    if isinstance(error, PermissionError):
        return UserError(f"{file}: expected a file that this user may read, but got {os.strerror(error.errno or 0)};"
                         " let this user read it (chmod u+r)")  # fmt: skip
    return UserError(f"{file}: expected a file that can be read, but got {error.strerror or error}; {fix}")


def _places(opened: BinaryIO) -> list[int]:
    """Where digits stand after MARK, ascending."""
    size = opened.seek(0, os.SEEK_END)
    places = set()
    for start in {0, max(0, size - EDGE)}:
        opened.seek(start)
        block = opened.read(EDGE)
        at = block.find(MARK)
        while at >= 0:
            place = at + len(MARK)
            if place + DIGITS <= len(block):
                places.add(start + place)
            at = block.find(MARK, place)
    return sorted(places)


def _at(opened: BinaryIO, place: int) -> bytes:
    opened.seek(place)
    return opened.read(DIGITS)


def _digest(opened: BinaryIO, places: list[int]) -> str:
    """Hash of the content, hex, with zeros for the digits at `places`."""
    digest, at = hashlib.sha256(), 0
    for place in places:
        _update(digest, opened, at, place)
        digest.update(b"0" * DIGITS)
        at = place + DIGITS
    _update(digest, opened, at, opened.seek(0, os.SEEK_END))
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", opened: BinaryIO, start: int, end: int) -> None:
    opened.seek(start)
    while start < end and (block := opened.read(min(BLOCK, end - start))):
        digest.update(block)
        start += len(block)


def _memory(file: Path, stat: os.stat_result) -> str | None:
    """What this machine remembers of a file in this state: its hash, or `sealed`."""
    if stat.st_size < REMEMBERED:
        return None
    with suppress(OSError, ValueError):
        state, _, what = _note(file).read_text(encoding="utf-8").rpartition(" ")
        return what if state == _state(stat) else None
    return None


def _remember(file: Path, stat: os.stat_result, what: str) -> None:
    if stat.st_size < REMEMBERED or not Path(MEMORY.parts[0]).is_dir():
        return
    note = _note(file)
    with suppress(OSError):  # a read-only or full disk: it is read again next time
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary = note.with_name(f".{note.name}-{os.getpid()}")
        temporary.write_text(f"{_state(stat)} {what}", encoding="utf-8")
        temporary.replace(note)


def _note(file: Path) -> Path:
    name = hashlib.sha256(os.fsencode(file.absolute())).hexdigest()[:32]
    return MEMORY / platform.node() / name


def _state(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"
