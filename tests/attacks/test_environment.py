"""The machine around a job: what may not be read or written, full disks, little memory, signals, and arguments that are
none. Each is one line, and what was finished is kept.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch import nn

from pipeline_src.core.errors import UserError
from pipeline_src.models.weights import load_weights
from tests.attacks.judge import (
    STUDY,
    as_a_user,
    call,
    command,
    environment,
    files_of_at_most,
    nothing_lost,
    put,
    refused,
)
from tests.attacks.study import targets

OUTPUTS = {  # stage: the outputs that are taken away, so that it has to be done again
    "manifest": "data/manifest/*/*",
    "extract": "data/cache/*/*/shard-*",
    "cache": "data/cache/*/*/cache.json",
    "train": "results/runs/*/*/*/*/seed0/*",
    "evaluate": "results/runs/*/*/*/*/seed0/evaluation-*/*",
    "aggregate": "results/**/tables/*",
}
SHARD, CACHE = "data/cache/*/*/shard-*.arrow", "data/cache/*/*/cache.json"
RUN = "results/runs/*/*/*/*/seed0"


BEGUN = r"attempt\.json|metrics\.jsonl|quarantine\.parquet|results/.*(tables|figures|csv|md|tex)"
LATER = r"/tables/index-|/evaluation-"  # what a stage takes away before it makes anew what that was made from


def remove(pattern: str) -> None:
    for path in sorted(Path().glob(pattern)):
        if path.is_file():
            path.unlink()


def stage(name: str):
    return call(name, "--params", "p.yaml", *targets(name))


def one(pattern: str) -> Path:
    return sorted(Path().glob(pattern))[0]


CLOSED = [
    # (stage, the file that may not be read)
    ("plan", "p.yaml"),
    ("status", "p.yaml"),
    ("extract", "data/manifest/*/manifest.parquet"),
    ("cache", "data/manifest/*/manifest.parquet"),
    ("cache", "data/manifest/*/quarantine.parquet"),
    ("cache", SHARD),
    ("cache", "data/cache/*/*/shard-*.quarantine.parquet"),
    ("train", CACHE),
    ("train", SHARD),
    ("evaluate", CACHE),
    ("evaluate", SHARD),
    ("evaluate", f"{RUN}/record.json"),
    ("evaluate", f"{RUN}/weights.safetensors"),
    ("aggregate", f"{RUN}/record.json"),
    ("aggregate", f"{RUN}/metrics.jsonl"),
    ("aggregate", f"{RUN}/evaluation-*/metrics.json"),
    ("aggregate", f"{RUN}/evaluation-*/predictions.parquet"),
    ("status", f"{RUN}/record.json"),
]


@pytest.mark.parametrize(("name", "file"), CLOSED)
def test_a_file_that_may_not_be_read_is_one_line_or_shown(finished, name, file):
    if name in OUTPUTS:
        remove(OUTPUTS[name])
    file = one(file)
    file.chmod(0)
    with as_a_user():
        done = stage(name)
    file.chmod(0o644)
    assert "Traceback" not in done.err, done.err[-2000:]
    assert done.status in (0, 2)
    if done.status:
        refused(done, "Permission denied|No such file", file.name)


CHECKPOINTS = {
    # in place of the checkpoint that a run is to go on from
    "one that may not be read": (lambda file: (file.write_bytes(b"x"), file.chmod(0)), "Permission denied"),
    "a folder": (Path.mkdir, "Is a directory"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_read_is_one_line_and_named(finished, name):
    remove(OUTPUTS["train"])
    make, says = CHECKPOINTS[name]
    make(Path(targets("train")[0]).with_name("checkpoint.safetensors"))
    with as_a_user():
        done = stage("train")
    refused(done, says, "checkpoint.safetensors")


def test_weights_to_start_from_that_may_not_be_read_are_one_line(finished):
    Path("w.safetensors").write_bytes(b"x")
    Path("w.safetensors").chmod(0)
    Path("p.yaml").write_text(put(STUDY, "model.encoders.audio.depth", "[1, 1], weights: w.safetensors"))
    with as_a_user():
        refused(call("plan", "--params", "p.yaml"), "Permission denied", "w.safetensors")
        with pytest.raises(UserError, match=r"^w\.safetensors: expected tensors .* Permission denied"):
            load_weights(nn.Linear(1, 1), "w.safetensors", "weight")  # closed since the plan was made


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_folder_that_may_not_be_written_is_one_line(finished, name):
    remove(OUTPUTS[name])
    folders = [path for path in (Path("data"), Path("results")) for path in (path, *path.rglob("*")) if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    with as_a_user(), nothing_lost(finished):
        done = stage(name)
    for folder in folders:
        folder.chmod(0o755)
    refused(done, "Permission denied; let this user", "data" if name in ("manifest", "extract", "cache") else "results")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_file_system_that_is_mounted_for_reading_is_one_line(finished, name):
    remove(OUTPUTS[name])
    if subprocess.run(["mount", "--bind", finished, finished], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", finished], check=True)
        os.chdir(finished)  # into the mount
        with nothing_lost(finished):
            done = stage(name)
    finally:
        os.chdir(finished.parent)
        subprocess.run(["umount", finished], check=True)
    refused(done, "Read-only file system; mount it for writing")


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_full_disk_is_one_line_and_leaves_no_half_file(finished, name):
    remove(OUTPUTS[name])
    wanted = targets(name)
    with nothing_lost(finished, may_appear=BEGUN, may_go=LATER), files_of_at_most(400):
        done = call(name, "--params", "p.yaml", *wanted)
    refused(done, r"File too large.*raise the limit")


@pytest.mark.parametrize("megabytes", [300, 1000, 2000])
def test_little_memory_is_one_line(finished, megabytes):
    remove(OUTPUTS["train"])

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    done = command("train", "--params", "p.yaml", *targets("train"), prepare=limit)
    refused(done, "memory|start a thread")


def test_weights_that_do_not_fit_are_said_to_be_too_large(finished):
    """And not the batch."""
    Path("p.yaml").write_text(put(STUDY, "model.encoders.audio.width", "8192"))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

    done = command("train", "--params", "p.yaml", *targets("train"), prepare=limit)
    refused(done, "expected the weights to fit on cpu.*lower the widths under model.encoders")


@pytest.mark.parametrize(("key", "value"), [("probe_iterations", "1"), ("probe_c", "1000000")])
def test_a_probe_that_does_not_converge_is_one_line(finished, key, value):
    Path("p.yaml").write_text(put(put(STUDY, "evaluation.probe_iterations", "3"), f"evaluation.{key}", value))
    with nothing_lost(finished, may_appear=r"/evaluation-\w+/attempt\.json"):
        done = stage("evaluate")
    refused(done, r"evaluation\.probe_iterations: expected the linear probe to converge within \d steps, but got")


ARGUMENTS = {
    "no such target": (("train", "results/runs/none/record.json"), "not what p.yaml asks"),
    "a target that leaves the folder": (("train", "../../etc/passwd"), "not what p.yaml asks"),
    "a target of 100 kB": (("train", "a" * 100_000), "not what p.yaml asks"),
    "a target with an escape sequence": (("train", "\x1b[2J"), "not what p.yaml asks"),
    "a target of another stage": (("evaluate", "p.yaml"), "not what p.yaml asks"),
    "no such dataset": (("fetch", "nothing"), "expected a dataset of the study"),
    "a dataset of 100 kB": (("fetch", "n" * 100_000), "expected a dataset of the study"),
    "no such dataset to check": (("check", "nothing"), "expected a dataset of the study"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_that_is_none_is_one_line(finished, name):
    (sub, target), says = ARGUMENTS[name]
    with nothing_lost(finished):
        done = call(sub, target, "--params", "p.yaml")
    refused(done, says)


def test_a_method_that_is_none_is_one_line(finished):
    for name in ("nothing", "n" * 100_000, "../ogm", "\x1b[2J"):
        refused(call("explain", name), "expected a registered method")


PARAMS = {
    # what is named as the params file
    "nothing": "nothing.yaml",
    "a folder": ".",
    "endless zeros": "/dev/zero",
    "nothing to read": "/dev/null",
    "a process's memory": "/proc/self/mem",
    "a long name": "a" * 300 + ".yaml",
    "a name with a NUL": "a\0b.yaml",
    "a name with a new line": "a\nb.yaml",
    "a name with an escape sequence": "\x1b[2J.yaml",
    "a name of a shell": "$(touch executed).yaml",
    "an empty name": "",
    "a pipe": "pipe.yaml",
    "a link to itself": "self.yaml",
}


@pytest.mark.parametrize("name", PARAMS)
def test_a_params_file_that_is_none_is_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.yaml")
    Path("self.yaml").symlink_to("self.yaml")
    refused(call("plan", "--params", PARAMS[name]), "expected")
    assert not Path("executed").exists()


NAMES = [
    "a b",
    "q'uote",
    'dou"ble',
    "ä日本",
    "$(touch executed)",
    "x; touch executed; echo ",
    "`touch executed`",
    "-x",
    "{x}",
    "*",
    "a&b",
    "😀",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_params_file_of_any_name_is_read_and_nothing_is_executed(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(f"{name}.yaml").write_text(STUDY)
    done = call("plan", f"--params={name}.yaml")
    assert (done.status, done.err) == (0, "")
    assert not Path("executed").exists()


@pytest.mark.parametrize("value", ["nothing.yaml", ".", "/dev/zero", "/dev/null", "a" * 5000])
def test_resources_that_are_none_are_one_line(finished, monkeypatch, value):
    monkeypatch.setenv("COUNTERPOISE_RESOURCES", value)
    refused(call("plan", "--params", "p.yaml"), "expected")


def test_a_level_of_messages_that_is_none_is_one_line(finished, monkeypatch):
    monkeypatch.setenv("COUNTERPOISE_LOG", "LOUD")
    refused(call("plan", "--params", "p.yaml"), "expected DEBUG, INFO", "COUNTERPOISE_LOG")


def test_output_that_cannot_be_written_is_one_line(finished):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline_src", "plan", "--params", "p.yaml"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
        )
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert "No space left on device" in done.stderr and done.returncode == 2


def test_a_reader_that_has_gone_is_no_error(finished):
    done = subprocess.run(
        f"{sys.executable} -m pipeline_src plan --params p.yaml | head -0",
        shell=True,
        capture_output=True,
        env=environment(),
        text=True,
    )
    assert done.stderr == ""


def test_a_language_of_ascii_alone_does_no_harm(finished):
    done = command("plan", "--params", "p.yaml", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.status == 0, done.err


SIGNALS = {
    "one request": [signal.SIGTERM],
    "a Ctrl-C": [signal.SIGINT],
    "two Ctrl-C": [signal.SIGINT, signal.SIGINT],
    "a scheduler's": [signal.SIGUSR1],
    "one after the other": [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGTERM],
}


@pytest.mark.parametrize("name", SIGNALS)
def test_who_is_asked_to_stop_stops_and_keeps_what_was_done(finished, name):
    Path("p.yaml").write_text(put(STUDY, "training.epochs", "5000"))
    (target,) = targets("train")
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline_src", "train", "--params", "p.yaml", target],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    rows = Path(target).parent / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (rows.exists() and rows.read_text().count("\n") > 1):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    for number in SIGNALS[name]:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    first, *others = SIGNALS[name]  # those that come when all is on disk end the process as they always do
    assert process.returncode in {128 + first} | {128 + n for n in others} | {-n for n in others}
    assert "goes on when started again" in err or others
    attempt = json.loads((Path(target).parent / "attempt.json").read_text())
    assert attempt["status"] == "interrupted"


def test_the_study_itself_is_finished(finished):
    """Else the attacks on it would show nothing."""
    assert call("status", "--params", "p.yaml").status == 0
    assert one("results/**/report.html").stat().st_size > 10_000
