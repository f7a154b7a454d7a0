"""MLflow's UI as `make ui` opens it, driven in a real browser."""

import re
import signal
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, quote, urlsplit

import pandas as pd
import pytest

from pipeline_src.tracking import ui
from tests.browser import chromium, keep
from tests.tracking.study import command, environment, finish, planned, results, row, until
from tests.workflow.small import ROOT

SLOW = 120_000  # ms, on a machine that does much else


@contextmanager
def shown():
    """`python -m pipeline_src ui`: {table, charts: address}."""
    process = subprocess.Popen(
        command("ui"), env=environment(None), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        addresses = {}
        for line in process.stdout:
            if found := re.match(r"(table|charts|report): +((http|file)\S+)", line):
                addresses[found[1]] = found[2]
            if len(addresses) == 3:
                break
        assert list(addresses) == ["table", "charts", "report"], "the table first"
        yield addresses
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)


@pytest.fixture
def study(folder):
    """A finished study of two cells with two seeds."""
    plan = planned({"study": {"seeds": [0, 1]}})
    for i, run in enumerate(plan.runs):
        epochs = [
            {
                "val_accuracy": (e + i) / 12,
                "val_accuracy/audio": e / 10,
                "ratio/audio": 1 + e / 9,
                "coefficient/audio": 0.5,
            }
            for e in range(8)
        ]
        finish(
            run,
            [
                row(e, attempt=i, **{**one, "val_accuracy/visual": e / 14, "coefficient/visual": 1.0})
                for e, one in enumerate(epochs)
            ],
        )
    results(plan)
    return plan


def test_the_grid_can_be_read(study):
    metrics = pd.read_parquet("results/studies/params/metrics.parquet").query(
        "split == 'test' and metric == 'accuracy'"
    )
    with chromium() as browser, shown() as addresses:
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(SLOW)
        # The UI opens its assistant on a first visit; this browser has been here before.
        page.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
        page.goto(addresses["table"])
        page.get_by_text("4 matching runs").wait_for()  # the summary is not among them
        for run in study.runs:
            page.get_by_role("link", name=run.label).wait_for()
        for method, own in metrics.groupby("method"):
            (fp,) = {run.cell.fp for run in study.runs if run.cell.method == method}
            page.get_by_text(f"Group: av_digits/concat/{method}-{fp}", exact=True).wait_for()
            for value in own.value:
                page.get_by_text(f"{round(value, 5)}", exact=True).first.wait_for()
        page.get_by_text("0.01", exact=True).first.wait_for()  # the gain, of 0.7600000000000001 less 0.75
        keep(page, "mlflow-table")

        page.goto(addresses["charts"])
        for title in (
            "Test accuracy of the selected epoch",
            "Accuracy on val by epoch",
            "Ratio by epoch",
            "Coefficient by epoch",
        ):
            page.get_by_text(title).wait_for()
        page.locator(".js-plotly-plot .barlayer .trace").first.wait_for()
        page.locator(".js-plotly-plot .scatterlayer .trace .point").first.wait_for(state="attached")
        keep(page, "mlflow-charts")


def test_the_reports_links_lead_to_their_runs(study):
    """`report.js.j2` makes the addresses that are opened here; a tag's value is the folder that a row links to."""
    run = study.runs[-1]
    with chromium() as browser, shown() as addresses:
        experiment = parse_qs(urlsplit(addresses["report"]).query)["mlflow"][0]
        assert addresses["table"].startswith(f"{experiment}/runs?")
        folders = {run.folder.as_posix(): "1 matching run", run.cell.folder.as_posix(): "2 matching runs"}
        links = "".join(f'<a href="#" data-folder="{folder}">{folder}</a>' for folder in folders)
        script = (ROOT / "pipeline_src/reports/report.js.j2").read_text()
        Path("page.html").write_text(f"<body>{links}<script>{script}</script>")
        for i, said in enumerate(folders.values()):
            page = browser.new_page(viewport={"width": 1500, "height": 950})
            page.set_default_timeout(SLOW)
            page.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
            page.goto(f"{Path('page.html').absolute().as_uri()}?mlflow={quote(experiment, safe='')}")
            page.locator("a.mlflow").nth(i).click()
            page.get_by_text(said, exact=True).wait_for()
            page.close()


def test_a_taken_port_is_said_and_without_a_wish_the_next_is_used(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Exception, match=f"127.0.0.1: expected port {port} to be free, but it is taken"):
            ui._port(port)
        monkeypatch.setattr(ui, "PORTS", range(port, port + 20))
        assert ui._port(None) > port


def test_the_view_names_what_the_mirror_writes(study):
    from pipeline_src.tracking import view

    run = next(run for run in study.runs if run.cell.method == "ogm_ge")
    one = view.read(run, view.baselines(study)[run.folder])
    written = set(one.final) | {name for _, _, metrics in one.epochs for name in metrics}
    state = ui.view_state(study)
    assert {chart["metricKey"] for chart in state["compareRunCharts"]} - written <= set()
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == {
        section["uuid"] for section in state["compareRunSections"]
    }
    assert state["groupBy"]["groupByKeys"][0]["groupByData"] in one.tags


def test_the_server_ends_with_the_command(study):
    with shown() as addresses:
        port = int(re.search(r":(\d+)/", addresses["table"])[1])
    until(lambda: _free(port), "the server outlived `ui`")


@pytest.mark.parametrize("uri", ["http://me:hunter2@127.0.0.1:9", "postgresql://me:hunter2@127.0.0.1:9/runs"])
def test_the_password_of_a_store_is_neither_printed_nor_among_the_arguments_of_the_server(
    monkeypatch, capsys, tmp_path, uri
):
    started = []

    class Server:
        pid = 2**22 + 1  # no process

        def __init__(self, command, env, **_):
            started.append((command, env["MLFLOW_BACKEND_STORE_URI"]))

        def wait(self):
            pass

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(ui, "prepare", lambda plan: "#/experiments/1/runs?workflowType=machine_learning")
    monkeypatch.setattr(ui, "_wait", lambda server, port: None)
    monkeypatch.setattr(ui.subprocess, "Popen", Server)
    monkeypatch.setattr(ui.signal, "signal", lambda *_: None)
    (tmp_path / "report.html").touch()
    ui.serve(SimpleNamespace(results=tmp_path), None)
    shown = capsys.readouterr()
    assert "/#/experiments/1" in shown.out and "hunter2" not in shown.out + shown.err
    assert [given for _, given in started] == [uri] * uri.startswith("postgresql")
    assert all("hunter2" not in " ".join(command) for command, _ in started)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
