"""A folder with studies, the calls that are made in it, and what must hold after each."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import yaml

from tests.workflow import repository
from tests.workflow.small import merged

HERE = Path(__file__).parent
DAMAGES = (
    *("record", "weights", "history", "metrics", "predictions", "evaluation", "run", "runs"),
    *("tables", "table", "figure", "figures", "report", "study", "index", "shard", "cache", "data", "memory"),
    *("mark record", "mark metrics", "mark index", "mark cache", "lock", "backup"),
)


class Server:
    """The process of standin.py, of the project in `root`."""

    def __init__(self, folder: Path, root: Path):
        self.folder, self.root = folder, root
        (folder / "stub").mkdir(parents=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("SNAKEMAKE", "COUNTER"))}
        environment |= {"PYTHONPATH": str(root), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, HERE / "standin.py", folder / "stub", root / "params.yaml"],
            stdout=subprocess.PIPE,
            env=environment,
            cwd=root,
            start_new_session=True,
            text=True,
        )
        self.port = int(self.process.stdout.readline())

    def ask(self, folder: Path, call: Path, *arguments: str) -> str:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall("\0".join([str(folder), str(call), *arguments, ""]).encode() + b"\4")
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class Sequence:
    """One folder, in which one call follows the other."""

    def __init__(self, server: Server, base: dict):
        self.server, self.base, self.calls = server, base, 0
        self.folder = server.folder / "sequence"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.said = []

    def write(self, change: dict, name: str = "params.yaml") -> None:
        values = merged(self.base, change)
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(yaml.safe_dump(values, sort_keys=False))
        self.name = name

    def state(self) -> dict:
        text = self.server.ask(self.folder, self.folder, "state", self.name)
        return json.loads(text)

    def snakemake(self, *arguments: str, **faults) -> tuple[int, list[list[str]]]:
        """Exit status and trace of a call."""
        self.calls += 1
        self.call = self.folder / ".calls" / str(self.calls)
        self.call.mkdir(parents=True)
        (self.call / "faults.json").write_text(json.dumps(faults))
        root = self.server.root
        command = ["--snakefile", str(root / "Snakefile"), "--cores", "1", "--scheduler", "greedy"]
        config = ["--config", f"params={self.name}"]
        status = int(self.server.ask(self.folder, self.call, "snakemake", *command, *arguments, *config))
        trace = (self.call / "trace").read_text() if (self.call / "trace").exists() else ""
        self.said.append([status, arguments, faults, trace.splitlines()])
        return status, [line.split() for line in trace.splitlines()]

    def output(self) -> str:
        file = self.call / "output"
        return file.read_text() if file.exists() else ""

    def mark(self, path: str) -> None:
        """What Snakemake leaves for an output whose job was killed."""
        key = base64.urlsafe_b64encode(path.encode()).decode()
        parts = [key[i : i + 254] for i in range(0, len(key), 254)]
        file = self.folder / ".snakemake/incomplete" / "/".join([*("@" + part for part in parts[:-1]), parts[-1]])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('{"external_jobid": null}')

    def damage(self, what: str, number: int) -> None:
        """Delete or leave something; `number` chooses the run."""
        state = self.state()
        run = list(state["runs"])[number % len(state["runs"])]
        record, weights, history, metrics, predictions = state["runs"][run]["files"]
        results, snakemake = state["results"], ".snakemake"
        cache = state["data"]["cache"][0][0]
        paths = {
            "record": record,
            "weights": weights,
            "history": history,
            "metrics": metrics,
            "predictions": predictions,
            "evaluation": state["runs"][run]["evaluation"],
            "run": run,
            "tables": f"{results}/tables",
            "table": f"{results}/tables/accuracy.md",
            "figure": f"{results}/figures/accuracy-all.svg",
            "figures": f"{results}/figures",
            "report": f"{results}/report.html",
            "study": results,
            "index": state["index"],
            "runs": "results/runs",
            "shard": state["data"]["extract"][0][0],
            "cache": str(Path(cache).parent),
            "data": "data",
            "memory": snakemake,
        }
        if what in paths:
            path = self.folder / paths[what]
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        elif what == "lock":
            lock = self.folder / snakemake / "locks/0.output.lock"
            lock.parent.mkdir(parents=True, exist_ok=True)
            lock.write_text("\n".join([record, metrics, state["index"]]))
        elif what == "backup":  # of an output that a killed job would have changed
            backup = self.folder / snakemake / "backups" / record
            backup.parent.mkdir(parents=True, exist_ok=True)
            backup.write_text("{}")
        else:
            marked = {"mark record": record, "mark metrics": metrics, "mark index": state["index"], "mark cache": cache}
            self.mark(marked[what])

    def check(self, crash: tuple[int, ...] = ()) -> None:
        """Call Snakemake, and compare what it did with what was to do; runs of the numbers `crash` fail if trained."""
        before = self.state()
        runs = before["runs"]
        crash = {list(runs)[number % len(runs)] for number in crash}
        train = {run for run, is_ in runs.items() if not is_["trained"]}
        evaluate = {run for run, is_ in runs.items() if not is_["evaluated"]} | train
        aggregate = bool(evaluate or not before["indexed"] or not before["tabled"])
        crash &= train
        status, trace = self.snakemake(crash=sorted(crash))
        after, did = self.state(), Counter(event for event, _ in trace)
        names = {event: Counter(what for name, what in trace if name == event) for event in ("trained", "evaluated")}
        assert (status == 0) == (not crash), f"exit status {status}\n{self.output()}"
        assert after["indexed"] == (not crash), f"exit status {status}, but the index is not there\n{self.output()}"
        assert names["trained"] == Counter(train - crash), self.output()
        assert names["evaluated"] == Counter(runs[run]["evaluation"] for run in evaluate - crash), self.output()
        assert did["aggregated"] == (len(runs) > len(crash) if crash else aggregate), self.output()
        done = {run: is_ for run, is_ in after["runs"].items() if run not in crash}
        assert all(is_["trained"] and is_["evaluated"] and is_["right"] for is_ in done.values()), after
        if not crash:
            assert after["listed"] and after["tabled"] and after["right"], after
        if not evaluate:
            assert set(did) <= {"aggregate", "unindexed", "nearly-aggregated", "aggregated"}, did

    def idle(self) -> None:
        """A dry run of a study that is done says so."""
        status, trace = self.snakemake("-n")
        assert (status, trace) == (0, []) and "Nothing to be done" in self.output(), self.output()


class Repository(Sequence):
    """The same in a repository, by `dvc repro`."""

    def __init__(self, server: Server, base: dict):
        super().__init__(server, base)
        repository.make(self.folder)

    def snakemake(self, *arguments: str, **faults) -> tuple[int, list[list[str]]]:
        if arguments:
            return super().snakemake(*arguments, **faults)
        self.calls += 1
        self.call = self.folder / ".calls" / str(self.calls)
        self.call.mkdir(parents=True)
        (self.call / "faults.json").write_text(json.dumps(faults))
        environment = repository.environment(self.folder)
        environment |= {"STANDIN_CALL": str(self.call)}
        environment["PATH"] = os.pathsep.join([str(self.server.folder / "stub"), environment["PATH"]])
        with (self.call / "output").open("a") as output:
            status = subprocess.run(
                [sys.executable, "-m", "dvc", "repro"],
                cwd=self.folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        trace = (self.call / "trace").read_text() if (self.call / "trace").exists() else ""
        return status, [line.split() for line in trace.splitlines()]


def through(folder: Sequence, study: dict, steps: list[tuple]) -> None:
    """Take a folder through a sequence; every call but those that are killed is checked."""
    folder.write(study)
    for what, *how in [*steps, ("end",)]:
        if what == "kill":
            folder.snakemake(kill=how[0])
            continue
        folder.check(how[0] if what == "crash" else ())
        if what == "study":
            folder.write(*how)
        elif what == "damage":
            for damage in how[0]:
                folder.damage(*damage)
    folder.idle()
