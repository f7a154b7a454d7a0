"""Downloads of published files, checked, and archives that stay in their folder.

pooch fetches: it follows redirects, takes proxies from the environment, writes to a temporary file in the same folder
and compares the checksum. The files are below 10 MB, so a transfer that breaks off begins again with the next call.
"""

import logging
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import urllib.parse
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

import pooch

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.datasets.base import Download

log = logging.getLogger(__name__)

BLOCK = 1 << 20  # bytes
CONNECT, SILENT = 5, 30  # seconds after which a server that cannot be reached, or says nothing more, is given up
SPARE = 1 << 30  # bytes of disk that stay free
UNPACKED = ".unpacked.json"  # in a dataset's folder, the archives that were unpacked; no archive may bring it


def download(item: Download, folder: Path, mirror: str = "") -> Path:
    """The file of `item` in `folder`, fetched if it is not there.

    Raises UserError if a file is there that is not the published one, or if the file cannot be fetched.
    """
    target = folder / item.file
    if target.exists():
        if files.sha256(target) == item.sha256:
            return target
        raise UserError(
            f"{target}: expected the published file (sha256 {item.sha256[:12]}...), but got another one "
            f"({files.sha256(target)[:12]}...); move it away and fetch again"
        )
    url = mirrored(item.url, mirror)
    log.info(f"fetch {item.file}  downloading {item.bytes:,} bytes from {urllib.parse.urlsplit(url).netloc}")
    pooch.get_logger().setLevel("WARNING")
    source = pooch.create(folder, base_url="", registry={item.file: item.sha256}, urls={item.file: url})
    get = pooch.HTTPDownloader(
        _Size(url, item.bytes), chunk_size=BLOCK, headers={"Accept-Encoding": "identity"}, timeout=(CONNECT, SILENT)
    )
    try:
        source.fetch(item.file, downloader=get)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{url}: expected the published file, but got {_reason(error)}; fetch again later, put it in {target} "
            "yourself, or name a copy's address as `mirror`"
        ) from None
    return target


def mirrored(url: str, mirror: str) -> str:
    """The address of a copy: <mirror>/<host>/<path>."""
    parts = urllib.parse.urlsplit(url)
    return f"{mirror.rstrip('/')}/{parts.netloc}{parts.path}" if mirror else url


class _Size:
    """What pooch tells of its progress. Ends a transfer that is longer than the published file, whatever follows."""

    def __init__(self, url: str, size: int):
        self.url, self.size = url, size
        self.total = self.count = 0

    def update(self, count: int) -> None:
        self.count += count  # of full blocks: the last one may hold less
        if self.total not in (0, self.size) or self.count >= self.size + BLOCK:
            got = f"{self.total} bytes" if self.total else "more"
            raise UserError(f"{self.url}: expected {self.size} bytes, but got {got}; the source has changed")

    def reset(self) -> None:
        self.count = 0

    def close(self) -> None:
        pass


def _reason(error: BaseException) -> str:
    """What went wrong, in a few words: libraries wrap the operating system's message several times."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"{response.status_code} {response.reason}"
    while deeper := error.__cause__ or error.__context__:
        error = deeper
    return " ".join(str(error).split())


# --- archives --------------------------------------------------------------------------------------------------------

ZIPS, TARS = (".zip",), (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
LARGEST = 4 << 40  # bytes that an archive may unpack to
LONGEST = 16 << 10  # bytes of a header of a tar; tarfile reads it whole, and searches it in quadratic time
RATIO, FREE_RATIO = 1000, 100 << 20  # times its own size, beyond the first bytes; text of zeros packs better than data

BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, zipfile.LargeZipFile),
    *(EOFError, OSError, RuntimeError, ValueError, OverflowError, MemoryError),
)  # what zipfile and tarfile raise on what is none


def archives(folder: Path) -> list[Path]:
    """Archives in the folder itself, in order of their names."""
    present = (path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else ()
    return sorted(path for path in present if path.name.lower().endswith(ZIPS + TARS))


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a zip or tar file into `folder`; returns the number of new files. Existing files are kept.

    The archive is unpacked into a temporary folder, whose files are moved once all are there. Raises UserError, and
    unpacks nothing, if a member would leave the folder or is a link or a device, or if the archive is broken or too
    large for the disk. Names are checked here: zipfile has no filter for them, tarfile only since Python 3.11.4.
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
    except BROKEN as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise UserError(f"{archive}: cannot be unpacked: {reason}; get the file again") from error
    finally:
        shutil.rmtree(temporary)


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        for member in members:
            mode = member.external_attr >> 16
            _check(archive, member.filename, "a link or a device" if _special(mode) else None)
        _check_size(archive, sum(member.file_size for member in members))
        for member in members:  # not extractall, which would rename what it cannot write
            if member.is_dir():
                continue
            with opened.open(member) as source:
                _write(source, folder / member.filename)


class _Member(tarfile.TarInfo):
    """A member whose headers (long names, more attributes, maps of holes) are checked before tarfile reads them."""

    HEADERS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)

    def _proc_member(self, opened: tarfile.TarFile) -> tarfile.TarInfo:  # which tarfile leaves to subclasses
        if self.size < 0 or (self.type in (*self.HEADERS, tarfile.SOLARIS_XHDTYPE) and self.size > LONGEST):
            raise UserError(
                f"{os.fsdecode(opened.name or '')}: refused, as a header in it has {self.size:,} bytes; nothing was "
                "unpacked, get the file again"
            )
        if self.type == tarfile.GNUTYPE_SPARSE:
            self._refuse_holes()
        return super()._proc_member(opened)  # type: ignore[misc]

    def _refuse_holes(self, *_: object) -> None:
        raise tarfile.ReadError("a file with holes, whose map may have any length")

    _proc_gnusparse_10 = _refuse_holes


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive, tarinfo=_Member) as opened:
        total = 0
        for member in opened:
            kind = None if member.isfile() or member.isdir() else "a link or a device"
            _check(archive, member.name, "of a negative size" if member.size < 0 else kind)
            total += member.size
            _check_size(archive, total)
            if source := opened.extractfile(member):  # None for a folder
                _write(source, folder / member.name)


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as sink:
        shutil.copyfileobj(source, sink, BLOCK)


def _special(mode: int) -> bool:
    return stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)


def _check(archive: Path, name: str, kind: str | None) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.parts == (UNPACKED,):
        kind = "a record of this program"
    windows = len(name) > 1 and name[1] == ":"
    if kind is None and (path.is_absolute() or windows or ".." in path.parts or "\0" in name):
        kind = "a path that leaves the folder"
    if kind:
        raise UserError(f"{archive}: refused, as {name!r} is {kind}; nothing was unpacked, get the file again")


def _check_size(archive: Path, size: int) -> None:
    packed, free = archive.stat().st_size, shutil.disk_usage(archive.parent).free
    if size > LARGEST or size > max(FREE_RATIO, RATIO * packed):
        raise UserError(
            f"{archive}: refused, as its {packed:,} bytes unpack to {size:,}; nothing was unpacked, get the file again"
        )
    if size > free - SPARE:
        raise UserError(
            f"{archive}: expected {size + SPARE:,} free bytes to unpack it, but got {free:,}; make room and fetch again"
        )
