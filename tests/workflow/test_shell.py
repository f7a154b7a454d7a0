"""The shell and the wildcards see no text of the user: any file name is read, and nothing in one is executed."""

import shutil

import pytest

from tests.workflow.sequences import Sequence
from tests.workflow.small import merged

NAMES = [
    "$(touch pwned).yaml",
    "`touch pwned`.yaml",
    "x; touch pwned; echo .yaml",
    "x && touch pwned.yaml",
    "a b.yaml",
    "q'uote.yaml",
    'dou"ble.yaml',
    "{x}.yaml",
    "{{x}}.yaml",
    "{output}.yaml",
    "back\\slash.yaml",
    "-x.yaml",
    "*.yaml",
    "~.yaml",
    "100%.yaml",
    "ümlaut.yaml",
    "$HOME/$(touch pwned)/{wildcards.fp}.yaml",
]
FOLDERS = ["a b", "q'uote", "$(touch pwned)", "x; touch pwned", "{x}", "[x]*", "ümlaut"]


@pytest.fixture
def sequence(server, base):
    return Sequence(server, merged(base, {"study": {"fusions": ["concat"], "methods": ["joint"], "seeds": [0]}}))


@pytest.mark.parametrize("name", NAMES)
def test_a_params_file_of_any_name(sequence, name):
    sequence.write({}, name)
    sequence.check()
    sequence.idle()
    assert not list(sequence.folder.rglob("pwned")), sequence.output()
    (study,) = (sequence.folder / "results/studies").iterdir()
    assert (study / "report.html").exists()


@pytest.mark.parametrize("name", FOLDERS)
def test_a_working_directory_of_any_name(sequence, name):
    folder = sequence.folder / name / "clone"
    folder.mkdir(parents=True)
    sequence.folder = folder
    sequence.write({})
    sequence.check()
    sequence.idle()
    assert not list(sequence.server.folder.rglob("pwned")), sequence.output()
    shutil.rmtree(folder)
