"""Pickles and arrays of features in a dataset's folder. A pickle is a program: it is refused without being run, and
none ends the process, whatever is in it; so each of those is read in a process of its own.
"""

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.attacks.judge import STUDY, as_a_user, call, command, nothing_lost, refused

MOSI = """\
  cmu_mosi:
    folder: media
    file: data.pkl
    recipe: features
    val_fraction: 0.4
    split_seed: 0
    max_quarantine: 0.5
    shards: 1
"""
MODALITIES = ("audio", "visual", "text")
REFUSED = "expected a pickle of arrays, strings and numbers only|expected a pickle|expected a .npy|not a .npy"


def study() -> str:
    text = STUDY.replace("recipes:\n", MOSI + "recipes:\n  features:\n    FEATURES\n").replace("[digits]", "[cmu_mosi]")
    arrays = [f"{m}: {{kind: array, length: 4, features: 3, non_finite: zero}}" for m in MODALITIES]
    text = text.replace("FEATURES", "\n    ".join(arrays))
    encoder = "{kind: transformer, width: 8, layers: 1, heads: 1, feedforward: 8, dropout: 0.0}"
    for m in MODALITIES:
        text = text.replace("  encoders:\n", f"  encoders:\n    {m}: {encoder}\n", 1)
        text = text.replace("  augmentation:\n", f"  augmentation:\n    {m}: {{}}\n", 1)
    old = [
        line
        for line in text.splitlines()
        if line.startswith("    ") and ("kind: resnet" in line or "crop_s" in line or "roll" in line)
    ]
    return "\n".join(line for line in text.splitlines() if line not in old) + "\n"


def content() -> dict:
    rng = np.random.default_rng(0)

    def part(count: int, name: str) -> dict:
        arrays = {key: rng.normal(size=(count, 4, 3)).astype(np.float32) for key in ("audio", "vision", "text")}
        return {
            **arrays,
            "labels": np.linspace(-3, 3, count).reshape(-1, 1, 1),
            "id": [f"{name}{i}[0]" for i in range(count)],
        }

    return {"train": part(8, "a"), "valid": part(4, "b"), "test": part(4, "c")}


class Run:
    """What runs when it is loaded as a pickle."""

    def __init__(self, function, *arguments):
        self.parts = (function, arguments)

    def __reduce__(self):
        return self.parts


def changed(**parts):
    return lambda: pickle.dumps({**content(), **parts})


def replaced(key: str, value):
    def make() -> bytes:
        full = content()
        full["train"][key] = value
        return pickle.dumps(full)

    return make


def deep_tuple() -> bytes:
    """A key of a dict: a tuple in a tuple, three million deep. Hashing it is a recursion in C."""
    return b"\x80\x02}" + b")" + b"\x85" * 3_000_000 + b"K\x01s."


def deep_list() -> bytes:
    return b"\x80\x02" + b"]" * 1_000_000 + b"a" * 999_999 + b"."


def npy(header: bytes, body: bytes = b"") -> bytes:
    header += b" " * (64 - (len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + body


OBJECTS = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
HUGE = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 1099511627776), }"

FILES = {
    # what the file holds, and what is said
    "a shell": (lambda: pickle.dumps(Run(os.system, "touch executed")), "nothing of it was run"),
    "a shell in old writing": (lambda: b"cos\nsystem\n(S'touch executed'\ntR.", "nothing of it was run"),
    "a shell inside": (changed(train={"audio": Run(os.system, "touch executed")}), "nothing of it was run"),
    "eval": (lambda: pickle.dumps(Run(eval, "open('executed', 'w')")), "nothing of it was run"),
    "exec by getattr": (lambda: pickle.dumps(Run(getattr, "", "upper")), "nothing of it was run"),
    "a file": (lambda: pickle.dumps(Run(open, "executed", "w")), "nothing of it was run"),
    "a removal": (lambda: pickle.dumps(Run(os.remove, "p.yaml")), "nothing of it was run"),
    "an import": (lambda: b"cantigravity\nx\n.", "nothing of it was run"),
    "a function of NumPy": (lambda: pickle.dumps(Run(np.fromfile, "p.yaml")), "nothing of it was run"),
    "an end of the process": (lambda: pickle.dumps(Run(os._exit, 0)), "nothing of it was run"),
    "a signal": (lambda: pickle.dumps(Run(os.kill, 0, 9)), "nothing of it was run"),
    "an empty file": (lambda: b"", "expected a pickle"),
    "a page of a server": (lambda: b"<html>404</html>", REFUSED),
    "random bytes": (lambda: np.random.default_rng(1).bytes(5000), REFUSED),
    "cut in half": (lambda: pickle.dumps(content())[:800], REFUSED),
    "text that ends in the middle": (lambda: b"\x8c\xff abc", REFUSED),
    "an array of a million million": (
        lambda: b"cnumpy\nndarray\n(I1099511627776\ntR.",
        REFUSED,
    ),
    "a list": (lambda: pickle.dumps([1, 2]), "expected train, valid, test"),
    "another dict": (lambda: pickle.dumps({"train": 1}), "expected train, valid, test"),
    "a part that is no dict": (changed(train=[1]), "train: expected audio"),
    "no labels": (changed(valid={"audio": 1}), "valid: expected audio"),
    "labels beyond 3": (replaced("labels", np.full((8, 1, 1), 9.0)), "expected labels from -3 to 3"),
    "labels that are no numbers": (replaced("labels", np.full((8, 1, 1), np.nan)), "expected labels from -3 to 3"),
    "ragged labels": (replaced("labels", [[1.0], [1.0, 2.0], *[[0.5]] * 6]), "expected a label and an id"),
    "labels that are text": (replaced("labels", ["positive"] * 8), "expected a label and an id"),
    "labels that are bytes": (replaced("labels", np.full((8, 1, 1), b"1")), "expected a label and an id"),
    "labels that are a dict": (replaced("labels", dict.fromkeys(range(8), 1.0)), "expected audio"),
    "labels that are one number": (replaced("labels", 1.0), "expected audio"),
    "labels that are none": (replaced("labels", None), "expected audio"),
    "labels that are truths": (replaced("labels", np.ones((8, 1, 1), bool)), "expected a label and an id"),
    "labels that are complex": (replaced("labels", np.ones((8, 1, 1), complex)), "expected a label and an id"),
    "labels nested": (replaced("labels", [[[[[1.0]]]], *[[[[1.0]]]] * 7]), "expected a label and an id"),
    "labels that are objects": (replaced("labels", np.array([None] * 8)), "expected a label and an id"),
    "ids that are a number": (replaced("id", 8), "expected a label and an id"),
    "ids that are a text": (replaced("id", "abcdefgh"), "expected a label and an id"),
    "ids that are a dict": (replaced("id", {f"{i}": i for i in range(8)}), "expected a label and an id"),
    "ids that are none": (replaced("id", None), "expected a label and an id"),
    "an array of no rows of ids": (replaced("id", np.array(8)), "expected a label and an id"),
    "an id of a megabyte": (replaced("id", ["a" * 1_000_000, *"bcdefgh"]), "expected ids of at most"),
    "too few ids": (replaced("id", ["a"]), "expected a label and an id"),
    "arrays of another shape": (replaced("audio", np.zeros((8, 4))), "expected audio as floats"),
    "arrays of objects": (replaced("audio", np.array([[["a"]]] * 8, object)), "expected audio as floats"),
    "ten thousand keys": (lambda: pickle.dumps({f"k{i}": 0 for i in range(10_000)}), "expected train, valid, test"),
    "a name of a megabyte": (lambda: pickle.dumps({"k" * 1_000_000: 0}), "expected train, valid, test"),
    "npy of a shell": (lambda: npy(OBJECTS, pickle.dumps(Run(os.system, "touch executed"))), "nothing of it was run"),
    "npy of numbers": (lambda: npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", bytes(8)), "objects"),
    "npy with an expression": (lambda: npy(b"{'descr': __import__('os').system('touch executed')}"), REFUSED),
    "npy of another version": (lambda: b"\x93NUMPY\x09\x00" + bytes(100), REFUSED),
}
DEADLY = {
    # what ended the process, or took it long
    "a tuple three million deep as a key": (deep_tuple, REFUSED),
    "lists a million deep": (deep_list, REFUSED),
    "npy with an open header": (lambda: npy(b"{" * 9000), REFUSED),
    "npy with brackets nested": (lambda: npy(b"(" * 4000 + b")" * 4000), REFUSED),
    "npy with minus signs": (lambda: npy(b"{'descr': " + b"-" * 9000 + b"1}"), REFUSED),
    "npy with not after not": (lambda: npy(b"{'descr': " + b"not " * 2000 + b"1}"), REFUSED),
    "npy of a huge shape": (lambda: npy(HUGE, bytes(8)), REFUSED + "|objects"),
    "a memo of four thousand million": (
        lambda: b"\x80\x02Nr\xff\xff\xff\xff0j\xff\xff\xff\xff.",
        REFUSED + "|expected train",
    ),
    "bytes of a million million": (lambda: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.", REFUSED),
    "a number of 2 GB": (lambda: b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b"x.", REFUSED),
    "references that grow": (
        lambda: (
            b"\x80\x02]q\x00"
            + b"".join(
                b"]q" + bytes([i]) + b"(" + b"h" + bytes([i - 1]) + b"h" + bytes([i - 1]) + b"e" for i in range(1, 60)
            )
            + b"."
        ),
        REFUSED + "|expected train",
    ),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "media").mkdir()
    (tmp_path / "p.yaml").write_text(study())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_real_thing_is_read(folder):
    """Else a refusal would show nothing."""
    Path("media/data.pkl").write_bytes(pickle.dumps(content()))
    done = call("fetch", "--params", "p.yaml")
    assert done.status == 0, done.err


ODD = {
    # ids of other types: a clip has a name whatever they are
    "ragged": [["a"], ["b", 1, 2], [], *"defgh"],
    "of arrays": np.array([[f"v{i}", "0", "1"] for i in range(8)], object),
    "of arrays in a list": [np.array("a"), np.array(["b"]), np.array([]), *"defgh"],
    "numbers": list(range(8)),
    "bytes": [f"v{i}".encode() for i in range(8)],
    "empty": [""] * 8,
    "paths": ["../../up", "/etc/passwd", "a/b", "a\0b", "a\nb", "\x1b[2J", ".", ".."],
    "of other alphabets": ["日本", "ä", "😀", *"defgh"],
}


@pytest.mark.parametrize("name", ODD)
def test_ids_of_other_types_are_names_all_the_same(folder, name):
    Path("media/data.pkl").write_bytes(replaced("id", ODD[name])())
    with nothing_lost(folder, may_appear=r"/data/"):
        done = call("fetch", "--params", "p.yaml")
    assert done.status == 0, done.err
    (clips,) = Path("data/raw").glob("*/audio")
    assert len(list(clips.glob("*.npy"))) == 16


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_plain_data_is_one_line_and_not_run(folder, name):
    make, says = FILES[name]
    Path("media/data.pkl").write_bytes(make())
    with nothing_lost(folder):
        done = call("fetch", "--params", "p.yaml")
    refused(done, says, "media/data.pkl")
    assert not Path("executed").exists()


@pytest.mark.parametrize("name", DEADLY)
def test_no_file_ends_the_process(folder, name):
    make, says = DEADLY[name]
    Path("media/data.pkl").write_bytes(make())
    with nothing_lost(folder):
        done = command("fetch", "--params", "p.yaml")
    refused(done, says, "media/data.pkl")


OTHERS = {
    "no file": lambda file: None,
    "a folder": Path.mkdir,
    "a link to itself": lambda file: file.symlink_to(file.name),
    "a pipe": lambda file: os.mkfifo(file),
    "endless zeros": lambda file: file.symlink_to("/dev/zero"),
    "a file that may not be read": lambda file: (file.write_bytes(b"x"), file.chmod(0)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_file_is_one_line(folder, name):
    OTHERS[name](Path("media/data.pkl"))
    with as_a_user(), nothing_lost(folder / "p.yaml"):
        done = call("fetch", "--params", "p.yaml")
    refused(done, "expected", "media/data.pkl")


def test_a_file_outside_of_the_folder_is_named_as_such(folder):
    """`file` is a name in the folder."""
    text = study()
    for name in ("../../etc/passwd", "/etc/passwd", '"a\\0b"'):
        Path("p.yaml").write_text(text.replace("file: data.pkl", f"file: {name}"))
        done = call("fetch", "--params", "p.yaml")
        refused(done, "expected", "file")
