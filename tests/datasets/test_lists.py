"""Lists of clips as they are found: what does no harm is put up with, all else is named by file and line."""

import pytest

from pipeline_src.core.errors import UserError
from pipeline_src.datasets import lists

COLUMNS = ("id|name", "label")
PLAIN = [("a", "x"), ("b", "y")]

HARMLESS = {
    "plain": b"a,x\nb,y\n",
    "byte-order mark": b"\xef\xbb\xbfa,x\nb,y\n",
    "UTF-16": "a,x\nb,y\n".encode("utf-16"),
    "Windows line ends": b"a,x\r\nb,y\r\n",
    "old Mac line ends": b"a,x\rb,y\r",
    "blank lines": b"\n\na,x\n , \nb,y\n\n",
    "no end of line": b"a,x\nb,y",
    "semicolons": b"a;x\nb;y\n",
    "tabs": b"a\tx\nb\ty\n",
    "ampersands": b"a&x\nb&y\n",
    "spaces around": b" a , x\nb,y \n",
    "quotes": b'"a","x"\n"b",y\n',
    "header": b"name,label\na,x\nb,y\n",
    "header with a mark, capitals and another order": b"\xef\xbb\xbfLabel;ID\r\nx;a\r\ny;b\r\n",
    "filled-up columns": b"a,x,,\nb,y,,\n",
    "rows twice": b"a,x\nb,y\na,x\nb,y\n",
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_does_no_harm_is_put_up_with(tmp_path, kind, caplog):
    file = tmp_path / "list.csv"
    file.write_bytes(HARMLESS[kind])
    assert [row.cells for row in lists.read(file, COLUMNS, "fetch again")] == PLAIN
    assert ("2 rows stand twice and are used once: lines 3, 4" in caplog.text) == (kind == "rows twice")


def test_separators_inside_values(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text('a&Male speech, man; speaking\nb&"x ""y"""\n')
    assert [row.cells[1] for row in lists.read(file, COLUMNS, "")] == ["Male speech, man; speaking", 'x "y"']
    file.write_text('a,"one\ntwo & \x0b more"\nb,y\n')
    rows = lists.read(file, COLUMNS, "")
    assert [row.cells[1] for row in rows] == ["one\ntwo & \x0b more", "y"] and rows[1].line == 3


BAD = {
    "missing": (None, r"list\.csv: expected a list, but got no file; fetch again"),
    "empty": (b"", r"list\.csv: expected rows with id, label, but got none; fetch again"),
    "header alone": (b"id,label\n", r"list\.csv: expected rows with id, label, but got none"),
    "Latin-1": (b"a,x\n\xe9t\xe9,y\n", r"list\.csv:2: expected UTF-8, but got .*; save it as UTF-8"),
    "binary": (b"a,x\n\0\0,y\n", r"list\.csv: expected text, but got binary data"),
    "other separator": (
        b"a|x\nb|y\n",
        r"expected lines of 2 values \(id, label\) separated by ',', ';', .* found 'a\|x'",
    ),
    "short row": (b"a,x\nb,y\nc\n", r"list\.csv:3: expected 2 values \(id, label\), but got 1; fix the line"),
    "long row": (b"a,x\nb,y,z\nc,x\n", r"list\.csv:2: expected 2 values \(id, label\), but got 3"),
    "no label": (b"a,x\nb,\n", r"list\.csv:2: expected a value for label, but got none"),
    "web page": (b"<!DOCTYPE html>\n<html>\n<p>404</p>\n", r"list\.csv: expected lines of 2 values"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_read_is_named(tmp_path, kind):
    content, message = BAD[kind]
    file = tmp_path / "list.csv"
    if content is not None:
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
