"""Archives in a dataset's folder: nothing leaves it, nothing is executed, and a refusal leaves nothing behind."""

import gzip
import io
import os
import resource
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from tests.attacks.judge import as_a_user, call, command, nothing_lost, refused
from tests.attacks.study import params, random_bytes

UCF = """\
  ucf101:
    folder: media
    recipe: small-1
    val_fraction: 0.4
    split_seed: 0
    max_quarantine: 0.5
    shards: 2
    split: 1
"""
RECIPE = """\
  small-1:
    flow: {kind: frames, count: 2, size: 32, pick: centers}
    rgb: {kind: frames, count: 2, size: 32, pick: centers}
"""


def study() -> str:
    """The small study with UCF-101, which fetches nothing but unpacks what lies in its folder."""
    text = params(UCF, "ucf101").replace("  small-1:\n", RECIPE)
    for name, to in (("audio", "flow"), ("visual", "rgb")):
        text = text.replace(f"    {name}: {{kind: resnet", f"    {to}: {{kind: resnet")
    return text.replace("    audio: {roll: 8}", "    flow: {flip: 0.0}").replace(
        "    visual: {crop_scale", "    rgb: {crop_scale"
    )


def zipped(*members, comment: bytes = b"") -> bytes:
    """A zip of (name or ZipInfo, content)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = comment
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def mode(name: str, bits: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = bits << 16
    return info


def tarred(*members, compression: str = "") -> bytes:
    """A tar of (name, type, target or content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as archive:
        for name, kind, what in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(what)
                archive.addfile(info, io.BytesIO(what))
            else:
                info.linkname = what
                archive.addfile(info)
    return buffer.getvalue()


def patched(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content and len(old) == len(new)
    return content.replace(old, new)


def encrypted() -> bytes:
    content = bytearray(zipped(("a.txt", "secret")))
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + at] |= 1
    return bytes(content)


def method(number: int) -> bytes:
    content = bytearray(zipped(("a.txt", "text")))
    for signature, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(signature) + at] = number
    return bytes(content)


def wrong_sum() -> bytes:
    content = zipped(("a.txt", "text" * 10))
    return content.replace(zlib.crc32(b"text" * 10).to_bytes(4, "little"), b"\1\2\3\4")


def header(kind: bytes, size: int, name: str = "a") -> bytes:
    """The block of 512 bytes that begins a member; no content."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, abs(size)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size < 0:  # to the base 256, as GNU writes what eleven octal digits do not hold
        block[124:136] = b"\xff" + (256**11 + size).to_bytes(11, "big")
        block[148:156] = b" " * 8
        block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def pax(*records: bytes, then: bytes = b"") -> bytes:
    """A tar whose one file has these records of attributes before it, each as it is written."""
    content = b"".join(records)
    padding = bytes(-len(content) % 512)
    return header(tarfile.XHDTYPE, len(content)) + content + padding + (then or header(FILE, 0)) + bytes(1024)


def record(key: str, value: str) -> bytes:
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return f"{length} {key}={value}\n".encode()


def packed(content: bytes, zeros: int = 0) -> bytes:
    """gzip of a beginning and so many zeros; parts that are packed one by one are one stream."""
    return gzip.compress(content) + gzip.compress(bytes(BLOCK)) * (zeros // BLOCK)


BLOCK = 64 << 20
FILE = tarfile.REGTYPE
LONG, HOLES = 3 << 30, tarfile.GNUTYPE_SPARSE  # bytes
HEADERS = {
    # headers of a tar that its reader would take into memory, follow without end, or not understand
    "a long name": lambda: packed(header(tarfile.GNUTYPE_LONGNAME, LONG), LONG),
    "a long name of a link": lambda: packed(header(tarfile.GNUTYPE_LONGLINK, LONG), LONG),
    "attributes": lambda: packed(header(tarfile.XHDTYPE, LONG), LONG),
    "attributes of all files": lambda: packed(header(tarfile.XGLTYPE, LONG), LONG),
    "attributes of Solaris": lambda: packed(header(tarfile.SOLARIS_XHDTYPE, LONG), LONG),
    "attributes after a file": lambda: packed(header(FILE, 0) + header(tarfile.XHDTYPE, LONG), LONG),
    "attributes of a negative length": lambda: packed(header(tarfile.XHDTYPE, -512), LONG),
    "a negative size": lambda: packed(header(FILE, -512) * 4),
    "a negative size among the attributes": lambda: packed(pax(record("size", "-1024"))),
    "a map of holes without end": lambda: packed(header(HOLES, 512) + b"\1" * (64 << 20)),
    "a map of holes that begins": lambda: packed(
        pax(record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"), then=header(FILE, 512)) + b"9" * 5000
    ),
    "a name of headers in headers": lambda: packed(header(tarfile.XHDTYPE, 512) * 200_000),
    "a record whose length is no number": lambda: packed(pax(b"9" * 5000 + b" a=b\n")),
    "attributes in another alphabet": lambda: packed(pax(b"20 hdrcharset=\xff\xfe\xfd\n")),
    "a time that is none": lambda: packed(pax(record("path", "a\0b"), record("mtime", "nan"))),
}
MEMORY = 2 << 30  # bytes of addresses that a process may take; the libraries' own included
ZEROS = bytes(150 << 20)

REFUSED = {
    # name of the archive, its content, what is said
    "a path up": ("a.zip", lambda: zipped(("ok.txt", "a"), ("../up.txt", "b")), "leaves the folder"),
    "a path up inside": ("a.zip", lambda: zipped(("a/../../up.txt", "b")), "leaves the folder"),
    "an absolute path": ("a.zip", lambda: zipped(("/tmp/up.txt", "b")), "leaves the folder"),
    "a path of Windows": ("a.zip", lambda: zipped(("C:\\up.txt", "b")), "leaves the folder"),
    "a path up of Windows": ("a.zip", lambda: zipped(("..\\up.txt", "b")), "leaves the folder"),
    "a link": ("a.zip", lambda: zipped((mode("link", 0o120777), "/etc/passwd")), "link or a device|a link"),
    "a device": ("a.zip", lambda: zipped((mode("null", 0o020666), "")), "link or a device"),
    "a pipe": ("a.zip", lambda: zipped((mode("pipe", 0o010666), "")), "link or a device"),
    "a bomb": ("a.zip", lambda: zipped(("zeros", ZEROS)), "unpack"),
    "many bombs": ("a.zip", lambda: zipped(*[(f"{i}", ZEROS[: 12 << 20]) for i in range(12)]), "unpack"),
    "a size that is not the real one": (
        "a.zip",
        lambda: patched(zipped(("a", bytes(10_000))), (10_000).to_bytes(4, "little"), (10).to_bytes(4, "little")),
        "cannot be unpacked|refused",
    ),
    "a password": ("a.zip", encrypted, "cannot be unpacked: .*(encrypted|password)"),
    "an unknown method": ("a.zip", lambda: method(99), "cannot be unpacked"),
    "a wrong checksum": ("a.zip", wrong_sum, "cannot be unpacked: .*CRC"),
    "cut in half": ("a.zip", lambda: zipped(("a", random_bytes(5000)))[:2000], "cannot be unpacked"),
    "no archive": ("a.zip", lambda: random_bytes(5000), "cannot be unpacked"),
    "an empty file": ("a.zip", lambda: b"", "cannot be unpacked"),
    "a page of a server": ("a.zip", lambda: b"<html>404</html>", "cannot be unpacked"),
    "the record of what was unpacked": ("a.zip", lambda: zipped((".unpacked.json", "{")), "refused"),
    "the record in a tar": ("a.tar", lambda: tarred((".unpacked.json", FILE, b"{")), "refused"),
    "the record by a detour": ("a.zip", lambda: zipped(("./.unpacked.json", "{")), "refused"),
    "a tar with a path up": ("a.tar", lambda: tarred(("../up.txt", FILE, b"b")), "leaves the folder|outside"),
    "a tar with an absolute path": ("a.tar", lambda: tarred(("/tmp/up.txt", FILE, b"b")), "leaves the folder|absolute"),
    "a tar with a link up": ("a.tar", lambda: tarred(("a", tarfile.SYMTYPE, "..")), "link"),
    "a tar with a link to write through": (
        "a.tar",
        lambda: tarred(("a", tarfile.SYMTYPE, "/tmp"), ("a/up.txt", FILE, b"b")),
        "link",
    ),
    "a tar with a hard link": ("a.tar", lambda: tarred(("a", tarfile.LNKTYPE, "/etc/passwd")), "link"),
    "a tar with a device": ("a.tar", lambda: tarred(("a", tarfile.CHRTYPE, "")), "device|special"),
    "a tar with a pipe": ("a.tar", lambda: tarred(("a", tarfile.FIFOTYPE, "")), "device|special"),
    "a tar cut in half": ("a.tar", lambda: tarred(("a", FILE, random_bytes(9000)))[:5000], "cannot be unpacked"),
    "a packed tar cut in half": (
        "a.tar.gz",
        lambda: tarred(("a", FILE, random_bytes(9000)), compression="gz")[:5000],
        "cannot be unpacked",
    ),
    "a packed tar of zeros": ("a.tar.gz", lambda: tarred(("a", FILE, ZEROS), compression="gz"), "unpack"),
    "a tar that is none": ("a.tar.xz", lambda: random_bytes(5000), "cannot be unpacked"),
    "a packed tar that is none": ("a.tgz", lambda: b"\x1f\x8b\x08" + random_bytes(500), "cannot be unpacked"),
    "a name that no disk takes": ("a.zip", lambda: zipped(("a" * 300, "b")), "cannot be unpacked|too long"),
    "a file where a folder is": ("a.zip", lambda: zipped(("a", "b"), ("a/b", "c")), "cannot be unpacked"),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    here = tmp_path / "here"
    (here / "media").mkdir(parents=True)
    (here / "media/mine.txt").write_text("mine")
    (here / "p.yaml").write_text(study())
    monkeypatch.chdir(here)
    return here


@pytest.mark.parametrize("name", REFUSED)
def test_an_archive_that_cannot_be_trusted_is_one_line_and_leaves_nothing(folder, name):
    file, content, says = REFUSED[name]
    (folder / "media" / file).write_bytes(content())
    with nothing_lost(folder.parent):
        done = call("fetch", "ucf101", "--params", "p.yaml")
    refused(done, says, f"media/{file}")
    (folder / "media" / file).unlink()
    again = call("fetch", "ucf101", "--params", "p.yaml")  # what was refused does not stay in the way
    assert again.status == 0, again.err


HARMLESS = {
    "a file that is there already": lambda: zipped(("mine.txt", "theirs"), ("other.txt", "b")),
    "names of other alphabets": lambda: zipped(("ä/日本.txt", "b"), ("other.txt", "b")),
    "a folder and a file": lambda: zipped(("a/", ""), ("a/b.txt", "b"), ("other.txt", "b")),
    "a member twice": lambda: zipped(("other.txt", "a"), ("other.txt", "b")),
    "a comment": lambda: zipped(("other.txt", "b"), comment=b"<script>" * 100),
    "a program": lambda: zipped((mode("run.sh", 0o104755), "touch /tmp/executed"), ("other.txt", "b")),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", HARMLESS)
def test_an_archive_of_the_usual_kind_is_unpacked_over_nothing(folder, name):
    (folder / "media/a.zip").write_bytes(HARMLESS[name]())
    with nothing_lost(folder.parent, may_appear=r"media/(other|run|a/|ä|\.unpacked)"):
        done = call("fetch", "ucf101", "--params", "p.yaml")
    assert done.status == 0, done.err
    assert (folder / "media/other.txt").exists()
    assert not any(path.stat().st_mode & 0o6000 for path in Path("media").rglob("*"))


@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_a_tar_are_bounded(folder, name):
    content = HEADERS[name]()
    (folder / "media/a.tar.gz").write_bytes(content)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    with nothing_lost(folder.parent):
        done = command("fetch", "ucf101", "--params", "p.yaml", prepare=limit)
    refused(done, "refused|cannot be unpacked", "media/a.tar.gz")
    assert "memory" not in done.err.lower()


def test_what_is_no_file_is_no_archive(folder):
    os.mkfifo(folder / "media/pipe.zip")
    (folder / "media/folder.zip").mkdir()
    (folder / "media/gone.zip").symlink_to("nothing")
    (folder / "media/zero.zip").symlink_to("/dev/zero")
    done = call("fetch", "ucf101", "--params", "p.yaml")
    assert done.status == 0, done.err


def test_an_archive_that_may_not_be_read_is_one_line(folder):
    (folder / "media/a.zip").write_bytes(zipped(("other.txt", "b")))
    (folder / "media/a.zip").chmod(0)
    with as_a_user():
        refused(call("fetch", "ucf101", "--params", "p.yaml"), "Permission denied", "media/a.zip")


def test_a_folder_that_may_not_be_written_is_one_line(folder):
    (folder / "media/a.zip").write_bytes(zipped(("other.txt", "b")))
    (folder / "media").chmod(0o555)
    with as_a_user():
        refused(call("fetch", "ucf101", "--params", "p.yaml"), "Permission denied", "media")


@pytest.mark.parametrize("record", ["", "{", "[]", '{"a.zip": 3}', "\udcff", '{"a.zip": [1, 2, 3]}'])
def test_a_damaged_record_of_what_was_unpacked_is_no_obstacle(folder, record):
    (folder / "media/a.zip").write_bytes(zipped(("other.txt", "b")))
    (folder / "media/.unpacked.json").write_bytes(record.encode("utf-8", "surrogateescape"))
    done = call("fetch", "ucf101", "--params", "p.yaml")
    if done.status:
        refused(done, "expected|remove", ".unpacked.json")
    else:
        assert (folder / "media/other.txt").exists()
