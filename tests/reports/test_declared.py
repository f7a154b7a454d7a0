"""What a method declares is drawn everywhere, with its caption and without another edit; figures are plug-ins."""

import html
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.methods.base import Quantity, methods
from pipeline_src.reports import declared
from pipeline_src.reports.aggregate import aggregate
from pipeline_src.reports.figures.base import GRID, PLACES, figures
from pipeline_src.study.runs import write_record
from pipeline_src.tracking import ui, view
from tests.reports import plugged
from tests.reports.study import Study, epochs, record

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(*others, key="gentleness/{m}"):
    """A study of a method that logs `gentleness`, and of others that do as well."""
    study = Study(methods=("joint", "gentle", *others))
    study.write_all()
    for run in study.runs:
        if run.cell.method in ("gentle", *others):
            rows = [row | {key.format(m=m): 3.0 + run.seed for m in ("audio", "visual")} for row in epochs(run)]
            rows = [row | {"secret/audio": 1.0, "undeclared/audio": 1.0} for row in rows]
            files.write_text(run.folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
            write_record(run.folder, record(run))  # which holds the checksum
    return study


def page():
    return Path("results/report.html").read_text(encoding="utf-8")


def captions():
    return [html.unescape(text) for text in re.findall(r"<figcaption>(.*?)</figcaption>", page(), flags=re.DOTALL)]


def test_a_new_method_is_drawn_in_the_report_with_its_caption(folder, monkeypatch):
    plugged.method(monkeypatch)
    aggregate(written())
    said = "Gentleness, in strokes: How gently <m> is treated; 3 & more is gentle."
    (caption,) = [text for text in captions() if "Gentleness" in text]
    assert caption.endswith(said)
    assert "gentle: Gentleness" in page() and "How gently <m>" not in page(), "escaped"
    drawn = Path("results/figures/own-quantities-av_digits-concat.svg").read_text()
    assert "strokes" in drawn and "Gentleness" in drawn
    assert "secret" not in page().lower() and "undeclared" not in page().lower()


def test_methods_that_log_the_same_are_drawn_side_by_side(folder, monkeypatch):
    plugged.method(monkeypatch)
    plugged.method(monkeypatch, "rough")
    aggregate(written("rough"))
    drawn = Path("results/figures/quantities-av_digits-concat.svg").read_text()
    assert "Gentleness, audio" in drawn and "Gentleness, visual" in drawn
    assert sum("Gentleness" in text for text in captions()) == 1
    plugged.method(monkeypatch, "rough", caption="How roughly it is treated.")
    aggregate(written("rough"))
    (caption,) = [text for text in captions() if "Gentleness" in text]
    assert "Of gentle, Gentleness, in strokes: How gently" in caption
    assert "Of rough, Gentleness, in strokes: How roughly it is treated." in caption


def test_a_quantity_of_the_model_is_drawn_too(folder, monkeypatch):
    plugged.method(monkeypatch, of="model")
    study = written(key="gentleness")
    aggregate(study)
    assert "Gentleness" in Path("results/figures/own-quantities-av_digits-concat.svg").read_text()
    assert "train/gentleness" in {chart["metricKey"] for chart in ui.view_state(study)["compareRunCharts"]}


def test_a_new_method_is_in_mlflow_with_its_caption(folder, monkeypatch):
    found = plugged.method(monkeypatch)
    study = written()
    state = ui.view_state(study)
    charts = {chart["metricKey"]: chart["displayName"] for chart in state["compareRunCharts"]}
    assert charts["gentleness/audio"] == f"audio: {found.caption}"
    assert "Gentleness by epoch" in {section["name"] for section in state["compareRunSections"]}
    assert "secret/audio" not in charts
    one = view.read(study.run("gentle", 0))
    assert found.caption in one.tags["mlflow.note.content"]
    assert one.epochs[0][2]["gentleness/audio"] == 3.0
    assert "mlflow.note.content" not in view.read(study.run("joint", 0)).tags


def test_a_new_method_is_in_dvcs_plots_with_its_caption(folder, monkeypatch):
    plugged.method(monkeypatch)
    aggregate(written())
    history = pd.read_csv("results/history.csv", keep_default_na=False)
    template = (ROOT / ".dvc/plots/methods.json").read_text()
    (condition,) = [step["filter"] for step in json.loads(template)["transform"] if "filter" in step]
    assert condition == "datum.fusion != 'none' && datum.caption", "which rows the plot draws"
    drawn = history[(history.fusion != "none") & (history.caption != "")]
    assert set(drawn.metric) == {"gentleness"}
    assert set(drawn.caption) == {"Gentleness, in strokes: How gently <m> is treated; 3 & more is gentle."}
    assert "datum.caption" in str([step.get("calculate") for step in json.loads(template)["transform"]])


def test_no_name_of_a_methods_quantity_is_written_in_reports_tracking_or_plots():
    names = {quantity.name for name in methods for quantity in methods[name].quantities}
    texts = [*(ROOT / "pipeline_src/reports").rglob("*.py"), *(ROOT / "pipeline_src/tracking").glob("*.py")]
    texts += [*(ROOT / "pipeline_src/reports").glob("*.j2"), *(ROOT / ".dvc/plots").glob("*.json")]
    listed = {(file.name, name) for file in texts for name in names if re.search(rf"['\"]{name}\b", file.read_text())}
    assert listed == set()


@pytest.mark.parametrize("name", list(methods))
def test_declarations_are_whole_sentences(name):
    for quantity in methods[name].quantities:
        assert re.fullmatch(r"[A-Z].{15,}[a-z]\.|[A-Z].{15,}\.", quantity.caption), quantity
        assert quantity.limits is None or quantity.limits[0] < quantity.limits[1]
    names = [quantity.name for quantity in methods[name].quantities]
    assert len(set(names)) == len(names)


def test_a_pure_number_has_no_unit_in_its_sentence():
    assert declared.sentence(Quantity("a_b", "", "It is c.")) == "A b: It is c."


def test_a_users_figure_is_in_the_report(folder, monkeypatch):
    plugged.figure(monkeypatch, needs=("histories", "accuracy"))
    aggregate(written())
    assert "My own figure" in page() and "It shows nothing." in captions()
    assert Path("results/figures/mine-av_digits.svg").exists()
    assert page().index("My own figure") < page().index("Contribution of each modality"), "by its order"


def test_a_figure_is_left_out_where_its_needs_are_not_met(folder, monkeypatch):
    plugged.figure(monkeypatch, needs=("histories", "saliency"))
    aggregate(written())
    assert "My own figure" not in page() and not Path("results/figures/mine-av_digits.svg").exists()
    assert "mine (needs saliency)" in page()


def test_two_drawings_of_one_name_are_an_error(folder, monkeypatch):
    plugged.figure(monkeypatch)
    plugged.figure(monkeypatch, name="other")
    with pytest.raises(UserError, match="figure 'other': expected a drawing with a name of its own, but got 'mine-av"):
        aggregate(written())


def test_an_unknown_place_is_an_error(folder, monkeypatch):
    plugged.figure(monkeypatch, place="cellar")
    with pytest.raises(UserError, match=r"figure 'mine': expected a place of answer, .*, but got 'cellar'"):
        aggregate(written())


def test_every_figure_says_where_it_belongs_and_what_it_needs():
    assert set(figures) >= {"gains", "learning", "quantities", "own_quantities", "contributions", "examples"}
    for name in figures:
        assert figures.facts(name)["place"] in (*PLACES, GRID)
        assert figures.facts(name)["needs"], name
        assert figures.module(name).rpartition(".")[2] == name, "a file per figure"


def test_the_figure_of_the_guide_is_drawn(folder, monkeypatch):
    text = (ROOT / "docs/figures-how-to.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.setattr(figures, "_loaded", dict(figures._loaded))
    facts = {"place": "views", "order": 50, "needs": ("accuracy", "macro_f1")}
    assert 'place="views", order=50, needs=("accuracy", "macro_f1")' in code
    monkeypatch.setitem(figures.entries, "rare_classes", ("docs", facts))
    exec(compile(code, "figures-how-to.md", "exec"), {"__name__": "docs"})
    plugged.method(monkeypatch)
    aggregate(written())
    assert "Mean over seeds. On the line, macro-F1 equals accuracy." in captions()
    assert Path("results/figures/rare-classes-av_digits-concat.svg").exists()
