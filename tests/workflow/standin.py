"""Snakemake with training replaced: real Snakemake, Snakefile, shell and command line; stages write small files only.

A server that has imported them forks for every call and every job, so that a call costs a fraction of a second.

    python tests/workflow/standin.py FOLDER PARAMS     prints its port; FOLDER gets its clients `python` and `snakemake`

A job appends what it does to the call's `trace`, an event a line. Before the event whose number is `kill` in the call's
`faults.json`, the call and its jobs are killed; the training of a run in a folder of `crash` fails.
"""

import json
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType

CLIENT = """#!/bin/bash
exec 3<>/dev/tcp/127.0.0.1/{port} || exit 97
printf '%s\\0' "$PWD" "$STANDIN_CALL" {first}"$@" >&3
printf '\\4' >&3
IFS= read -r status <&3
cat <&3
exit "$status"
"""


def event(name: str, what: object = "") -> None:
    """Note what a job does; or end the call, as the kernel would, if its faults say that it ends here."""
    call = Path(os.environ["STANDIN_CALL"])
    faults = json.loads((call / "faults.json").read_text())
    with (call / "trace").open("a+") as file:
        file.seek(0)
        number = len(file.readlines())
        if faults.get("kill") == number:
            os.killpg(int((call / "group").read_text()), signal.SIGKILL)
        print(name, what, file=file)


# The stages: what the real ones write, in their order, with contents that can be computed from the plan.


def content(run, what: str) -> str:
    return f"{what} of {run.folder}\n"


def cache_files(data) -> list[Path]:
    return [data.cache / "cache.json", *(stem.with_suffix(".arrow") for stem in data.shards)]


def train(runs: list, params, started=None, planned=None) -> None:
    from pipeline_src.core import files
    from pipeline_src.core.errors import UserError

    crash = json.loads((Path(os.environ["STANDIN_CALL"]) / "faults.json").read_text()).get("crash", [])
    for run in runs:
        if run.record.exists():
            continue
        data = run.cell.data
        if not all(
            file.exists()
            for file in [data.cache / "cache.json", *(f"{s}.arrow" for s in data.shards)]
            if isinstance(file, Path)
        ):
            raise UserError(f"{data.cache}: expected a cache, but got none")
        event("train", run.folder)
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "metrics.jsonl").write_text("{}\n")
        if str(run.folder) in crash:
            raise UserError(f"{run.folder}: crashed, as asked")
        event("half-trained", run.folder)
        files.write_text(run.folder / "weights.safetensors", content(run, "weights"))
        files.write_text(run.folder / "metrics.jsonl", content(run, "history"))
        event("nearly-trained", run.folder)
        files.write_json(run.record, {"status": "complete", "run": str(run.folder)})
        event("trained", run.folder)


def evaluate(runs: list, params) -> None:
    from pipeline_src.core import files
    from pipeline_src.core.errors import UserError

    for run in runs:
        if all(file.exists() for file in run.evaluate_files):
            continue
        event("evaluate", run.evaluation)
        if not (run.folder / "weights.safetensors").exists():
            raise UserError(f"{run.folder}: expected weights, but got none")
        files.write_text(run.evaluation / "predictions.parquet", content(run, "predictions"))
        event("nearly-evaluated", run.evaluation)
        files.write_json(run.metrics, {"names": run.names, "metrics": content(run, "metrics")})
        event("evaluated", run.evaluation)


def table(plan) -> str:
    """The study's table: every run with what was measured."""
    from pipeline_src.core import files

    there = [run for run in plan.runs if run.metrics.exists() and run.record.exists()]
    return "".join(f"{run.label}: {files.read_json(run.metrics)['metrics']}" for run in there)


def aggregate(plan) -> None:
    from pipeline_src.core import files

    event("aggregate", plan.index)
    text, results = table(plan), plan.results
    for old in plan.index.parent.glob("index-*.json"):
        old.unlink()
    event("unindexed", plan.index)
    for name in (
        "metrics.parquet",
        "history.csv",
        "report.html",
        *(f"tables/accuracy.{k}" for k in ("csv", "md", "tex")),
    ):
        files.write_text(results / name, text)
    for cell in plan.rows:
        files.write_text(results / "metrics" / f"{cell.place}.json", "{}")
    files.write_text(results / "figures" / "accuracy-all.svg", text)
    event("nearly-aggregated", plan.index)
    missing = [run for run in plan.runs if not (run.metrics.exists() and run.record.exists())]
    target = plan.index.with_name("index-incomplete.json") if missing else plan.index
    runs = [str(run.folder) for run in plan.runs]
    files.write_json(target, {"params": str(plan.file), "runs": runs, "files": ["figures/accuracy-all.svg"]})
    event("aggregated", target)


def fetch(data) -> None:
    from pipeline_src.core import files

    event("fetch", data.raw)
    with files.whole(data.raw) as folder:
        folder.mkdir(parents=True)
        files.write_sealed(folder / files.FILES, {})
    event("fetched", data.raw)


def make(data, processes=1) -> None:
    _write("manifest", data.manifest / "quarantine.parquet", data.manifest / "manifest.parquet")


def extract(data, index: int) -> None:
    stem = data.shards[index]
    _write("extract", stem.with_suffix(".quarantine.parquet"), stem.with_suffix(".arrow"))


def pack(data) -> None:
    _write("cache", data.cache / "quarantine.parquet", data.cache / "cache.json")


def _write(stage: str, *paths: Path) -> None:
    from pipeline_src.core import files

    event(stage, paths[-1])
    for path in paths:
        files.write_text(path, "{}")
    event(f"{stage}-done", paths[-1])


STANDINS = {
    "pipeline_src.training.run": (train,),
    "pipeline_src.evaluation.run": (evaluate,),
    "pipeline_src.reports.aggregate": (aggregate,),
    "pipeline_src.datasets.fetch": (fetch,),
    "pipeline_src.datasets.manifest": (make,),
    "pipeline_src.features.build": (extract, pack),
}


# What the server does for a client, each in a process of its own.


def state(file: str) -> dict:
    """What the plan of a params file says and which of it is there."""
    from pipeline_src.study.plan import Plan

    plan = Plan(file)
    runs = {}
    for run in plan.runs:
        right = {
            run.folder / "weights.safetensors": content(run, "weights"),
            run.folder / "metrics.jsonl": content(run, "history"),
            run.evaluation / "predictions.parquet": content(run, "predictions"),
        }
        runs[str(run.folder)] = {
            "trained": all(path.exists() for path in run.train_files),
            "evaluated": all(path.exists() for path in run.evaluate_files),
            "right": all(path.exists() and path.read_text() == text for path, text in right.items()),
            "evaluation": str(run.evaluation),
            "record": str(run.record),
            "files": [str(path) for path in (*run.train_files, *run.evaluate_files)],
        }
    names = ["metrics.parquet", "history.csv", "report.html", "figures/accuracy-all.svg"]
    tables = [plan.results / name for name in names] + [
        plan.results / f"tables/accuracy.{k}" for k in ("csv", "md", "tex")
    ]
    index = json.loads(plan.index.read_text()) if plan.index.exists() else None
    cells = [plan.results / "metrics" / f"{cell.place}.json" for cell in plan.rows]
    return {
        "runs": runs,
        "index": str(plan.index),
        "results": str(plan.results),
        "indexed": index is not None,
        "listed": index and index["runs"] == list(runs),
        "tabled": all(path.exists() for path in (*tables, *cells)),
        "right": all(path.exists() and path.read_text() == table(plan) for path in tables),
        "data": {
            stage: [[str(path) for path in job] for job in plan.jobs(stage)]
            for stage in ("fetch", "manifest", "extract", "cache")
        },
    }


def call(folder: str, call_folder: str, arguments: list[str], stub: Path) -> int:
    """Snakemake, in a group of processes of its own; its exit status, or minus the signal that ended it."""
    place = Path(call_folder)
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        (place / "group").write_text(str(os.getpid()))
        os.environ.update(STANDIN_CALL=call_folder, COUNTERPOISE_WARM="off")  # these jobs start at once as they are
        sys.executable = str(stub / "python")  # the Snakefile puts its folder before all others
        output = os.open(place / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1), os.dup2(output, 2)
        os.chdir(folder)
        _exit(lambda: import_module("snakemake.cli").main(arguments))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _exit(main) -> None:
    """End this process with what `main` returns or exits with."""
    status = 1
    try:
        value = main()
        status = value if isinstance(value, int) else 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1 if error.code else 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(status)


def serve(connection: socket.socket, stub: Path) -> None:
    """Answer one request, in a process of its own."""
    request = b""
    while not request.endswith(b"\4"):
        part = connection.recv(65536)
        if not part:  # the client was killed before it had said what it wants
            return
        request += part
    folder, call_folder, *arguments = request[:-2].decode().split("\0")
    if arguments[0] == "state":
        os.chdir(folder)
        connection.sendall(json.dumps(state(arguments[1])).encode())
        return
    if arguments[0] == "snakemake":
        connection.sendall(f"{call(folder, call_folder, arguments[1:], stub)}\n".encode())
        return
    place = Path(call_folder)
    os.environ["STANDIN_CALL"] = call_folder
    pid = os.fork()
    if not pid:
        with suppress(OSError):  # a command of DVC's, beside Snakemake
            os.setpgid(0, int((place / "group").read_text()))
        output = os.open(place / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1), os.dup2(output, 2)
        os.chdir(folder)
        from pipeline_src import cli

        assert arguments[:2] == ["-m", "pipeline_src"], arguments
        _exit(lambda: cli.main(arguments[2:]))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    connection.sendall(f"{status if status >= 0 else 128 - status}\n".encode())


def main() -> None:
    stub = Path(sys.argv[1])
    for name in ("snakemake.cli", "pipeline_src.cli", "pipeline_src.tracking.beside"):
        import_module(name)
    import_module("snakemake.cli").get_argument_parser()  # finds all plug-ins
    from pipeline_src.study.plan import Plan

    for name, functions in STANDINS.items():
        module = sys.modules[name] = ModuleType(name)
        for function in functions:
            setattr(module, function.__name__, function)
    assert Plan(sys.argv[2]).index  # digests of code are computed once
    server = socket.create_server(("127.0.0.1", 0), backlog=64)
    for name, first in {"python": "", "snakemake": "snakemake "}.items():
        (stub / name).write_text(CLIENT.format(port=server.getsockname()[1], first=first))
        (stub / name).chmod(0o755)
    print(server.getsockname()[1], flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    parent = os.getppid()
    server.settimeout(1.0)
    while os.getppid() == parent:
        try:
            connection, _ = server.accept()
        except TimeoutError:
            continue
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            server.close()
            connection.settimeout(None)
            _exit(partial(serve, connection, stub))
        connection.close()


if __name__ == "__main__":
    main()
