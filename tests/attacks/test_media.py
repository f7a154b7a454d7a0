"""Files of a user's folder that are broken, no media, not to be read, or no files: quarantined by name and reason, and
every other clip is used. The folder itself is never changed.
"""

import http.server
import os
import re
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.attacks.judge import as_a_user, call, nothing_lost, refused
from tests.attacks.study import BAD, FOLDERS, TEST, TRAIN, made, quarantined, random_bytes
from tests.media import clips

AUDIO, VISUAL = (Path("media") / FOLDERS[m].format(BAD) for m in ("audio", "visual"))
HTML = b"<!DOCTYPE html><html><title>404 Not Found</title><script>alert(1)</script></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n"


def written(content: bytes):
    return lambda file: (file.unlink(), file.write_bytes(content))


def linked(target):
    return lambda file: (file.unlink(), file.symlink_to(target))


def first(count: int):
    return lambda file: file.write_bytes(file.read_bytes()[:count])


def flipped(file: Path) -> None:
    """Bits of the header."""
    content = bytearray(file.read_bytes())
    for at in range(8, 40):
        content[at] ^= 0xFF
    file.write_bytes(bytes(content))


def bound(file: Path) -> None:
    file.unlink()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(file))


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def huge_header(file: Path) -> None:
    """A WAV that says it holds 4 GB."""
    content = bytearray(file.read_bytes())
    content[4:8] = content[40:44] = (0xF0000000).to_bytes(4, "little")
    file.write_bytes(bytes(content[:2000]))


def sparse(file: Path) -> None:
    """30 MB of nothing, which take no disk."""
    file.unlink()
    with file.open("wb") as handle:
        handle.truncate(30 << 20)


def floats(value: float):
    """A WAV of float32 samples of which one is `value`."""

    def write(file: Path) -> None:
        wave = np.zeros(16_000, "<f4")
        wave[7] = value
        data = wave.tobytes()
        head = b"RIFF" + (36 + len(data)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
        form = b"".join(n.to_bytes(k, "little") for n, k in ((3, 2), (1, 2), (16_000, 4), (64_000, 4), (4, 2), (32, 2)))
        file.write_bytes(head + form + b"data" + len(data).to_bytes(4, "little") + data)

    return write


def closed(file: Path) -> None:
    file.chmod(0)


SPOILT = {
    # what happens to the file of one clip: (file, how, the reason in the quarantine table)
    "sound gone": (AUDIO, Path.unlink, "missing file"),
    "picture gone": (VISUAL, Path.unlink, "missing file"),
    "sound empty": (AUDIO, written(b""), "empty file"),
    "picture empty": (VISUAL, written(b""), "empty file"),
    "sound of random bytes": (AUDIO, written(random_bytes(5000)), "cannot be opened"),
    "pictures of random bytes": (VISUAL, written(random_bytes(5000)), "cannot be opened|no video stream"),
    "sound of zeros": (AUDIO, written(bytes(5000)), "cannot be opened"),
    "text": (AUDIO, written(b"RIFF is not here\n" * 100), "cannot be opened|truncated"),
    "a page of a server": (VISUAL, written(HTML), "cannot be opened|no video stream"),
    "a pointer of Git LFS": (AUDIO, written(LFS), "git lfs pull"),
    "sound cut": (AUDIO, first(8000), "truncated"),
    "a header alone": (AUDIO, first(44), "truncated|no samples|no duration|cannot be"),
    "a byte": (AUDIO, first(1), "cannot be opened"),
    "pictures cut": (VISUAL, first(700), "cannot be opened|truncated"),
    "flipped bits in the header of sound": (AUDIO, flipped, "cannot be|no audio"),
    "flipped bits in the header of pictures": (VISUAL, flipped, "cannot be|no video"),
    "sound that says it is 4 GB": (AUDIO, huge_header, "truncated|cannot be"),
    "30 MB of nothing": (AUDIO, sparse, "cannot be opened|truncated"),
    "pictures without sound": (AUDIO, lambda f: f.write_bytes(VISUAL.read_bytes()), "no audio stream"),
    "sound without pictures": (VISUAL, lambda f: f.write_bytes(AUDIO.read_bytes()), "no video stream"),
    "a sample that is no number": (AUDIO, floats(float("nan")), "finite"),
    "a sample that is infinite": (AUDIO, floats(float("inf")), "finite"),
    "a pipe": (AUDIO, lambda f: (f.unlink(), os.mkfifo(f)), "missing file"),
    "a pipe of pictures": (VISUAL, lambda f: (f.unlink(), os.mkfifo(f)), "missing file"),
    "a socket": (AUDIO, bound, "missing file"),
    "a folder": (AUDIO, a_folder, "missing file"),
    "a link to nothing": (AUDIO, linked("nothing"), "missing file"),
    "a link to itself": (AUDIO, linked(AUDIO.name), "missing file"),
    "a link to endless zeros": (AUDIO, linked("/dev/zero"), "missing file"),
    "a link to nothing to read": (AUDIO, linked("/dev/null"), "missing file"),
    "a link to random bytes": (VISUAL, linked("/dev/urandom"), "missing file"),
    "a link to a folder": (VISUAL, linked(".."), "missing file"),
    "not to be read": (AUDIO, closed, "Permission denied"),
    "pictures not to be read": (VISUAL, closed, "Permission denied"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_clip_that_cannot_be_read_is_quarantined_alone(media, name):
    file, spoil, reason = SPOILT[name]
    spoil(file)
    with as_a_user(), nothing_lost(media / "lists" if (media / "lists").exists() else media / "media/lists"):
        done = made()
    assert done.status == 0, done.err[-2000:]
    assert "Traceback" not in done.err
    said = quarantined()
    assert list(said) == [BAD]
    assert re.search(reason, said[BAD]), said
    assert len(said[BAD]) < 300 and said[BAD].isprintable()


PLAYLISTS = {
    "a playlist of the web": (VISUAL, "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}/a.ts\n#EXT-X-ENDLIST\n"),
    "a playlist of a local file": (
        VISUAL,
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    ),
    "a list to be joined": (VISUAL, "ffconcat version 1.0\nfile {url}/a.mp4\n"),
    "a list of a local file": (VISUAL, "ffconcat version 1.0\nfile /etc/passwd\n"),
    "a description of a session": (
        AUDIO,
        "v=0\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
    ),
    "a picture that asks for one": (
        VISUAL,
        '<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}/a.png"/></svg>',
    ),
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_file_that_names_other_places_is_not_followed(media, name):
    file, content = PLAYLISTS[name]
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        file.write_text(content.format(url=f"http://127.0.0.1:{server.server_port}"))
        done = made()
        server.shutdown()
    assert done.status == 0, done.err[-2000:]
    assert list(quarantined()) == [BAD]
    assert not asked


def strange(name: str | bytes):
    def make(folder: Path) -> None:
        with open(os.path.join(os.fsencode(folder), os.fsencode(name)), "wb"):  # noqa: PTH118, PTH123
            pass

    return make


def crossed(folder: Path) -> None:
    for name in ("left", "right"):
        (folder / name).mkdir()
    for i in range(3):
        (folder / f"left/{i}").symlink_to("../right")
        (folder / f"right/{i}").symlink_to("../left")


AROUND = {
    # what else may lie in the folder, where it does no harm
    "a name in Latin-1": strange(b"f\xe9te.wav"),
    "a name of bytes": strange(b"\xff\xfe\x80"),
    "a name with a new line": strange("a\nb.wav"),
    "a name with an escape sequence": strange("\x1b[2J.wav"),
    "a name like an option": strange("-rf"),
    "a name like a tag": strange("<script>alert(1)<script>.wav"),
    "a name of 255 bytes": strange("a" * 251 + ".wav"),
    "a hidden file": strange(".hidden.wav"),
    "a part of a download": strange("x.wav.part"),
    "a pipe": lambda folder: os.mkfifo(folder / "pipe.wav"),
    "a link to itself": lambda folder: (folder / "self.wav").symlink_to("self.wav"),
    "a link to nothing": lambda folder: (folder / "gone.wav").symlink_to("nothing"),
    "a link to endless zeros": lambda folder: (folder / "zero.wav").symlink_to("/dev/zero"),
    "a folder that holds itself": lambda folder: (folder / "again").symlink_to("."),
    "a folder that holds its parent": lambda folder: (folder / "up").symlink_to(".."),
    "folders that hold each other": crossed,
}


@pytest.mark.parametrize("name", AROUND)
def test_what_else_is_in_the_folder_does_no_harm(media, name):
    AROUND[name](media / "media/AudioWAV")
    done = made()
    assert done.status == 0, done.err[-2000:]
    assert quarantined() == {}


@pytest.mark.parametrize("name", AROUND)
def test_what_else_is_in_the_folder_is_no_reason_for_check_to_fail(media, name):
    AROUND[name](media / "media/AudioWAV")
    done = call("check", "--params", "p.yaml")
    assert "Traceback" not in done.err
    assert "lists" in done.out or done.status == 0


def test_a_listed_file_whose_folder_is_not_utf8_is_quarantined(media):
    folder = Path(os.fsdecode(b"media/f\xe9te"))
    folder.mkdir()
    AUDIO.rename(folder / AUDIO.name)
    done = made()
    assert done.status == 0, done.err[-2000:]
    assert list(quarantined()) == [BAD]
    assert "not UTF-8" in quarantined()[BAD]


def test_more_broken_clips_than_are_allowed_are_one_line(media):
    for clip in [*TRAIN[:4], TEST[0]]:
        (media / "media" / FOLDERS["audio"].format(clip)).unlink()
    with nothing_lost(media / "media"):
        done = made()
    refused(done, r"cremad: 5 of 8 clips .* are quarantined, more than .*max_quarantine", "missing file")


def test_sounds_of_other_kinds_are_read(media):
    """What is unusual but right is no reason for a quarantine."""
    clips.write(AUDIO, wave=np.vstack([clips.noise(1, 44_100)] * 2), rate=44_100)
    done = made()
    assert done.status == 0, done.err
    assert quarantined() == {}
