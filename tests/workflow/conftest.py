"""The server of stand-in stages, and the base of the studies that it makes."""

import pytest
import yaml

from tests.workflow.sequences import Server
from tests.workflow.small import ROOT, merged

SMALL = {"tracking": {"enabled": False}, "datasets": {"av_digits": {"shards": 1}}, "study": {"unimodal": False}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"), ROOT)
    yield server
    server.end()


@pytest.fixture
def base() -> dict:
    """Parameters of a study whose data is one shard."""
    return merged(yaml.safe_load((ROOT / "params.yaml").read_text()), SMALL)
