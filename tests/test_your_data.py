"""The steps of docs/your-data.md, with the files that it generates, tiny encoders, two epochs and two seeds: a folder
of sounds and pictures becomes a report.
"""

import json
import re
from pathlib import Path

import pytest

from pipeline_src import cli
from pipeline_src.study.plan import Plan

PAGE = (Path(__file__).parents[1] / "docs/your-data.md").read_text(encoding="utf-8")
SMALLER = {
    "epochs: 20": "epochs: 2",
    "lr_step: 14": "lr_step: 2",
    "seeds: [0, 1, 2]": "seeds: [0, 1]",
    "width: 16, depth: [1, 1, 1, 1]": "width: 4, depth: [1, 1]",
    "methods: [joint, joint_unimodal, ogm_ge, opm]": "methods: [joint, ogm_ge]",
}


def _run(*arguments: str) -> None:
    assert cli.main([*arguments]) == 0, arguments


def test_a_folder_of_files_becomes_a_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], "docs/your-data.md", "exec"), {})
    assert len([*Path("media/mine").iterdir()]) == 121
    lines = re.findall(r"^ {7}counterpoise (.*)$", PAGE, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["new", "check"]
    for line in lines:
        _run(*line.split())
    assert "ready     60 clips, 0 quarantined" in capsys.readouterr().out
    text = Path("mine.yaml").read_text()
    for shipped, smaller in SMALLER.items():
        assert shipped in text
        text = text.replace(shipped, smaller)
    Path("mine.yaml").write_text(text)
    plan = Plan("mine.yaml")
    for stage in ("manifest", "extract", "cache"):
        _run(stage, "--params", "mine.yaml", *(str(path) for path, _ in plan.places(stage)))
    for cell in plan.cells:
        runs = [str(run.metrics) for run in plan.runs if run.cell is cell]
        _run("train", "--params", "mine.yaml", *runs)
    _run("aggregate", "--params", "mine.yaml")
    report = (plan.results / "report.html").read_text(encoding="utf-8")
    assert "20% of the samples were cut off as test by seed 0" in re.sub(r"\s+", " ", report)
    assert "recording" in report and "photo" in report
    scores = [json.loads(run.metrics.read_text()) for run in plan.runs]
    assert len(scores) == 8


@pytest.mark.parametrize("page", ["README.md", "docs/data.md"])
def test_the_page_is_linked(page):
    assert "your-data.md" in (Path(__file__).parents[1] / page).read_text(encoding="utf-8")
