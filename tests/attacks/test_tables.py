"""Tables of the user's own that were made to do harm: one bounded line, nothing lost, nothing run."""

from pathlib import Path

import pytest
import yaml

from tests.attacks.judge import call, nothing_lost, refused
from tests.datasets.test_table import TEXT, params

AT = "media/table.csv"
CONTENT = {
    "binary": (bytes(range(1, 256)) * 20, "expected"),
    "Latin-1": (TEXT.encode() + b"s99,f\xe9te,a,b,c,d,\n", ":8: expected UTF-8"),
    "UTF-16": (TEXT.encode("utf-16"), "expected"),
    "a page of a server": (b"<html><body>404</body></html>\n", "expected a column 'id'"),
    "a value of 200 kB": (TEXT.replace("s02", "a" * 200_000), "field larger than"),
    "100,000 columns": ("x," * 100_000 + "\n", "expected a column 'id'"),
    "100,000 values": (TEXT + "a," * 100_000 + "\n", ":8: expected 7 values"),
    "a label with an escape sequence": (TEXT.replace("left", "\x1b[2Jleft", 1), ":4: expected printable"),
    "a label that is a tag": (TEXT.replace("left", "<script>alert(1)</script>", 1), ":4: expected at most .* in label"),
    "a label that is a formula": (TEXT.replace("left", "$\\frac$", 1), ":4: expected at most .* in label"),
    "an id that is a command": (TEXT.replace("s02,", "$(touch executed),", 1), ":4: expected at most .* in id"),
    "an id with a new line": (TEXT.replace("s02,", '"s\n02",', 1), ":4: expected printable"),
    "a hidden id": (TEXT.replace("s02,", ".s02,", 1), ":4: expected at most .* in id"),
    "a path with a new line": (TEXT.replace("jpg/s02.jpg", '"jpg/\ns02.jpg"'), ":4: expected printable"),
    "a path up and down": (TEXT.replace("jpg/s02.jpg", "jpg/../../x.jpg"), ":4: expected a path relative"),
}


@pytest.mark.parametrize("name", CONTENT)
def test_a_table_that_does_harm_is_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, says = CONTENT[name]
    Path("media").mkdir()
    Path(AT).write_bytes(content if isinstance(content, bytes) else content.encode())
    Path("p.yaml").write_text(yaml.safe_dump(params(), sort_keys=False))
    with nothing_lost(tmp_path):
        done = call("manifest", "--params", "p.yaml")
    assert "Traceback" not in done.err
    refused(done, says, AT)
    assert not Path("executed").exists()
