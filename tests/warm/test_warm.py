"""Jobs in copies of a warm process: they are what a process of their own would be, and end as it would."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_src.study.plan import Plan
from pipeline_src.warm import serve
from pipeline_src.warm.ask import ADDRESS, ask
from tests.attacks.judge import ROOT, STUDY, call, put
from tests.workflow.small import kill, start

ENVIRONMENT = {**serve.ALLOCATOR, **os.environ, **dict.fromkeys(serve.THREADS, "1"), "PYTHONPATH": str(ROOT)}
pytestmark = pytest.mark.skipif(not serve.TASKS.is_dir(), reason="needs /proc")

TEST = "PYTEST_CURRENT_TEST"  # which pytest changes
LONG = "long.yaml"  # a study of which a run never ends


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Iterator[Path]:
    """The small study up to its cache, the current folder, with a plug-in of the user's."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        Path("mine").mkdir()
        Path("mine/other.py").write_text("")
        Path("params.yaml").write_text(STUDY + "plugins: [mine]\n")
        Path(LONG).write_text(put(STUDY, "training.epochs", "5000") + "plugins: [mine]\n")
        for stage in ("fetch", "manifest", "extract", "cache"):
            assert call(stage).status == 0
        yield folder


@pytest.fixture
def warm(study, monkeypatch) -> Iterator[subprocess.Popen]:
    """The warm process, and its address in the environment."""
    monkeypatch.setattr(serve, "LEAST", 0)
    monkeypatch.setenv(ADDRESS, "")  # so that it is gone in the end
    monkeypatch.delenv(ADDRESS)
    monkeypatch.delenv(TEST)
    place = serve.Warm(Plan())
    place.start()
    assert place.process is not None
    address = Path(os.environ[ADDRESS])
    until(address.exists, 120)
    yield place.process
    place.end()
    place.process.wait(30)
    assert not address.parent.exists()


def until(holds, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def asked(file: str, metrics: Path, **environment: str) -> subprocess.Popen:
    """A process that asks for a job, as one of Snakemake's shells starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline_src", "train", "--params", file, str(metrics)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={name: value for name, value in {**os.environ, **environment}.items() if name != TEST},
    )


def children(pid: int) -> list[int]:
    """The processes that a process has started: of the warm one, the jobs."""
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def begun(warm: subprocess.Popen) -> tuple[subprocess.Popen, int]:
    """A run that never ends, after its first epoch: who asked for it, and the job."""
    run = Plan(LONG).runs[0]
    shutil.rmtree(run.folder, ignore_errors=True)
    process = asked(LONG, run.metrics)
    until((run.folder / "checkpoint.safetensors").exists)
    (job,) = children(warm.pid)
    return process, job


def test_a_copy_does_what_a_process_of_its_own_does_and_a_wrong_request_fails_alike(warm):
    (run,) = Plan().runs
    process = asked("params.yaml", run.metrics, **{ADDRESS: "off"})
    until(lambda: children(warm.pid) or process.poll() is not None)
    assert process.wait() == 0 and not children(warm.pid)
    weights, predictions = (file.read_bytes() for file in (run.train_files[1], run.evaluate_files[1]))
    shutil.rmtree(run.folder)
    process = asked("params.yaml", run.metrics)
    until(lambda: children(warm.pid))
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "epoch 2 of 2" in said and "test accuracy" in said
    assert [weights, predictions] == [file.read_bytes() for file in (run.train_files[1], run.evaluate_files[1])]
    process = asked("params.yaml", run.metrics.with_name("other.json"))
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and said.startswith("error: ") and said.count("\n") == 1


def test_a_signal_reaches_the_job_and_its_end_comes_back(warm):
    process, job = begun(warm)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM after epoch" in said
    until(lambda: not alive(job))


def test_whoever_is_killed_the_job_ends_too(warm):
    process, job = begun(warm)
    process.kill()
    until(lambda: not alive(job))
    process, job = begun(warm)
    os.kill(job, signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    process, job = begun(warm)
    warm.kill()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith("error: train: expected the warm process to say how the job ended, but")
    until(lambda: not alive(job))
    shutil.rmtree(Path(os.environ[ADDRESS]).parent)


def test_a_copy_that_would_differ_is_not_made(warm, monkeypatch, tmp_path):
    monkeypatch.delenv(TEST)
    request = ["train", "--help"]
    assert ask(["status"]) is None
    for name, value in (("ATEN_CPU_CAPABILITY", "avx2"), ("OMP_NUM_THREADS", "2")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert ask(request) is None
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        assert ask(request) is None
    signals = {number: signal.getsignal(number) for number in serve.SIGNALS}
    assert ask(request) == 0
    for number, handler in signals.items():
        signal.signal(number, handler)
    Path("mine/other.py").write_text("changed = True\n")
    assert ask(request) is None
    monkeypatch.setenv(ADDRESS, "off")
    assert ask(request) is None
    monkeypatch.setenv(ADDRESS, f"{tempfile.gettempdir()}/nobody")
    assert ask(request) is None


def test_only_sources_count_as_sources_and_one_that_goes_is_a_change(study, monkeypatch):
    sources = serve._sources()
    Path("mine/__pycache__").mkdir(exist_ok=True)
    Path("mine/__pycache__/other.pyc.140213").write_text("as an import writes it")
    assert serve._sources() == sources and not serve._changed(sources)

    class Gone:
        path = "mine/other.py"

        def stat(self) -> None:
            raise FileNotFoundError(self.path)

    monkeypatch.setattr(serve.files, "below", lambda _: [("other.py", Gone())])
    assert serve._changed(sources)


def test_it_is_started_for_many_jobs_only_and_where_nobody_said_otherwise(study, monkeypatch):
    def started(runs: int) -> bool:
        Path("p.yaml").write_text(put(STUDY, "study.seeds", str([*range(1, runs + 1)])))
        place = serve.Warm(Plan("p.yaml"))
        place.start()
        return place.process is not None

    monkeypatch.setenv(ADDRESS, "")
    monkeypatch.delenv(ADDRESS)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: object())
    assert not started(serve.LEAST - 1) and ADDRESS not in os.environ
    monkeypatch.setenv(ADDRESS, "off")
    assert not started(serve.LEAST)
    monkeypatch.delenv(ADDRESS)
    with monkeypatch.context() as patch:
        patch.setattr(serve, "TASKS", Path("nowhere"))
        assert not started(serve.LEAST)
    assert started(serve.LEAST)
    shutil.rmtree(Path(os.environ[ADDRESS]).parent)


def test_jobs_of_snakemake_are_copies_and_are_killed_with_it(study, monkeypatch):
    monkeypatch.delenv(ADDRESS, raising=False)
    seeds = str([*range(1, serve.LEAST + 1)])
    Path("many.yaml").write_text(put(put(STUDY, "training.epochs", "20"), "study.seeds", seeds))
    shutil.copy(ROOT / "workflow/resources.yaml", "resources.yaml")
    process = start(study, "--config", "params=many.yaml")

    def servers() -> list[int]:
        return [
            pid
            for pid in children(process.pid)
            if b"pipeline_src.warm.serve" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]

    until(servers, 120)
    (server,) = servers()
    address = Path(Path(f"/proc/{server}/cmdline").read_bytes().split(b"\0")[-2].decode())
    until(address.exists, 120)
    until(lambda: children(server) or process.poll() is not None, 120)
    jobs = children(server)
    kill(process)
    assert jobs
    until(lambda: not any(map(alive, [server, *jobs])))
    shutil.rmtree(address.parent)
