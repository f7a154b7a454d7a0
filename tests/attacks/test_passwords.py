"""Passwords in addresses, of tracking and of Git's and DVC's remotes: none is printed, and none is written to any file
of a study. (A mirror's address takes none: test_params.)
"""

import subprocess
from pathlib import Path

import pytest

from pipeline_src.core.errors import UserError, concealed
from tests.attacks.judge import STUDY, call, command, contents, put, refused
from tests.attacks.study import targets

SECRET = "hunter2"
ADDRESSES = {
    "a server that is not there": f"http://me:{SECRET}@127.0.0.1:9/",
    "a server with a token": f"https://{SECRET}@127.0.0.1:9/",
    "a database": f"postgresql://me:{SECRET}@127.0.0.1:9/runs",
    "a database that nobody knows": f"oracle9://me:{SECRET}@127.0.0.1/x",
    "no address": f"me:{SECRET}@nowhere",
    "a port that is none": f"http://me:{SECRET}@127.0.0.1:port/",
    "a token in the query": f"http://127.0.0.1:9/?password={SECRET}",
    "a password with a slash": f"postgresql://me:a/{SECRET}@127.0.0.1:9/runs",
    "a password with an at": f"postgresql://me:a@{SECRET}@127.0.0.1:9/runs",
    "a password with a quote": f"postgresql://me:a'{SECRET}@127.0.0.1:9/runs",
}


def written() -> list[str]:
    """Files of the current folder in which the password is, but for those that the test wrote itself."""
    ours = ("p.yaml", ".git/config", ".dvc/config.local")
    found = contents(Path()).items()
    return [name for name, text in found if isinstance(text, bytes) and SECRET.encode() in text and name not in ours]


@pytest.mark.parametrize("name", ADDRESSES)
def test_no_password_of_a_store_is_shown_or_written(finished, monkeypatch, name):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ADDRESSES[name])
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = call("track", "--params", "p.yaml")
    assert SECRET not in done.err + done.out
    refused(done, "expected")
    assert not written()


def test_nor_by_the_process_that_follows(finished):
    done = command(
        "track", "--params", "p.yaml", "--follow", "--parent", "1", MLFLOW_TRACKING_URI=ADDRESSES["a database"]
    )
    assert "MLflow is behind" in done.err and SECRET not in done.err + done.out
    assert not written()


def test_no_password_of_a_remote_is_in_what_a_run_records(finished, monkeypatch):
    """Of Git's remote, of DVC's, and of a store for tracking that another program uses."""
    git = ("git", "-c", "user.name=me", "-c", "user.email=me@example.org")
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "x"], check=True)
    subprocess.run([*git, "remote", "add", "origin", f"https://me:{SECRET}@example.org/x.git"], check=True)
    Path(".dvc").mkdir()
    Path(".dvc/config.local").write_text(f"['remote \"s\"']\n    url = https://me:{SECRET}@example.org/x\n")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("p.yaml").write_text(put(STUDY, "model.encoders.audio.width", "5"))
    for stage in ("train", "evaluate", "aggregate"):
        done = call(stage, "--params", "p.yaml", *targets(stage))
        assert done.status == 0 and SECRET not in done.err + done.out, done.err
    done = call("track", "--params", "p.yaml")
    assert done.status == 0 and SECRET not in done.err + done.out, done.err
    assert Path("mlflow.db").exists() and not written()


def test_an_error_conceals_whoever_prints_it():
    assert SECRET not in f"{UserError(ADDRESSES['a database'])}"


@pytest.mark.parametrize(
    "text", ["me@example.org: expected x", "a.yaml:3: model.x@y", "ssh: no, 3:4 @ 5", "sqlite:///a"]
)
def test_what_is_no_secret_is_shown(text):
    assert concealed(text) == text
