"""Studies that are made once for all attacks of a process; an attack works on a copy."""

import pytest

from tests.attacks import study


@pytest.fixture(scope="session")
def _media(tmp_path_factory):
    return study.cremad(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="session")
def _finished(tmp_path_factory):
    return study.finished(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def media(_media, tmp_path, monkeypatch):
    """A folder of CREMA-D's that may be spoilt, in the current folder."""
    folder = study.copy(_media, tmp_path / "here")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def finished(_finished, tmp_path, monkeypatch):
    """A finished study that may be spoilt, as the current folder."""
    folder = study.copy(_finished, tmp_path / "here")
    monkeypatch.chdir(folder)
    return folder
