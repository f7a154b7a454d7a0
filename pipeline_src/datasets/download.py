"""Downloads that go on where they stopped, are checked, and archives that stay in their folder.

`urllib` of the standard library is enough for a handful of files, and is there wherever Python is: it follows
redirects, takes proxies from the environment and verifies certificates. What it lacks is here: going on after an
interruption, and trying again.
"""

import contextlib
import fcntl
import http.client
import json
import logging
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.datasets.base import Download

log = logging.getLogger(__name__)

ATTEMPTS = 5
TIMEOUT = 60  # seconds without a byte
BLOCK = 1 << 20  # bytes
PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers that may be others a moment later
SPARE = 1 << 30  # bytes of disk that stay free


def download(item: Download, folder: Path, mirror: str = "", pause: float = 2.0) -> Path:
    """The file of `item` in `folder`, fetched if it is not there with the right content.

    What has come stays in <file>.part when the transfer breaks, and the next attempt, or the next call, goes on from
    there if the server's file is still the same. `pause` seconds before a second attempt are doubled for each further
    one. Raises UserError if the file cannot be had or is not the published one; a wrong file is kept beside as
    <file>.wrong.
    """
    target = folder / item.file
    if target.exists():
        if _right(target, item):
            return target
        raise UserError(
            f"{target}: expected the published file (sha256 {item.sha256[:12]}...), but got another one "
            f"({files.sha256(target)[:12]}...); move it away and fetch again"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    url = mirrored(item.url, mirror)
    part = target.with_name(f"{target.name}.part")
    with _alone(part):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _transfer(url, part, item)
                if _right(part, item):
                    break
                wrong = target.with_name(f"{target.name}.wrong")
                found = files.sha256(part)
                part.replace(wrong)
                if not _continued(part):
                    raise UserError(
                        f"{url}: expected {item.bytes} bytes with sha256 {item.sha256}, but got {wrong.stat().st_size} "
                        f"with {found}; kept as {wrong}. The source has changed or the transfer is tampered with"
                    )
                reason = "the continued file is not the published one"  # once more, from the beginning
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {error.reason}"
                if error.code not in PASSING:
                    raise UserError(
                        f"{url}: expected a file, but got {reason}; put it in {target} yourself, or name a copy's "
                        "address as `mirror`"
                    ) from None
                pause = max(pause, _asked(error))
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", None) or error) or type(error).__name__
            finally:
                _state(part).unlink(missing_ok=True) if not part.exists() else None
            if attempt == ATTEMPTS:
                raise UserError(f"{url}: {reason}, {ATTEMPTS} times; fetch again later, what has come is kept")
            log.warning(f"fetch {item.file}  {reason}; attempt {attempt + 1} of {ATTEMPTS} in {pause:.0f} s")
            time.sleep(pause)
            pause *= 2
        _state(part).unlink(missing_ok=True)
        part.replace(target)
    return target


def mirrored(url: str, mirror: str) -> str:
    """The address of a copy: <mirror>/<host>/<path>."""
    parts = urllib.parse.urlsplit(url)
    return f"{mirror.rstrip('/')}/{parts.netloc}{parts.path}" if mirror else url


def _right(file: Path, item: Download) -> bool:
    return file.stat().st_size == item.bytes and files.sha256(file) == item.sha256


def _state(part: Path) -> Path:
    return part.with_name(f".{part.name}.json")


def _continued(part: Path) -> bool:
    """Whether what has come was put together from several transfers."""
    state = _state(part)
    return state.exists() and json.loads(state.read_text()).get("continued", False)


def _asked(error: urllib.error.HTTPError) -> float:
    """Seconds that the server asks to wait, at most two minutes."""
    after = error.headers.get("Retry-After", "")
    return min(float(after), 120.0) if after.isdigit() else 0.0


@contextlib.contextmanager
def _alone(part: Path):
    """Only one process at a time writes to a file."""
    with part.with_name(f".{part.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{part}: another process fetches this file now; wait for it") from None
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:
            Path(lock.name).unlink(missing_ok=True)


def _transfer(url: str, part: Path, item: Download) -> None:
    """One attempt: the rest of the file after what is in `part`, or all of it where that cannot be trusted."""
    have = part.stat().st_size if part.exists() else 0
    state = json.loads(_state(part).read_text()) if _state(part).exists() else {}
    if have and (state.get("url") != url or have > item.bytes):
        part.unlink()
        have = 0
    if have == item.bytes:
        return
    headers = {"Accept-Encoding": "identity", "User-Agent": "counterpoise"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if state.get("validator"):
            headers["If-Range"] = state["validator"]
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # the server's file is shorter: another one
            part.unlink()
            return _transfer(url, part, item)
        raise
    with answer:
        goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if have and answer.status == 206 and not goes_on:
            part.unlink()
            raise OSError("the server sent another part than asked for")
        length = answer.headers.get("Content-Length")
        whole = (have if goes_on else 0) + int(length) if length and length.isdigit() else item.bytes
        if whole != item.bytes:
            raise UserError(f"{url}: expected {item.bytes} bytes, but got {whole}; the source has changed")
        free = shutil.disk_usage(part.parent).free
        if whole - have > free - SPARE:
            raise UserError(f"{part.parent}: expected {whole - have:,} bytes free and 1 GB over, but got {free:,}")
        # A weak validator does not promise the same bytes.
        tag = answer.headers.get("ETag", "")
        validator = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")
        files.write_json(_state(part), {"url": url, "validator": validator, "continued": goes_on and have > 0})
        with part.open("ab" if goes_on else "wb") as sink:
            while block := answer.read1(BLOCK):
                sink.write(block)
                if sink.tell() > item.bytes:
                    raise UserError(f"{url}: expected {item.bytes} bytes, but got more; the source has changed")
            sink.flush()
            os.fsync(sink.fileno())
    found = part.stat().st_size
    if found < item.bytes:
        raise OSError(f"the transfer broke off at {found:,} of {item.bytes:,} bytes")


# --- archives --------------------------------------------------------------------------------------------------------

ZIPS, TARS = (".zip",), (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
LARGEST = 4 << 40  # bytes that an archive may unpack to
RATIO, FREE_RATIO = 1000, 100 << 20  # times its own size, beyond the first bytes; text of zeros packs better than data


def archives(folder: Path) -> list[Path]:
    """Archives in the folder itself, in order of their names."""
    found = (path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else ()
    return sorted(path for path in found if path.name.lower().endswith(ZIPS + TARS))


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a zip or tar file into `folder`; the number of files. What is there already is left as it is.

    It is unpacked aside and moved into place when whole. Raises UserError, and unpacks nothing, if a member would
    leave the folder, is a link or a device, or if the archive is broken or unpacks to more than the disk can take.
    """
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".unpack-"))
    try:
        if archive.name.lower().endswith(ZIPS):
            _unzip(archive, temporary)
        else:
            _untar(archive, temporary)
        moved = 0
        for name, entry in list(files.below(temporary)):
            target = folder / name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                Path(entry.path).replace(target)
                moved += 1
        return moved
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
        what = str(error).partition("\n")[0].rstrip(":")
        raise UserError(f"{archive}: cannot be unpacked: {what}; get the file again") from error
    finally:
        shutil.rmtree(temporary)


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        for member in members:
            mode = member.external_attr >> 16
            _check(archive, member.filename, "a link or a device" if _special(mode) else None)
        _check_size(archive, sum(member.file_size for member in members))
        for member in members:  # not extractall, which trusts the stated sizes
            if member.is_dir():
                continue
            with opened.open(member) as source:
                _write(source, folder / member.filename)


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        total = 0
        for member in opened:
            _check(archive, member.name, None if member.isfile() or member.isdir() else "a link or a device")
            total += member.size
            _check_size(archive, total)
            if member.isfile():  # not extract, which Python made safe with 3.11.4 only
                with opened.extractfile(member) as source:
                    _write(source, folder / member.name)


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as sink:
        shutil.copyfileobj(source, sink, BLOCK)


def _special(mode: int) -> bool:
    return stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)


def _check(archive: Path, name: str, kind: str | None) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    windows = len(name) > 1 and name[1] == ":"
    if kind is None and (path.is_absolute() or windows or ".." in path.parts or "\0" in name):
        kind = "a path that leaves the folder"
    if kind:
        raise UserError(f"{archive}: refused, as {name!r} is {kind}; nothing was unpacked, get the file again")


def _check_size(archive: Path, size: int) -> None:
    packed, free = archive.stat().st_size, shutil.disk_usage(archive.parent).free
    if size > LARGEST or size > max(FREE_RATIO, RATIO * packed):
        raise UserError(f"{archive}: refused, as its {packed:,} bytes unpack to {size:,}; nothing was unpacked")
    if size > free - SPARE:
        raise UserError(f"{archive}: unpacks to {size:,} bytes, expected as many free and 1 GB over, but got {free:,}")
