"""Every params file has a results folder of its own."""

import re
from pathlib import Path

import pytest

from pipeline_src.study.naming import study_name


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "clone").mkdir()
    monkeypatch.chdir(tmp_path / "clone")


def test_plain_names_are_read_from_the_path():
    assert study_name("params.yaml") == "params"
    assert study_name("./params.yaml") == "params"
    assert study_name(Path.cwd() / "params.yaml") == "params"
    assert study_name("experiments/ogm-ge-2022-cremad.yaml") == "experiments.ogm-ge-2022-cremad"


def test_no_two_files_share_a_name():
    names = ["params.yaml", "params.yml", "Params.json", "other/params.yaml", "other.params.yaml", "other-params.yaml"]
    names += ["../params.yaml", "../clone2/params.yaml", "/params.yaml", "a/b.c.yaml", "a/b/c.yaml", "a.b/c.yaml"]
    names += [
        "a b.yaml",
        "a-b.yaml",
        "a;b.yaml",
        "a'b.yaml",
        "$(touch x).yaml",
        "{x}.yaml",
        "x.yaml",
        "-x.yaml",
        ".x.yaml",
    ]
    names += ["é.yaml", "è.yaml", "a" * 150 + ".yaml", "a" * 151 + ".yaml", "a\nb.yaml"]
    names += [f"{study_name('a b.yaml')}.yaml", "figures.yaml", "runs.yaml", "studies.yaml"]
    found = [study_name(name) for name in names]
    assert len(set(found)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) and len(name) <= 120 for name in found), found


def test_a_linked_folder_is_the_same_place():
    Path("a").mkdir()
    Path("b").symlink_to("a")
    assert study_name("a/x.yaml") == study_name("b/x.yaml")
