"""What changes a module's digest, and what does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_src.core import fingerprint
from pipeline_src.core.errors import UserError
from pipeline_src.tasks.base import LABELS

PLAIN = """
import os
from toy.other import helper

RATE = 2


def shown(values, width):
    return helper(sum(values), width, RATE) + f"{os.sep}{values!r:>{width}}"
"""


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """A function: modules' sources (by path below toy) -> digest of toy.main."""
    monkeypatch.setattr(fingerprint, "__file__", str(tmp_path / "toy/core/fingerprint.py"))

    def of(main: str, **others: str) -> str:
        fingerprint._module.cache_clear()
        for name, source in {"other": "def helper(*_):\n    return 1\n", **others, "main": main}.items():
            file = tmp_path.joinpath("toy", *name.split("/")).with_suffix(".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source)
        return fingerprint.code_digest(["toy.main"])

    yield of
    fingerprint._module.cache_clear()


def test_order_of_parts_does_not_count_but_names_and_values_do():
    one = fingerprint.fingerprint(a=1, b={"x": 1.5, "y": None})
    assert one == fingerprint.fingerprint(b={"y": None, "x": 1.5}, a=1)
    assert len(one) == fingerprint.LENGTH
    assert len({one, fingerprint.fingerprint(a=1, b={}), fingerprint.fingerprint(b=1, a={"x": 1.5, "y": None})}) == 3


@pytest.mark.parametrize(
    "edited",
    [
        PLAIN.replace("RATE = 2", "# a comment\nRATE = 2  # another"),
        PLAIN.replace("import os", '"""A module."""\n\nimport os'),
        PLAIN.replace("    return", '    """What it does."""\n    return'),
        PLAIN.replace("RATE = 2", "\n\n\nRATE = 2").replace("    return", "\n    return"),
        PLAIN.replace(
            "helper(sum(values), width, RATE)", "helper(\n        sum(values),\n        width,\n        RATE,\n    )"
        ),
        PLAIN.replace("return helper", "return (\n        helper").replace('{width}}"', '{width}}"\n    )'),
        PLAIN.replace("RATE = 2", "RATE   =   2").replace('f"{os.sep}', 'f"{os.sep}" f"'),
    ],
    ids=["comments", "module docstring", "function docstring", "blank lines", "one per line", "brackets", "spaces"],
)
def test_comments_docstrings_and_layout_do_not_count(digest, edited):
    assert edited != PLAIN
    assert digest(edited) == digest(PLAIN)


@pytest.mark.parametrize(
    "edited",
    [
        PLAIN.replace("RATE = 2", "RATE = 3"),
        PLAIN.replace("RATE = 2", "RATE = 2.0"),
        PLAIN.replace("RATE = 2", 'RATE = "2"'),
        PLAIN.replace("RATE = 2", "RATE = None"),
        PLAIN.replace("RATE = 2", "RATE = (2,)"),
        PLAIN.replace("sum(values), width", "width, sum(values)"),
        PLAIN.replace("!r", "!s"),
        PLAIN.replace(":>", ":<"),
        PLAIN.replace("    return helper", "    return\n    return helper"),
        PLAIN.replace("RATE = 2", 'RATE = 2\n"""text"""'),
    ],
)
def test_changed_code_counts(digest, edited):
    assert edited != PLAIN
    assert digest(edited) != digest(PLAIN)


@pytest.mark.parametrize(
    "statement",
    [
        "from toy.other import helper",
        "from toy import other",
        "import toy.other",
        "from .other import helper",
        "from . import other",
        "def later():\n    from toy.other import helper",
        "class Later:\n    def later(self):\n        import toy.other as o",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import toy.other",
        "try:\n    import toy.other\nexcept ImportError:\n    pass",
        "import toy.between",
    ],
)
def test_imported_modules_count_wherever_they_are_imported(digest, statement):
    between = "def f():\n    from toy.other import helper\n"
    before = digest(statement, between=between, other="X = 1\n")
    assert before == digest(statement, between=between, other="X = 1  # one\n")
    assert before != digest(statement, between=between, other="X = 2\n")


def test_relative_imports_of_packages(digest):
    package = {"part/__init__": "from .inner import X\n", "part/inner": "from ..other import helper\n"}
    before = digest("import toy.part", **package, other="X = 1\n")
    assert before != digest("import toy.part", **package, other="X = 2\n")


@pytest.mark.parametrize("test", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_imports_for_type_checkers_do_not_count(digest, test):
    main = f"import typing\nfrom typing import TYPE_CHECKING\nif {test}:\n    import toy.other\n"
    assert digest(main, other="X = 1\n") == digest(main, other="X = 2\n")


def test_modules_that_import_each_other(digest):
    assert digest("import toy.other", other="import toy.main\n") != digest(
        "import toy.other", other="import toy.main; 1\n"
    )


def test_how_a_metric_is_shown_does_not_count_but_what_it_is(digest):
    source = (
        'metrics = (Metric("accuracy", "accuracy", "%", "Its caption."), Metric("nll", label="NLL", higher=False))\n'
    )
    before = digest(source)
    for old, new in (('"accuracy", "%"', '"Accuracy", "%"'), ('"%"', '""'), ("Its", "The"), ('"NLL"', '"loss"')):
        assert old in source and digest(source.replace(old, new)) == before
    for old, new in (('("accuracy"', '("right"'), ("higher=False", "higher=True")):
        assert old in source and digest(source.replace(old, new)) != before


def test_import_of_a_module_that_is_not_there(digest):
    with pytest.raises(UserError, match=r"toy\.missing: expected a module"):
        digest("from toy.missing import X")


def test_fstrings_are_read_alike_by_every_python(digest):
    """Python 3.12 cuts f-strings in other tokens than 3.11, and 3.12.1 adds empty pieces; so the value is pinned."""
    source = 'def f(a, b):\n    return f"{a[\'x\']:>{b}} {b!r} {{}} {f\'{a}\'}" f"{a=}" "tail"\n'
    assert digest(source) == digest(source.replace("def f", "# no change\ndef f"))
    assert digest(source) != digest(source.replace("'x'", "'y'"))
    assert digest(source) != digest(source.replace("{{}}", "{{ }}"))
    assert digest(source) == "259fc02061"


def test_fingerprints_import_nothing_that_they_hash():
    code = """
import sys
from pipeline_src.core.fingerprint import code_digest
code_digest(["pipeline_src.training.run", "pipeline_src.models.fusions.sum", "pipeline_src.datasets.av_digits"])
print(sorted(m for m in sys.modules if m.startswith("pipeline_src")), "torch" in sys.modules)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    core = [
        "pipeline_src.core",
        "pipeline_src.core.checksums",
        "pipeline_src.core.digests",
        "pipeline_src.core.errors",
        "pipeline_src.core.files",
        "pipeline_src.core.fingerprint",
        "pipeline_src.core.plugins",
    ]
    assert done.stdout.strip() == f"{['pipeline_src', *core]} False"


def test_every_module_of_the_package_can_be_fingerprinted():
    root = Path(fingerprint.__file__).parents[1]
    modules = [".".join(file.relative_to(root.parent).with_suffix("").parts) for file in root.rglob("*.py")]
    assert len({fingerprint._module(module)[0] for module in modules if not module.endswith("__init__")}) > 30


TASK = """
LIMIT = 3


class Task(Base):
    counted = True

    def stored(self, label):
        {comment}
        return number[label]{more}

    def score(self, logits):
        return {score}
"""


def test_the_members_of_a_modules_classes_are_hashed_by_name(monkeypatch):
    def digest(**parts: str) -> str:
        text = TASK.format(**{"comment": "# a label", "more": "", "score": "1"} | parts)
        monkeypatch.setattr(fingerprint, "_source", lambda module: text)
        return fingerprint.members_digest("pipeline_src.tasks.classification", ["counted", "stored"])

    assert digest() == digest(comment="# another") == digest(score="2")
    assert digest() != digest(more=" + 1")


def test_an_edit_of_a_task_moves_what_uses_that_part_of_it(monkeypatch):
    read = fingerprint._source

    def digest(module: str, edited: str, old: str, new: str) -> str:
        def source(name: str) -> str:
            text = read(name)
            if name == edited:
                assert old in text
                text = text.replace(old, new)
            return text

        monkeypatch.setattr(fingerprint, "_source", source)
        return fingerprint.members_digest(module, LABELS)

    segments, classification = "pipeline_src.tasks.segments", "pipeline_src.tasks.classification"
    nothing = classification, "counted = True", "counted = True"
    assert digest(segments, classification, "counted = True", "counted = False") != digest(segments, *nothing)
    assert digest(segments, "pipeline_src.tasks.probe", "max_iter", "maximum") == digest(segments, *nothing)
    assert digest(segments, classification, "bins: int = 15", "bins: int = 10") == digest(segments, *nothing)
    assert digest(segments, segments, "number[name]", "-number[name]") != digest(segments, *nothing)
