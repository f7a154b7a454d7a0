"""Downloads against a local server that breaks off, redirects and refuses; archives that try to leave their folder."""

import hashlib
import http.server
import io
import os
import tarfile
import threading
import zipfile
from email.utils import formatdate

import numpy as np
import pytest

from pipeline_src.core.errors import UserError
from pipeline_src.datasets import download
from pipeline_src.datasets.base import Download

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; what it does wrong is set by its attributes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.tag = CONTENT, True, '"one"'
        self.breaks: list[int] = []  # bytes after which each of the next answers breaks off
        self.statuses: list[int] = []  # of the next answers
        self.asked: list[dict] = []  # headers of the requests for the file

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/file")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        server.asked.append(dict(self.headers))
        status = server.statuses.pop(0) if server.statuses else 200
        if status != 200:
            self.send_error(status)
            return
        start, content = 0, server.content
        wanted = self.headers.get("Range")
        fresh = self.headers.get("If-Range") in (None, server.tag)
        if wanted and server.ranges and fresh:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        if server.tag:
            self.send_header("ETag", server.tag)
        self.send_header("Last-Modified", formatdate(0, usegmt=True))
        self.end_headers()
        end = start + server.breaks.pop(0) if server.breaks else len(content)
        self.wfile.write(content[start:end])


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def item(path: str = "file", content: bytes = CONTENT, host: str = "authors.example") -> Download:
    return Download(f"https://{host}/{path}", "lists/file.bin", hashlib.sha256(content).hexdigest(), len(content))


@pytest.fixture
def get(server, tmp_path):
    """A function: a Download -> the bytes of the file in tmp_path, from the local server in the authors' place."""

    def of(one: Download | None = None) -> bytes:
        return download.download(_local(one or item(), server), tmp_path, pause=0.0).read_bytes()

    return of


def _local(one: Download, server: Server) -> Download:
    return one._replace(url=one.url.replace("https://authors.example", server.url))


def left(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_fetched_once(get, server, tmp_path):
    assert get() == get() == CONTENT
    assert len(server.asked) == 1 and "Range" not in server.asked[0]
    assert left(tmp_path) == ["file.bin"]


def test_a_broken_transfer_goes_on_where_it_stopped(get, server, tmp_path):
    server.breaks = [100_000, 50_000]
    assert get() == CONTENT
    assert [asked.get("Range") for asked in server.asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert server.asked[1]["If-Range"] == '"one"'
    assert left(tmp_path) == ["file.bin"]


def test_a_later_call_goes_on_too(get, server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    server.breaks = [100_000]
    with pytest.raises(
        UserError, match=r"/file: the transfer broke off at 100,000 of 300,000 bytes, 1 times; fetch again"
    ):
        get()
    assert left(tmp_path) == [".file.bin.part.json", "file.bin.part"]
    assert get() == CONTENT
    assert server.asked[1]["Range"] == "bytes=100000-"


def test_a_server_without_ranges_sends_all_again(get, server):
    server.breaks, server.ranges = [100_000], False
    assert get() == CONTENT
    assert server.asked[1]["Range"] == "bytes=100000-"


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(get, server):
    other = bytes(reversed(CONTENT))
    server.breaks, server.content, server.tag = [100_000], other, '"old"'
    original = server.asked

    class Changing(list):
        def append(self, asked):  # the server's file changes after the first answer
            super().append(asked)
            if len(self) == 2:
                server.content, server.tag = CONTENT, '"new"'

    server.asked = Changing(original)
    assert get() == CONTENT
    assert server.asked[1]["If-Range"] == '"old"'


def test_a_changed_file_without_a_validator_is_noticed_by_its_checksum(get, server, caplog):
    server.breaks, server.content, server.tag = [100_000], bytes(reversed(CONTENT)), 'W/"weak"'

    class Changing(list):
        def append(self, asked):
            super().append(asked)
            if len(self) == 2:
                server.content, server.tag = CONTENT, asked.get("If-Range")

    server.asked = Changing()
    assert get() == CONTENT  # put together wrongly, then fetched whole
    assert "the continued file is not the published one" in caplog.text
    assert "Range" not in server.asked[2]


def test_a_wrong_checksum_is_an_error_and_the_file_kept_aside(get, server, tmp_path):
    server.content = bytes(reversed(CONTENT))
    with pytest.raises(
        UserError, match=r"expected 300000 bytes with sha256 .*, but got 300000 with .*; kept as .*\.wrong"
    ):
        get()
    assert left(tmp_path) == ["file.bin.wrong"]
    assert (tmp_path / "lists/file.bin.wrong").read_bytes() == server.content


@pytest.mark.parametrize("change", [CONTENT[:-1], CONTENT + b"x"])
def test_another_size_is_noticed_before_the_transfer(get, server, tmp_path, change):
    server.content = change
    with pytest.raises(UserError, match=rf"expected 300000 bytes, but got {len(change)}; the source has changed"):
        get()
    assert left(tmp_path) == []


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_file_that_is_gone_is_not_asked_for_again(get, server, status):
    server.statuses = [status] * 9
    with pytest.raises(
        UserError, match=rf"expected a file, but got {status} .*; put it in .*file\.bin yourself, or name"
    ):
        get()
    assert len(server.asked) == 1


def test_passing_errors_are_tried_again(get, server, caplog):
    server.statuses = [503, 429]
    assert get() == CONTENT
    assert "503 Service Unavailable; attempt 2 of 5" in caplog.text


def test_nobody_there(tmp_path):
    closed = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    closed.server_close()
    one = item()._replace(url=f"http://127.0.0.1:{closed.server_port}/file")
    with pytest.raises(UserError, match=r"refused.*, 5 times; fetch again later"):
        download.download(one, tmp_path, pause=0.0)


def test_redirects_are_followed(get, server, tmp_path):
    assert get(item("moved")) == CONTENT
    (tmp_path / "lists/file.bin").unlink()
    server.breaks = [100_000]
    assert get(item("moved")) == CONTENT
    assert server.asked[2]["Range"] == "bytes=100000-"


def test_a_mirror_takes_the_place_of_the_source(server, tmp_path):
    one = item()
    assert download.mirrored(one.url, f"{server.url}/copies/") == f"{server.url}/copies/authors.example/file"
    assert download.mirrored(one.url, "") == one.url
    assert download.download(one, tmp_path, mirror=server.url, pause=0.0).read_bytes() == CONTENT


def test_a_file_of_the_users_own_is_not_overwritten(get, server, tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/file.bin").write_bytes(b"mine")
    with pytest.raises(
        UserError, match=r"file\.bin: expected the published file .*, but got another one .*move it away"
    ):
        get()
    assert (tmp_path / "lists/file.bin").read_bytes() == b"mine" and not server.asked


def test_two_processes_do_not_write_to_one_file(get, tmp_path):
    (tmp_path / "lists").mkdir()
    with download._alone(tmp_path / "lists/file.bin.part"), pytest.raises(UserError, match="another process fetches"):
        get()


# --- archives ---------------------------------------------------------------------------------------------------------


def zipped(file, members: dict[str, bytes], modes: dict[str, int] | None = None):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (modes or {}).get(name, 0o100644) << 16
            archive.writestr(info, content)
    return file


def tarred(file, members: dict[str, bytes], **special):
    mode = {".tar": "w", ".gz": "w:gz", ".xz": "w:xz"}[file.suffix]
    with tarfile.open(file, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in special.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return file


GOOD = {"AVE/a.mp4": b"a" * 1000, "AVE/deep/b.mp4": b"b", "readme.txt": b"c"}


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz"])
def test_archives_are_unpacked_in_their_folder(tmp_path, name):
    archive = (zipped if name.endswith("zip") else tarred)(tmp_path / name, GOOD)
    (tmp_path / "readme.txt").write_bytes(b"mine")
    assert download.archives(tmp_path) == [archive]
    assert download.unpack(archive, tmp_path) == 2
    assert {n: (tmp_path / n).read_bytes() for n in GOOD} == GOOD | {"readme.txt": b"mine"}
    assert left(tmp_path) == sorted(["a.mp4", "b.mp4", "readme.txt", name])
    assert download.unpack(archive, tmp_path) == 0


LEAVING = ["../out.txt", "a/../../out.txt", "/tmp/out.txt", "..\\out.txt", "C:\\out.txt", "C:/out.txt"]
REFUSED = {
    **{f"zip {name}": lambda f, n=name: zipped(f / "x.zip", {**GOOD, n: b"x"}) for name in LEAVING},
    **{f"tar {name}": lambda f, n=name: tarred(f / "x.tar", {**GOOD, n: b"x"}) for name in LEAVING},
    "zip link": lambda f: zipped(f / "x.zip", {**GOOD, "l": b"/etc/passwd"}, {"l": 0o120777}),
    "tar link": lambda f: tarred(f / "x.tar", {"l": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "tar link inside": lambda f: tarred(f / "x.tar", {"l": b""}, type=tarfile.SYMTYPE, linkname="AVE"),
    "tar hard link": lambda f: tarred(f / "x.tar", {"l": b""}, type=tarfile.LNKTYPE, linkname="/etc/passwd"),
    "tar device": lambda f: tarred(f / "x.tar", {"d": b""}, type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "tar pipe": lambda f: tarred(f / "x.tar", {"p": b""}, type=tarfile.FIFOTYPE),
    "zip bomb": lambda f: zipped(f / "x.zip", {"zeros": bytes(5 << 20)}),
    "tar bomb": lambda f: tarred(f / "x.tar.xz", {"zeros": bytes(5 << 20)}),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_archives_that_would_do_harm_are_refused_whole(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(download, "FREE_RATIO", 1 << 20)
    monkeypatch.setattr(download, "RATIO", 100)
    folder = tmp_path / "folder"
    folder.mkdir()
    archive = REFUSED[kind](folder)
    with pytest.raises(UserError, match=r"x\.(zip|tar)(\.xz)?: refused, as .* nothing was unpacked"):
        download.unpack(archive, folder)
    assert left(tmp_path) == [archive.name]


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_archives_that_are_cut_short(tmp_path, name, share):
    members = {f"{i}.bin": os.urandom(2000) for i in range(9)}
    archive = (zipped if name.endswith("zip") else tarred)(tmp_path / name, members)
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * share)])
    with pytest.raises(UserError, match=rf"{name}: cannot be unpacked: .*get the file again"):
        download.unpack(archive, tmp_path)
    assert left(tmp_path) == [name]


def test_a_zip_file_with_a_damaged_member(tmp_path):
    archive = zipped(tmp_path / "x.zip", {"a.bin": os.urandom(5000)})
    content = bytearray(archive.read_bytes())
    content[2500] ^= 255
    archive.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"x\.zip: cannot be unpacked"):
        download.unpack(archive, tmp_path)
