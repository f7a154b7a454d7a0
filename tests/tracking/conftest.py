import pytest

from tests.tracking.study import free_port, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> str:
    """The address of a real MLflow server; tests that share it use experiments of their own."""
    with serving(tmp_path_factory.mktemp("server"), free_port()) as address:
        yield address


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory of its own, and no store named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path
