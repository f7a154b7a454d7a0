"""Files that are whole or not there, files that show late, and the state of folders of raw media."""

import errno
import glob
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import accumulate
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_src.core import checksums
from pipeline_src.core.errors import UserError

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

CHECKSUM = "checksum"  # key of a JSON object, and of a table's metadata
FULL = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit on a file's size (ulimit -f)",
}
CLOSED = {
    errno.EACCES: "let this user write there",
    errno.EPERM: "let this user write there",
    errno.EROFS: "mount it for writing, or work in another folder",
    errno.ENOTDIR: "move the file that stands where a folder should",
    errno.EEXIST: "move the file that stands where a folder should",
}
# Where another machine may have made a file, it can take a while to show.
SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
LATE = 90.0  # seconds; NFS looks again after 60 at most, as it comes

UNREADABLE = "unreadable"  # in place of a hash
FILES = "files.json"  # index of a fetched folder: {path: sha256}
PASSING = (".part", ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".rar", ".7z")
GROUP = 1 << 16  # rows of a table that are read together
BLOCK = 256  # files that a thread hashes at a time
LAST = ".content"  # in place of .json: what `content` found last
SAID = 1e9  # bytes; hashing more is announced, as it takes a while


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A temporary name beside `target`, for a file or a folder; renamed to `target` if the block ends without an error.

    The name is this process's own, so two processes cannot spoil each other's; what one left that was killed on
    this machine is removed.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(target, error) from error
    ours = f".{target.name}.tmp-{platform.node()}-"
    for left in target.parent.glob(f"{glob.escape(ours)}*"):
        if not _alive(left.name.removeprefix(ours)):
            remove(left)
    temporary = target.parent / f"{ours}{os.getpid()}"
    try:
        remove(temporary)
        yield temporary
        if temporary.is_file():
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        elif temporary.is_dir() and target.is_dir():
            shutil.rmtree(target)
        temporary.replace(target)
        _sync_folder(target.parent)
    except BaseException as error:
        remove(temporary)
        at = Path(os.fsdecode(error.filename)) if isinstance(error, OSError) and error.filename else temporary
        if isinstance(error, OSError) and at.is_relative_to(temporary):  # no other file of the block's
            raise _unwritable(target, error) from error
        raise


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk, where the file system can say so."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(opened)


def _unwritable(target: Path, error: OSError) -> OSError | UserError:
    """What to tell the user where the system would not write; the error itself where that is not the matter."""
    fix = (FULL | CLOSED).get(error.errno or 0)
    if fix is None:
        return error
    folder = next(folder for folder in target.absolute().parents if folder.is_dir())
    free = f" ({shutil.disk_usage(folder).free / 1e6:,.0f} MB free there)" if error.errno in FULL else ""
    got = os.strerror(error.errno or 0)
    return UserError(
        f"{target}: expected to be able to write it, found: {got}{free}; {fix}, then start again: what was finished "
        "is kept"
    )


def append_text(target: Path, text: str) -> None:
    """Add text to the end of a file, all of it or nothing."""
    before = None
    try:
        with target.open("ab") as file:
            before = file.tell()
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if before is not None:
            os.truncate(target, before)
        raise _unwritable(target, error) from error


def awaited(path: Path, seconds: float | None = None) -> Path:
    """`path` once it is there, or after so many seconds whatever is (default: LATE in a scheduler's job, else none).

    For a stage's inputs, which another node may have written: a network file system shows them with a delay.
    """
    if seconds is None:
        seconds = LATE if any(name in os.environ for name in SCHEDULERS) else 0.0
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
        if path.parent.is_dir():
            list(path.parent.iterdir())  # has NFS ask the server again
    return path


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
        try:
            shutil.rmtree(path)
        except OSError as error:  # which names a file relative to a folder in `path`
            raise type(error)(error.errno, error.strerror, str(path)) from error
    else:
        path.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    with whole(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    write_text(target, json.dumps(value, indent=2) + "\n")


def read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def write_sealed(target: Path, value: dict[str, Any], indent: int | None = 2) -> None:
    """Write a JSON object with its checksum; without `indent` it is written several times faster, in one line."""
    with whole(target) as temporary:
        temporary.write_text(json.dumps({**value, CHECKSUM: checksums.SEAL}, indent=indent) + "\n", encoding="utf-8")
        checksums.seal(temporary)


def read_sealed(file: Path, fix: str, fresh: bool = False) -> dict[str, Any]:
    """A JSON object without its checksum, which is verified. Raises UserError, with `fix`, if it is damaged."""
    checksums.verify(file, fix, fresh)
    value = read_json(file)
    if not isinstance(value, dict) or value.pop(CHECKSUM, None) is None:
        raise checksums.damaged(file, fix, "it is no object with a checksum")
    return value


def write_table(target: Path, table: "pa.Table | pd.DataFrame", index: bool | None = None) -> None:
    """Write a Parquet file with its checksum."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not isinstance(table, pa.Table):
        table = pa.Table.from_pandas(table, preserve_index=index)
    with whole(target) as temporary:
        with pq.ParquetWriter(temporary, table.schema) as writer:
            writer.write_table(table, row_group_size=GROUP)
            writer.add_key_value_metadata({CHECKSUM: checksums.SEAL})
        checksums.seal(temporary)


def read_table(file: Path, fix: str) -> "pd.DataFrame":
    """A Parquet file whose checksum is verified. Raises UserError, with `fix`, if it is damaged."""
    import pandas as pd

    checksums.verify(awaited(file), fix)
    return pd.read_parquet(file)


def read_part(file: Path, fix: str, index: int, count: int) -> "pd.DataFrame":
    """One of `count` equal parts of such a file, and of it no more than that needs."""
    import pyarrow.parquet as pq

    checksums.verify(awaited(file), fix)
    with pq.ParquetFile(file) as opened:
        sizes = [opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)]
        first, last = (sum(sizes) * i // count for i in (index, index + 1))
        ends = list(accumulate(sizes))
        groups = [i for i, end in enumerate(ends) if end > first and end - sizes[i] < last]
        before = ends[groups[0]] - sizes[groups[0]] if groups else 0
        part = opened.read_row_groups(groups).slice(first - before, last - first)
    return part.replace_schema_metadata(None).to_pandas()


def sha256(file: Path) -> str:
    """Hash of a file's content, hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def below(folder: Path, follow: bool = False) -> list[tuple[str, os.DirEntry]]:
    """(path relative to `folder`, entry) of every file below it, in the order of the paths; folders that are links are
    entered if `follow`, except for one that leads back to a folder that it is in.
    """
    return sorted(_walked(folder, follow), key=lambda pair: pair[0])


def _walked(folder: Path, follow: bool) -> Iterator[tuple[str, os.DirEntry]]:
    """What `below` lists, in no order: an entry keeps what is asked of it, and takes much memory if it is kept."""
    pending: list[tuple[str, Path, tuple]] = [("", folder, (_identity(folder.stat()),))]
    while pending:
        prefix, place, above = pending.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                try:
                    if entry.is_dir(follow_symlinks=follow):
                        here = _identity(entry.stat())
                        if here not in above:
                            pending.append((f"{prefix}{entry.name}/", Path(entry.path), (*above, here)))
                    elif entry.is_file():
                        yield f"{prefix}{entry.name}", entry
                except OSError as error:
                    if error.errno != errno.ELOOP:  # a link to itself is no file
                        raise


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def scan(folder: Path, seen: Path, follow: bool = False, skip: Callable[[str], bool] | None = None) -> dict[str, str]:
    """{path: sha256} of every file below `folder`, in the order of the paths, but for those to `skip`; folders that are
    links are entered if `follow`.

    `seen` keeps {path: "<bytes> <mtime in ns> <sha256>"} from one look to the next, so that a second one is a stat per
    file. It holds for this copy of the folder only, and may be lost: file times are no part of what was found.
    """
    return dict(_scanned(folder, seen, follow, skip))


def _scanned(
    folder: Path, seen: Path, follow: bool, skip: Callable[[str], bool] | None = None
) -> Iterator[tuple[str, str]]:
    """The pairs of `scan`. A folder may have millions of files, so little is kept of each."""
    known = remembered(seen)
    now, unknown, size = {}, [], 0
    for name, entry in _walked(folder, follow):
        if name == FILES or (skip and skip(name)):
            continue
        stat = entry.stat()
        now[name] = known.get(name, "")
        if not now[name].startswith(_state(stat)):
            now[name] = _state(stat)
            unknown.append(name)
            size += stat.st_size
    if size > SAID:
        log.info(f"hashing {folder}  {len(unknown)} files, {size / 1e9:.1f} GB, once")
    blocks = [unknown[start : start + BLOCK] for start in range(0, len(unknown), BLOCK)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for names, digests in zip(blocks, pool.map(lambda names: _digests(folder, names), blocks), strict=True):
            for name, digest in zip(names, digests, strict=True):
                now[name] += digest
    readable = {name: entry for name, entry in now.items() if not entry.endswith(UNREADABLE)}  # looked at again
    if readable != known:
        with suppress(UserError):  # a disk that cannot be written: hashed again next time
            write_sealed(seen, readable, indent=None)
    del readable, known
    for name in sorted(now):
        yield name, now[name].rpartition(" ")[2]


def _state(stat: os.stat_result) -> str:
    """What of a file must be the same for its hash to be."""
    return f"{stat.st_size} {stat.st_mtime_ns} "


def _digests(folder: Path, names: list[str]) -> list[str]:
    return [_digest(folder / name) for name in names]


def _digest(file: Path) -> str:
    """Hash of a file's content, or UNREADABLE: what cannot be read is a matter for the quarantine."""
    try:
        return sha256(file)
    except PermissionError:
        return UNREADABLE


def remembered(seen: Path) -> dict[str, str]:
    """What `scan` keeps in `seen`; nothing where it is lost, damaged or of another form."""
    try:
        known = read_sealed(seen, "")
    except UserError:
        return {}
    return known if all(isinstance(entry, str) for entry in known.values()) else {}


def digest(file: Path, entry: str | None) -> str:
    """Hash of a file's content; that of its `entry` in what `scan` keeps, if size and time are still the same."""
    if entry is not None and entry.startswith(_state(file.stat())):
        return entry.rpartition(" ")[2]
    return sha256(file)


def changes(folder: Path, seen: Path) -> dict[str, str | None]:
    """{path: sha256, or None if it is gone} of the files of a fetched folder that are not as they were fetched."""
    recorded = read_sealed(folder / FILES, f"delete {folder} and run snakemake again")
    now = scan(folder, seen)
    changed = {name: digest for name, digest in now.items() if recorded.get(name) != digest}
    return changed | {name: None for name in recorded if name not in now}


def content(folder: Path, seen: Path) -> str:
    """Hash of all names and contents below a folder of the user's, links followed. Hidden files, archives and
    unfinished downloads do not count: they come and go.
    """

    def passing(name: str) -> bool:
        return name.lower().endswith(PASSING) or name.startswith(".") or "/." in name

    whole_folder = hashlib.sha256(b"{")
    for i, (name, digest) in enumerate(_scanned(folder, seen, True, passing)):
        whole_folder.update(f"{', ' if i else ''}{quoted(name)}: {quoted(digest)}".encode())
    whole_folder.update(b"}")
    found = whole_folder.hexdigest()
    if _last(seen) != found:
        with suppress(UserError):  # looked at again next time
            write_text(seen.with_suffix(LAST), found)
    return found


def last_content(folder: Path, seen: Path) -> str:
    """`content` as it was last found: of millions of files, a look takes half a minute, or minutes over NFS."""
    last = _last(seen)
    return last if re.fullmatch("[0-9a-f]{64}", last) else content(folder, seen)


def _last(seen: Path) -> str:
    try:
        return seen.with_suffix(LAST).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


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
