"""Downloads from a local server that breaks off, redirects and refuses; archives that try to leave their folder."""

import contextlib
import hashlib
import http.server
import io
import os
import socket
import tarfile
import threading
import zipfile

import numpy as np
import pytest

from pipeline_src.core import progress
from pipeline_src.core.errors import UserError
from pipeline_src.datasets import download
from pipeline_src.datasets.base import Download

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; its attributes say what it does wrong."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.sized = CONTENT, True
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
        self.send_response(200)
        if server.sized:
            self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client may have had enough
            self.wfile.write(server.content[: server.breaks.pop(0) if server.breaks else None])


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def item(path: str = "file", host: str = "https://authors.example") -> Download:
    return Download(f"{host}/{path}", "lists/file.bin", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


@pytest.fixture
def get(server, tmp_path):
    """A function: path on the local server -> the bytes of the file in tmp_path."""
    return lambda path="file": download.download(item(path, server.url), tmp_path).read_bytes()


def left(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_fetched_once(get, server, tmp_path, capfd):
    progress.PACKAGE.removeHandler(progress.HANDLER)  # another test may have begun to show our own messages
    assert get() == get() == CONTENT
    assert len(server.asked) == 1
    assert left(tmp_path) == ["file.bin"]
    assert capfd.readouterr() == ("", "")  # no bars, no messages but ours


def test_nothing_is_written_outside_of_the_folder(get, tmp_path, monkeypatch):
    home = tmp_path.with_name(f"{tmp_path.name}-home")
    for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(home / name))
    assert get() == CONTENT and not home.exists()


def test_a_broken_transfer_leaves_nothing_and_the_next_call_fetches_all(get, server, tmp_path):
    server.breaks = [100_000]
    message = r"/file: expected the published file, but got .*\b200000 more expected.*; fetch again later, put it in .*"
    with pytest.raises(UserError, match=message):
        get()
    assert left(tmp_path) == []
    assert get() == CONTENT


def test_a_wrong_checksum_is_an_error(get, server, tmp_path):
    server.content = bytes(reversed(CONTENT))
    with pytest.raises(UserError, match=rf"SHA256 hash .* expected {item().sha256} but got [0-9a-f]+\..*; fetch again"):
        get()
    assert left(tmp_path) == []


@pytest.mark.parametrize("change", [CONTENT[:-1], CONTENT + b"x"])
def test_another_size_is_noticed_before_the_transfer(get, server, tmp_path, change):
    server.content = change
    with pytest.raises(UserError, match=rf"expected 300000 bytes, but got {len(change)} bytes; the source has changed"):
        get()
    assert left(tmp_path) == []


def test_a_transfer_that_does_not_end_is_ended(get, server, tmp_path, monkeypatch):
    server.content, server.sized = CONTENT * 20, False
    monkeypatch.setattr(download, "BLOCK", 1 << 16)
    with pytest.raises(UserError, match="expected 300000 bytes, but got more; the source has changed"):
        get()
    assert left(tmp_path) == []


@pytest.mark.parametrize("status", [404, 403, 410, 503])
def test_a_server_that_refuses_is_asked_once(get, server, status):
    server.statuses = [status] * 9
    with pytest.raises(UserError, match=rf"but got {status} [A-Z].*put it in .*file\.bin yourself, or name a copy's"):
        get()
    assert len(server.asked) == 1


def test_without_a_network_it_fails_at_once_with_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host = f"http://127.0.0.1:{taken.getsockname()[1]}"
    for where, reason in ((host, "Connection refused"), ("http://authors.invalid", ".")):
        with pytest.raises(UserError, match=rf"but got .*{reason}.*; fetch again later, put it in") as error:
            download.download(item(host=where), tmp_path)
        assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_redirects_are_followed(get):
    assert get("moved") == CONTENT


def test_a_mirror_takes_the_place_of_the_source(server, tmp_path):
    one = item()
    assert download.mirrored(one.url, f"{server.url}/copies/") == f"{server.url}/copies/authors.example/file"
    assert download.mirrored(one.url, "") == one.url
    assert download.download(one, tmp_path, mirror=server.url).read_bytes() == CONTENT


def test_a_file_of_the_users_own_is_not_overwritten(get, server, tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/file.bin").write_bytes(b"mine")
    with pytest.raises(
        UserError, match=r"file\.bin: expected the published file .*, but got another one .*move it away"
    ):
        get()
    assert (tmp_path / "lists/file.bin").read_bytes() == b"mine" and not server.asked


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
    "zip record": lambda f: zipped(f / "x.zip", {**GOOD, "./.unpacked.json": b"{}"}),
    "tar record": lambda f: tarred(f / "x.tar", {**GOOD, ".unpacked.json": b"{}"}),
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
