"""Lists of clips that are damaged, are none, or say what cannot be: one line with the file and the line."""

import os
from pathlib import Path

import pytest

from tests.attacks.judge import as_a_user, call, nothing_lost, refused
from tests.attacks.study import TEST, TRAIN, made, random_bytes

FILE = Path("media/lists/train.csv")
ROWS = "".join(f"{name},ANG\n" for name in TRAIN)
AT = "media/lists/train.csv"

CONTENT = {
    # what the list holds, and what is said
    "nothing": ("", "expected rows"),
    "blank lines": ("\n\n \n\t\n", "expected rows"),
    "a header alone": ("id,label\n", "expected rows|expected a class"),
    "a page of a server": ("<html><body>404</body></html>\n", "expected"),
    "JSON": ('{"id": "label"}\n', "expected"),
    "binary": (random_bytes(4000), "expected UTF-8|binary"),
    "Latin-1": (ROWS.encode() + b"f\xe9te,ANG\n", ":7: expected UTF-8"),
    "a NUL": (ROWS + "a\0b,ANG\n", "binary"),
    "UTF-16 without a mark": (ROWS.encode("utf-16-le"), "expected"),
    "a value of 200 kB": (ROWS + "a" * 200_000 + ",ANG\n", "field larger than"),
    "a value of 200 kB in the first line": ("a" * 200_000 + ",ANG\n" + ROWS, "field larger than"),
    "a value of 200 kB in quotes": (ROWS + '"' + "a\n" * 100_000 + '",ANG\n', "field larger than"),
    "quotes that do not end": (ROWS + '"x,ANG\n' + ROWS, "expected"),
    "a value too few": (ROWS + "1009_DFA_ANG_XX\n", ":7: expected 2 values"),
    "a value too many": (ROWS + "1009_DFA_ANG_XX,ANG,1\n", ":7: expected 2 values"),
    "100,000 values": (ROWS + "a," * 100_000 + "\n", ":7: expected 2 values"),
    "no name": (ROWS + ",ANG\n", ":7: expected a value"),
    "no label": (ROWS + "1009_DFA_ANG_XX,\n", ":7: expected a value"),
    "another class": (ROWS + "1009_DFA_ANG_XX,ANGRY\n", ":7: expected a class, but got 'ANGRY'"),
    "a class of 100 kB": (ROWS + "1009_DFA_ANG_XX," + "A" * 100_000 + "\n", ":7: expected a class"),
    "a class with an escape sequence": (ROWS + "1009_DFA_ANG_XX,\x1b[2JANG\n", ":7: expected a class"),
    "a clip in two classes": (ROWS + f"{TRAIN[0]},SAD\n", ":7: expected each clip once"),
    "a clip of test in train": (ROWS + f"{TEST[0]},ANG\n", "expected each clip once"),
    "a path up": (ROWS + "../../etc/passwd,ANG\n", "cannot name a file|leave the"),
    "an absolute path": (ROWS + "/etc/passwd,ANG\n", "cannot name a file|leave the"),
    "a path up of Windows": (ROWS + "..\\up,ANG\n", "cannot name a file|leave the"),
    "a shell": (ROWS + "$(touch executed),ANG\n", "cannot name a file"),
    "a tag": (ROWS + "<script>alert(1)</script>,ANG\n", "cannot name a file"),
    "a name with a new line": (ROWS + '"a\nb",ANG\n', "cannot name a file"),
    "a name from right to left": (ROWS + "\u202eabc,ANG\n", "cannot name a file"),
    "a hidden name": (ROWS + ".hidden,ANG\n", "cannot name a file"),
    "10,000 wrong names": (ROWS + "".join(f"a/{i},ANG\n" for i in range(10_000)), "cannot name a file.*10000 of"),
}


@pytest.mark.parametrize("name", CONTENT)
def test_a_list_that_cannot_be_is_one_line(media, name):
    content, says = CONTENT[name]
    FILE.write_bytes(content if isinstance(content, bytes) else content.encode())
    with nothing_lost(media):
        done = call("manifest", "--params", "p.yaml")
    assert "Traceback" not in done.err
    place = AT if "cannot name" not in says and "leave" not in says else "cremad"
    refused(done, says, place)
    assert not Path("executed").exists()


OTHERS = {
    "no list": Path.unlink,
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "a pipe": lambda file: (file.unlink(), os.mkfifo(file)),
    "endless zeros": lambda file: (file.unlink(), file.symlink_to("/dev/zero")),
    "a link to itself": lambda file: (file.unlink(), file.symlink_to(file.name)),
    "a list that may not be read": lambda file: file.chmod(0),
    "no folder of lists": lambda file: [*(one.unlink() for one in file.parent.iterdir()), file.parent.rmdir()],
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_list_is_one_line(media, name):
    OTHERS[name](FILE)
    with as_a_user():
        done = call("manifest", "--params", "p.yaml")
    refused(done, "expected|cannot be read", AT)


HARMLESS = {
    "a byte-order mark": lambda: b"\xef\xbb\xbf" + ROWS.encode(),
    "line ends of Windows": lambda: ROWS.replace("\n", "\r\n").encode(),
    "blank lines": lambda: ROWS.replace("\n", "\n\n").encode(),
    "spaces": lambda: ROWS.replace(",", " , ").encode(),
    "no new line at the end": lambda: ROWS.rstrip("\n").encode(),
    "a row twice": lambda: (ROWS + ROWS).encode(),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_a_list_may_have_without_harm_is_read(media, name):
    FILE.write_bytes(HARMLESS[name]())
    done = made()
    assert done.status == 0, done.err
