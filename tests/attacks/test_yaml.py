"""YAML that says something else than it shows, explodes, nests, or is none: read as it is shown, or one line.

Which of the two is in the table that a case stands in. The same reader reads params files, resources and recipes.
"""

import time
from pathlib import Path

import pytest

from pipeline_src.study.plan import Plan
from tests.attacks.judge import STUDY, call, line_of, nothing_lost, put, refused

DECIMAL = "write a decimal number without leading zeros"
BOOLEAN = "write true or false, or put it in quotes"
SEXAGESIMAL = "write a plain number, or put it in quotes"

AMBIGUOUS = [
    # YAML 1.1 and 1.2 read it as different values: (place, as written, what is said)
    ("training.epochs", "010", DECIMAL),
    ("training.epochs", "-010", DECIMAL),
    ("training.epochs", "0_10", DECIMAL),
    ("training.batch_size", "0777", DECIMAL),
    ("training.batch_size", "0b11", DECIMAL),
    ("study.seeds", "[0, 01]", DECIMAL),
    ("training.epochs", "!!int '010'", DECIMAL),
    ("training.epochs", "1:30", SEXAGESIMAL),
    ("training.epochs", "190:20:30", SEXAGESIMAL),
    ("training.lr", "1:30.5", SEXAGESIMAL),
    ("training.batch_size", "+1:0", SEXAGESIMAL),
    ("study.unimodal", "no", BOOLEAN),
    ("study.unimodal", "Yes", BOOLEAN),
    ("training.track_test", "off", BOOLEAN),
    ("training.track_test", "ON", BOOLEAN),
    ("study.datasets", "[on]", BOOLEAN),
    ("study.fusions", "[no]", BOOLEAN),
    ("tracking.experiment", "yes", BOOLEAN),
    ("datasets.digits!", "off", BOOLEAN),
    ("recipes.small-1.audio!", "on", BOOLEAN),
    ("training.track_test", "!!bool 'yes'", BOOLEAN),
]

SHOWN = [
    # one meaning, and this is it: (place, as written, value)
    ("training.epochs", "10", 10),
    ("training.epochs", "+10", 10),
    ("training.epochs", "1_000", 1000),
    ("training.epochs", "0x10", 16),
    ("training.epochs", "!!int '10'", 10),
    ("training.lr", "1e-3", 0.001),
    ("training.lr", "1E-3", 0.001),
    ("training.lr", "1.0e-3", 0.001),
    ("training.lr", "+1.e-3", 0.001),
    ("training.lr", ".5", 0.5),
    ("training.lr", "1", 1.0),
    ("training.lr", "0.1 # 010, yes, 1:30", 0.1),
    ("study.unimodal", "true", True),
    ("study.unimodal", "False", False),
    ("study.unimodal", "TRUE", True),
    ("tracking.experiment", "2001-12-14", "2001-12-14"),
    ("tracking.experiment", "2001-12-14 21:59:43", "2001-12-14 21:59:43"),
    ("tracking.experiment", "'010'", "010"),
    ("tracking.experiment", '"yes"', "yes"),
    ("tracking.experiment", "v1.10", "v1.10"),
    ("tracking.experiment", "&x attacks", "attacks"),
]

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
MERGES = "b0: &b0 {k0: 0}\n" + "".join(
    f"b{i}: &b{i} {{<<: [{', '.join([f'*b{i - 1}'] * 10)}], k{i}: 0}}\n" for i in range(1, 12)
)
MANY = "at most 100,000 values"
DEEP = "nested at most 50 deep"
LARGE = "at most 1,000,000 bytes"


def text(place: str, written: str) -> str:
    return put(STUDY, place, written)


NONE = {
    # name: (the file, what is said)
    "nothing": ("", "expected sections"),
    "comments alone": ("# nothing\n# here\n", "expected sections"),
    "null": ("null\n", "expected sections"),
    "a list": ("- study\n", "expected sections"),
    "a word": ("study\n", "expected sections"),
    "binary": (bytes(range(256)) * 20, "UTF-8|not valid YAML"),
    "UTF-16": (STUDY.encode("utf-16"), "UTF-8"),
    "Latin-1": (STUDY.replace("attacks", "ättacks").encode("latin-1"), "UTF-8"),
    "a NUL": (STUDY + "\0", "not valid YAML"),
    "an escape sequence": (STUDY + "# \x1b[2J\n", "not valid YAML"),
    "a tab in the indentation": (
        STUDY.replace("  epochs", "\tepochs"),
        "not valid YAML: .*tab|not valid YAML: .*'\\\\t'",
    ),
    "a tab before a key": (STUDY.replace("  lr: 0.02", "  \tlr: 0.02"), "not valid YAML"),
    "an open list": (STUDY.replace("seeds: [0]", "seeds: [0"), "not valid YAML"),
    "an open string": (STUDY.replace("experiment: attacks", "experiment: 'attacks"), "not valid YAML"),
    "an open block": (STUDY.replace("ogm: {alpha: 0.1}", "ogm: {alpha: 0.1"), "not valid YAML"),
    "another version": ("%YAML 3.0\n---\n" + STUDY, "not valid YAML"),
    "two documents": (STUDY + "---\n" + STUDY, "not valid YAML: .*document"),
    "two colons": (STUDY.replace("epochs: 2", "epochs: 2: 3"), "not valid YAML"),
    "no space after a colon": (STUDY.replace("epochs: 2", "epochs:2"), "not valid YAML"),
    "a shell in Python's tag": (
        STUDY.replace("epochs: 2", "epochs: !!python/object/apply:os.system ['touch executed']"),
        "not valid YAML: .*tag",
    ),
    "a name in Python's tag": (STUDY.replace("epochs: 2", "epochs: !!python/name:os.system"), "not valid YAML: .*tag"),
    "an unknown tag": (STUDY.replace("epochs: 2", "epochs: !mine 2"), "not valid YAML: .*tag"),
    "a set": (STUDY.replace("seeds: [0]", "seeds: !!set {0, 1}"), "not valid YAML: .*tag|list"),
    "bytes": (
        STUDY.replace("experiment: attacks", "experiment: !!binary YXR0YWNrcw=="),
        "not valid YAML: .*tag|string",
    ),
    "bytes that are none": (STUDY.replace("experiment: attacks", "experiment: !!binary ä"), "not valid YAML: .*tag"),
    "a time": (STUDY.replace("epochs: 2", "epochs: !!timestamp 2001-13-45"), "not valid YAML: .*tag"),
    "pairs": (STUDY.replace("seeds: [0]", "seeds: !!pairs [0: 1]"), "not valid YAML: .*tag|list"),
    "a number that is none": (STUDY.replace("epochs: 2", "epochs: !!int two"), "not valid YAML: |write a decimal"),
    "a float that is none": (STUDY.replace("lr: 0.02", "lr: !!float two"), "not valid YAML: |write a plain"),
    "a key twice": (
        STUDY.replace("epochs: 2", "epochs: 2\n  epochs: 3"),
        "not valid YAML: the key 'epochs' stands twice",
    ),
    "a section twice": (STUDY + "study: {}\n", "not valid YAML: the key 'study' stands twice"),
    "a key twice in a row": (STUDY.replace("{alpha: 0.1}", "{alpha: 0.1, alpha: 0.2}"), "the key 'alpha' stands twice"),
    "a key twice in quotes": (STUDY.replace("epochs: 2", "epochs: 2\n  'epochs': 3"), "the key 'epochs' stands twice"),
    "two merges": (STUDY.replace("epochs: 2", "epochs: 2\n  <<: {}\n  <<: {}"), "the key '<<' stands twice"),
    "a list as a key": (STUDY + "? [a]\n: b\n", "not valid YAML"),
    "a number as a key": (STUDY + "1: 2\n", "unknown key|text"),
    "null as a key": (STUDY + "~: 2\n", "unknown key|text"),
    "a merge of a list": (STUDY.replace("epochs: 2", "<<: [1]\n  epochs: 2"), "not valid YAML"),
    "an alias of nothing": (STUDY.replace("epochs: 2", "epochs: *none"), "not valid YAML: .*alias"),
    "an alias of itself in a list": (STUDY.replace("seeds: [0]", "seeds: &a [*a]"), "itself|recursive"),
    "an alias of itself in a block": (STUDY.replace("ogm: {alpha: 0.1}", "ogm: &a {alpha: *a}"), "itself|recursive"),
    "an alias of itself as a merge": (STUDY.replace("ogm: {alpha: 0.1}", "ogm: &a {<<: *a}"), "itself|recursive"),
    "laughs in unknown keys": (STUDY + LAUGHS, MANY),
    "laughs in a known key": (LAUGHS + STUDY.replace("seeds: [0]", "seeds: *a11"), MANY),
    "laughs in a plug-in": (LAUGHS + STUDY.replace("{alpha: 0.1}", "*a11"), MANY),
    "laughs of merges": (STUDY + MERGES, MANY),
    "a list in a list": ("a: " + "[" * 100_000, DEEP),
    "closed lists in lists": ("a: " + "[" * 10_000 + "]" * 10_000, DEEP),
    "a block in a block": ("{a: " * 10_000 + "1" + "}" * 10_000, DEEP),
    "a sequence in a sequence": ("- " * 10_000 + "1\n", DEEP),
    "a key in a key": ("? " * 10_000 + "1\n", DEEP + "|not valid YAML"),
    "blocks by indentation": ("".join(f"{' ' * i}a:\n" for i in range(300)), DEEP),
    "10 MB in a value": (STUDY.replace("attacks", "a" * 10_000_000), LARGE),
    "10 MB in a key": (STUDY + "a" * 10_000_000 + ": 1\n", LARGE),
    "10 MB of comments": (STUDY + "# nothing\n" * 1_000_000, LARGE),
    "900 kB in a value": (STUDY.replace("experiment: attacks", "experiment: " + "a" * 900_000), "at most 200"),
    "900 kB in another value": (STUDY.replace("epochs: 2", "epochs: " + "a" * 900_000), "integer"),
    "100 kB in a key": (STUDY + "? " + "a" * 100_000 + "\n: 1\n", "unknown key"),
    "10,000 unknown keys": (STUDY + "".join(f"k{i}: 1\n" for i in range(10_000)), "more mistakes"),
    "a number of 5,000 digits": (STUDY.replace("epochs: 2", "epochs: " + "9" * 5000), "at most 100 digits"),
    "a name in other letters": (STUDY.replace("epochs: 2", "еpochs: 2"), "unknown key"),  # noqa: RUF001
    "a value from right to left": (
        STUDY.replace("optimizer: sgd", 'optimizer: "\\u202Esgd"'),
        "'sgd', 'adam', 'adamw' or 'adagrad'",
    ),
    "digits of another script": (STUDY.replace("epochs: 2", "epochs: ２"), "integer"),  # noqa: RUF001
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bystander").write_text("mine")
    return tmp_path


def planned(folder: Path, content: str | bytes):
    (folder / "p.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with nothing_lost(folder):
        return call("plan", "--params", "p.yaml")


@pytest.mark.parametrize(("place", "written", "says"), AMBIGUOUS)
def test_what_two_readers_read_differently_is_refused_with_its_line(folder, place, written, says):
    line = line_of(STUDY, place.removesuffix("!"))
    refused(planned(folder, text(place, written)), says, f"p.yaml:{line}: ")


@pytest.mark.parametrize(("place", "written", "value"), SHOWN)
def test_what_has_one_meaning_is_read_as_shown(folder, place, written, value):
    done = planned(folder, text(place, written))
    assert (done.status, done.err) == (0, ""), done.err
    read = Plan("p.yaml").params
    for name in place.split("."):
        read = getattr(read, name)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_params_file_is_one_line_in_little_time(folder, name):
    content, says = NONE[name]
    started = time.process_time()
    refused(planned(folder, content), says, "p.yaml", lines=52)
    assert time.process_time() - started < 20
    assert not (folder / "executed").exists()


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(folder):
    done = planned(folder, b"\xef\xbb\xbf" + STUDY.replace("\n", "\r\n").encode())
    assert (done.status, done.err) == (0, ""), done.err


def test_aliases_in_measure_are_read(folder):
    shared = STUDY.replace(
        "audio: {kind: resnet, width: 4, depth: [1, 1]}", "audio: &net {kind: resnet, width: 4, depth: [1, 1]}"
    )
    content = shared.replace("visual: {kind: resnet, width: 4, depth: [1, 1]}", "visual: {<<: *net, width: 8}")
    done = planned(folder, content)
    assert (done.status, done.err) == (0, ""), done.err
    assert Plan("p.yaml").params.model.encoders["visual"].width == 8


@pytest.mark.parametrize("content", ["cells_per_gpu: 010\n", "default: {threads: yes}\n", LAUGHS])
def test_resources_are_read_by_the_same_rules(folder, monkeypatch, content):
    (folder / "r.yaml").write_text(content)
    monkeypatch.setenv("COUNTERPOISE_RESOURCES", "r.yaml")
    says = f"{DECIMAL}|{BOOLEAN}|{MANY}"
    refused(planned(folder, STUDY), says, "r.yaml")
