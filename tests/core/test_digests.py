"""What is worked out from sources is worked out once on a machine, and never taken from a source that was another."""

import json
import subprocess
import sys

import pytest

from pipeline_src.core import digests

CODE = """
from pipeline_src.core import fingerprint
real = fingerprint._digest
def counted(folder, source, own):
    print(folder)
    return real(folder, source, own)
fingerprint._digest = counted
print("digest", fingerprint.code_digest(["pipeline_src.methods.ogm"]))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    return tmp_path


def said(folder) -> list[str]:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, cwd=folder, check=True)
    return done.stdout.splitlines()


def test_a_second_process_reads_no_tree_and_gives_the_same(folder):
    *parsed, digest = said(folder)
    assert len(parsed) > 5
    assert said(folder) == [digest]


def test_without_a_data_folder_nothing_is_written(folder):
    (folder / "data").rmdir()
    first = said(folder)
    assert said(folder) == first and list(folder.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 3}', '{"a": ["x"]}', '{"a": [1, []]}', "\0"])
def test_a_damaged_memory_is_no_memory(folder, content):
    first = said(folder)
    digests.MEMORY.write_text(content)
    assert said(folder) == first
    assert len(said(folder)) == 1, "it is whole again"


def test_other_parts_are_computed_anew_and_the_oldest_go(folder, monkeypatch):
    monkeypatch.setattr(digests, "KEPT", 2)
    digests._known.cache_clear()
    try:
        for part in (1, 1, 2, 3):
            assert digests.remembered([part], lambda: [str(part), []]) == [str(part), []]  # noqa: B023
        assert digests.remembered([1], lambda: pytest.fail("computed twice")) == ["1", []]
        digests._save()
        assert sorted(text for text, _ in json.loads(digests.MEMORY.read_text()).values()) == ["2", "3"]
    finally:
        digests._known.cache_clear()
