"""Lists of clips: the published form with its harmless variants, and errors that name file and line."""

import pytest

from pipeline_src.core.errors import UserError
from pipeline_src.datasets import lists

COLUMNS = ("id", "label")
PLAIN = [("a", "x"), ("b", "y")]

HARMLESS = {
    "plain": b"a,x\nb,y\n",
    "byte-order mark": b"\xef\xbb\xbfa,x\nb,y\n",
    "Windows line ends": b"a,x\r\nb,y\r\n",
    "blank lines": b"\n\na,x\n , \nb,y\n\n",
    "no end of line": b"a,x\nb,y",
    "spaces around": b" a , x\nb,y \n",
    "quotes": b'"a","x"\n"b",y\n',
    "rows twice": b"a,x\nb,y\na,x\nb,y\n",
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_variants_of_the_same_list(tmp_path, kind, caplog):
    file = tmp_path / "list.csv"
    file.write_bytes(HARMLESS[kind])
    assert [row.cells for row in lists.read(file, COLUMNS, "fetch again")] == PLAIN
    assert ("2 rows occur twice and are used once: lines 3, 4" in caplog.text) == (kind == "rows twice")


def test_a_list_has_one_separator(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text('a&Male speech, man; speaking\nb&"x ""y"""\n')
    rows = lists.read(file, COLUMNS, "", separator="&")
    assert [row.cells[1] for row in rows] == ["Male speech, man; speaking", 'x "y"']
    file.write_text('a,"one\ntwo & \x0b more"\nb,y\n')
    rows = lists.read(file, COLUMNS, "")
    assert [row.cells[1] for row in rows] == ["one\ntwo & \x0b more", "y"] and rows[1].line == 3


def test_a_header_is_required_where_the_list_has_one(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("id,label\na,x\n")
    assert [row.cells for row in lists.read(file, COLUMNS, "", header=True)] == [("a", "x")]
    file.write_text("label,id\nx,a\n")
    with pytest.raises(UserError, match=r"list\.csv:1: expected id,label, but got label,id; fetch again"):
        lists.read(file, COLUMNS, "fetch again", header=True)


BAD = {
    "missing": (None, r"list\.csv: expected a list, but got no file; fetch again"),
    "empty": (b"", r"list\.csv: expected rows with id, label, but got none; fetch again"),
    "Latin-1": (b"a,x\n\xe9t\xe9,y\n", r"list\.csv:2: expected UTF-8, but got .*; save it as UTF-8"),
    "UTF-16": ("a,x\n".encode("utf-16"), r"list\.csv:1: expected UTF-8, but got .*; save it as UTF-8"),
    "binary": (b"a,x\n\0\0,y\n", r"list\.csv: expected text, but got binary data"),
    "other separator": (b"a;x\nb;y\n", r"list\.csv:1: expected 2 values \(id, label\) separated by ',', but got 1;"),
    "short row": (b"a,x\nb,y\nc\n", r"list\.csv:3: expected 2 values \(id, label\) .*, but got 1; fix the line"),
    "long row": (b"a,x\nb,y,z\nc,x\n", r"list\.csv:2: expected 2 values \(id, label\) .*, but got 3"),
    "no label": (b"a,x\nb,\n", r"list\.csv:2: expected a value for label, but got none"),
    "web page": (b"<!DOCTYPE html>\n<html>\n<p>404</p>\n", r"list\.csv:1: expected 2 values"),
    "a huge value": (
        b"a,x\nb," + b"y" * 200_000,
        r"list\.csv:2: expected a table, .* field limit .*again$",
    ),
    "a quote without an end": (b'a,x\nb,"' + b"y\n" * 90_000, r"list\.csv:\d+: expected a table, .*field limit"),
    "a folder": ("folder", r"list\.csv: expected a list, but got Is a directory; fetch again"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_list_that_cannot_be_read_is_named(tmp_path, kind):
    content, message = BAD[kind]
    file = tmp_path / "list.csv"
    if content == "folder":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        lists.read(file, COLUMNS, "fetch again")


def test_rows_that_contradict_each_other(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("a,x\nb,y\na,y\n")
    rows = lists.read(file, COLUMNS, "")
    with pytest.raises(UserError, match=r"list\.csv:3: expected each clip once, but got 'a' with other .*list\.csv:1;"):
        lists.once(rows, lambda row: row.cells[0], "fetch again")


def test_unknown_labels(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("a,cat\nb,dog\nc,dgo\nd,dog\n")
    rows = lists.read(file, COLUMNS, "")
    with pytest.raises(UserError, match=r"list\.csv:3: expected a class, but got 'dgo'; did you mean 'dog'\?"):
        lists.label(rows[2], "dgo", ("cat", "dog"), "fix it")
    with pytest.raises(UserError, match=r"expected 2 classes, but got 3; the rarest is 'cat', 1 times, first in .*:1"):
        lists.classes(rows, 1, 2, "")
    assert lists.classes(rows, 1, 3, "") == ("cat", "dgo", "dog")


def test_one_file_under_two_names_is_not_guessed_at(tmp_path):
    for name in ("train/a.mp4", "train/b.MP4", "val/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(lists.stems(tmp_path, (".mp4",))) == ["a", "b"]
    (tmp_path / "val/a.mp4").touch()
    with pytest.raises(UserError, match=r"val/a\.mp4: expected each clip's file once, but got train/a\.mp4 too"):
        lists.stems(tmp_path, (".mp4",))
    assert lists.stems(tmp_path / "nowhere", (".mp4",)) == {}
