"""The pages of `dvc plots` in a real browser, which may not ask anybody for anything."""

import shutil

import pandas as pd
import pytest

from pipeline_src.reports.summaries import HISTORY
from tests.browser import chromium, keep
from tests.workflow.repository import ROOT, commit, run

PLACE = "results/studies/params/history.csv"

DRAWN = "() => [...document.querySelectorAll('.vega-embed canvas, .vega-embed svg')].map(one => one.clientWidth)"


@pytest.fixture
def study(tmp_path):
    """A repository with DVC's settings of the project, and a history of two methods and two modalities."""
    folder = tmp_path / "study"
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "config.local"))
    plots = (ROOT / "dvc.yaml").read_text().partition("\nplots:")[2]
    (folder / "dvc.yaml").write_text(f"plots:{plots}")
    run(folder, "git", "init", "--quiet", "--initial-branch", "main")
    for shift in (0.0, 0.1):
        rows = [
            ("digits", "concat", method, modality, metric, epoch, epoch / 10 + shift, caption)
            for method in ("joint", "ogm")
            for modality in ("fused", "audio", "visual")
            for metric, caption in (("val_accuracy", ""), ("ratio", "Ratio: of scores."))
            for epoch in (1, 2, 3)
        ]
        (folder / PLACE).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows, columns=HISTORY).to_csv(folder / PLACE, index=False)
        if not shift:
            commit(folder, "Before")
    return folder


@pytest.mark.parametrize("command", [["show"], ["diff", "HEAD"]], ids=" ".join)
def test_they_draw_offline(study, command):
    run(study, "dvc", "plots", *command, "--out", "pages")
    with chromium() as browser:
        context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
        page, said, asked = context.new_page(), [], []
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda one: asked.append(one.url))
        page.goto((study / "pages/index.html").as_uri())
        page.wait_for_function(f"({DRAWN})().filter(width => width > 300).length === 2")
        assert said == [] and asked == [page.url]
        keep(page, f"dvc-plots-{command[0]}")
