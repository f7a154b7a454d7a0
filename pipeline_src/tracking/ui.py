"""MLflow's own UI, on this machine alone, with a view of the study that is prepared here.

MLflow keeps shared views as tags of the experiment, `mlflow.sharedViewState.<key>`, and its UI shows the one that the
address names as `viewStateShareKey`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pipeline_src.core.errors import UserError, concealed
from pipeline_src.reports import declared
from pipeline_src.reports.scores import BASELINE
from pipeline_src.reports.wording import capital
from pipeline_src.tracking import follow, store
from pipeline_src.tracking.view import MEMBER, study_tag

if TYPE_CHECKING:
    from pipeline_src.study.plan import Plan

HOST = "127.0.0.1"
PORTS = range(5000, 5100)
SHOWN = 20  # groups in a chart
START = 120.0  # seconds that the server may take to answer


def view_state(plan: Plan) -> dict[str, Any]:
    """The state of MLflow's page of runs: cells (seeds folded), test scores, and charts of what is declared."""
    modalities = list(dict.fromkeys(m for data in plan.datasets.values() for m in data.extractors))
    primaries = list(dict.fromkeys(declared.primary(data.dataset.task) for data in plan.datasets.values()))
    probes = {one: [f"{one.view('probe')}_{m}" for m in modalities] for one in primaries}
    scores = [name for one in primaries for name in (one.score, one.gain, *probes[one])]
    metrics = [*(f"test/{name}" for name in scores), "run/seconds"]
    columns = [f"metrics.`{name}`" for name in metrics]
    sections: dict[str, list[tuple[str, str, str]]] = {}
    for one in primaries:
        sections[f"Test {one.metric.label} of the selected epoch"] = [
            ("BAR", f"test/{one.score}", "fused model"),
            ("BAR", f"test/{one.gain}", f"fused model, less {BASELINE} with the same fusion and seed"),
            *(("BAR", f"test/{one.view('probe')}_{m}", f"{m}: linear probe") for m in modalities),
        ]
        sections[f"{capital(one.metric.label)} on val by epoch"] = [
            ("LINE", f"val/{one.score}", "fused model"),
            *(("LINE", f"val/{one.score}_{m}", f"{m}: unimodal logits") for m in modalities),
        ]
    sections |= {
        f"{declared.heading(quantity.name)} by epoch": [
            *([("LINE", f"train/{quantity.name}", quantity.caption)] if quantity.of != "modality" else []),
            *(
                ("LINE", f"{quantity.name}/{m}", f"{m}: {quantity.caption}")
                for m in modalities
                if quantity.of != "model"
            ),
        ]
        for quantity in declared.compared(plan)
    }
    return {
        "searchFilter": f"tags.kind = 'run' AND tags.`{study_tag(plan)}` = '{MEMBER}'",
        "orderByKey": columns[0],
        "orderByAsc": not primaries[0].metric.higher,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": ["attributes.`Run Name`", *columns],
        "columnWidths": {"attributes.`Run Name`": 420} | dict.fromkeys(columns, 190),
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "group"}]},
        "runsHiddenMode": "SHOW_ALL",
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "isAccordionReordered": True,  # else sections stand in the order of the alphabet
        "compareRunSections": [
            {"uuid": f"section{i}", "name": name, "display": True, "isReordered": False, "deleted": False}
            | {"isGenerated": False, "columns": len(charts)}
            for i, (name, charts) in enumerate(sections.items())
        ],
        "compareRunCharts": [
            {"uuid": f"chart{i}-{j}", "type": kind, "metricSectionId": f"section{i}", "metricKey": key}
            | {"displayName": title, "runsCountToCompare": SHOWN, "deleted": False, "isGenerated": False}
            | ({"selectedMetricKeys": [key], "xAxisKey": "step"} if kind == "LINE" else {})
            for i, charts in enumerate(sections.values())
            for j, (kind, key, title) in enumerate(charts)
        ],
    }


def prepare(plan: Plan) -> str:
    """Bring MLflow up to date, store the view, and return its address after that of the server."""
    follow.track(plan)
    opened = store.Store(store.uri(), plan.params.tracking.experiment)
    key = plan.results.name
    state = json.dumps(view_state(plan), separators=(",", ":"))
    opened.client.set_experiment_tag(opened.experiment, f"mlflow.sharedViewState.{key}", state)
    return f"#/experiments/{opened.experiment}/runs?workflowType=machine_learning&viewStateShareKey={key}"


def serve(plan: Plan, port: int | None) -> None:
    """Run MLflow's server until Ctrl-C, and print the addresses of the view; only those if a server runs already."""
    view, uri = prepare(plan), store.uri()
    if uri.startswith(("http://", "https://")):
        _print(plan, uri.rstrip("/"), view)
        return
    port = _port(port)
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    if uri.startswith(store.SQLITE):
        folder = Path(uri.removeprefix(store.SQLITE)).parent
        command += ["--artifacts-destination", str(folder / store.ARTIFACTS)]
    # Not among the arguments, which everybody on this machine can list: the address may hold a password.
    environment = {**store.settings(), **os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        _wait(server, port)
        _print(plan, f"http://{HOST}:{port}", view)
        server.wait()
    except KeyboardInterrupt:
        pass
    finally:  # the server has workers; all of them are in its session
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)


def _print(plan: Plan, server: str, view: str) -> None:
    server = concealed(server)
    print(f"table:  {server}/{view}")
    print(f"charts: {server}/{view}&compareRunsMode=CHART", flush=True)
    report = plan.results / "report.html"
    if report.exists():
        experiment = quote(f"{server}/{view.partition('/runs')[0]}", safe="")
        print(f"report: {report.absolute().as_uri()}?mlflow={experiment}", flush=True)


def _port(wanted: int | None) -> int:
    """`wanted`, or the first free port. Raises UserError if there is none."""
    for port in PORTS if wanted is None else [wanted]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return port
    found = f"port {wanted}" if wanted else f"any of the ports {PORTS[0]} to {PORTS[-1]}"
    raise UserError(
        f"{HOST}: expected {found} to be free, but it is taken; name another with --port (PORT=... of make)"
    )


def _wait(server: subprocess.Popen, port: int) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5):
            return
        time.sleep(0.2)
    raise UserError(
        f"http://{HOST}:{port}: expected MLflow's server to answer, but got that it does not; see above why"
    )
