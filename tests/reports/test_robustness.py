"""Robustness by hand-worked numbers: areas, late fusion, seeds that are missing; the table and the figure."""

import json
from dataclasses import replace
from functools import cached_property

import numpy as np
import pytest

from pipeline_src.core import files
from pipeline_src.corruptions.base import corruptions
from pipeline_src.reports import robustness
from pipeline_src.reports.figures.robustness import robustness as figure
from pipeline_src.reports.wording import NONE
from pipeline_src.study.runs import write_record
from tests.reports import study as written

RATES = [0.5, 2.0]
# Accuracy by method, at the rates 0, 0.5 and 2, with any modality corrupted; a hundredth more per seed.
CURVES = {
    "joint": (0.8, 0.7, 0.5),
    "ogm": (0.7, 0.65, 0.5),
    "audio-only": (0.6, 0.5, 0.2),
    "visual-only": (0.5, 0.4, 0.3),
}


class Corrupted(written.Study):
    """A study whose test samples were corrupted by noise."""

    skipped: tuple = ()  # methods and seeds without corrupted scores

    @cached_property
    def cells(self):
        asked = {"noise": corruptions["noise"].Params(rates=RATES)}
        how = written.EVALUATION.model_copy(update={"corruptions": asked})
        return [replace(cell, evaluation=how) for cell in super().cells]

    def write(self, run, accuracy, **modalities):
        clean, *spoiled = (value + run.seed / 100 for value in CURVES[run.cell.method])
        super().write(run, clean, **modalities)
        of = run.cell.spec.modalities
        rows = json.loads(run.metrics.read_text())["metrics"]
        for rate, value in zip(RATES, spoiled, strict=True):
            if (run.cell.method, run.seed) in self.skipped:
                continue
            for m in (*of, *(["fused"] if len(of) > 1 else [])):
                rows.append({"split": "corrupted", "modality": m, "metric": f"accuracy_noise_{rate:g}", "value": value})
        files.write_sealed(run.metrics, {"names": run.names, "metrics": rows})
        write_record(run.folder, written.record(run))


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return written.results_of(Corrupted(methods=("joint", "ogm")))


def test_area_is_the_mean_height_by_trapezoids():
    assert robustness.area([0.0, 0.5, 2.0], np.array([[0.8, 0.7, 0.5]])) == pytest.approx([(0.375 + 0.9) / 2])
    assert robustness.area([0.0, 1.0], np.array([[0.4, 0.4], [1.0, 0.0]])) == pytest.approx([0.4, 0.5])


def test_relative_and_effective_robustness(results):
    every = list(robustness.spoiled(results))
    assert [(one.corruption, one.modality, one.rates) for one in every] == [
        ("noise", of, [0.0, 0.5, 2.0]) for of in ("audio", "visual", "fused")
    ]
    one, cell = every[0], ("concat", "ogm")
    assert one.late == ("concat", "joint")
    assert one.relative(cell) == pytest.approx([(0.3375 + 0.8625) / 2 + seed / 100 for seed in range(3)])
    # From their clean scores ogm falls by 5 and 20 points, late fusion by 10 and 30.
    assert one.effective(cell) == pytest.approx([(0.0125 + 0.1125) / 2] * 3)
    assert one.effective(("concat", "joint")).size == 0
    assert set(one.scores) == {("none", "audio-only"), ("concat", "joint"), cell}
    assert set(every[2].scores) == {("concat", "joint"), cell}  # all together: models of several modalities alone


def test_the_table_names_what_is_corrupted_and_late_fusion(results):
    (table,) = robustness.tables(results)
    assert table.title == "Robustness to noise: av_digits (recipe av-digits-1)"
    assert table.columns == ["fusion", "method", "corrupted", "0", "0.5", "2", "relative", "effective"]
    rows = {tuple(str(e) for e in row[:3]): [str(e) for e in row[3:]] for row in table.rows}
    ogm = rows["concat", "ogm", "all"]
    assert ogm[:3] == ["71.0", "66.0", "51.0"]
    assert ogm[3].startswith("61.0 ± 1.0 [58.5, 63.5]") and ogm[4].startswith("+6.3 ± 0.0")
    assert rows["concat", "joint", "audio"][4] == NONE
    assert "late fusion (joint with concat)" in table.caption and "standard deviation, in those" in table.caption


def test_seeds_without_corrupted_scores_are_left_out_and_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = Corrupted(methods=("joint", "ogm"))
    plan.skipped = (("ogm", 1),)
    results = written.results_of(plan)
    one = next(robustness.spoiled(results))
    assert list(one.scores["concat", "ogm"].index) == [0, 2]
    assert len(one.effective(("concat", "ogm"))) == 2
    assert "(2 of 3 seeds)" in str(robustness.tables(results)[0].rows[2][-1])


def test_without_late_fusion_there_is_no_effective_robustness(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (table,) = robustness.tables(written.results_of(Corrupted(methods=("ogm",))))
    assert all(str(row[-1]) == NONE for row in table.rows)
    assert "needs late fusion, which the study lacks" in table.caption


def test_the_figure_has_a_panel_per_corrupted_modality_and_a_line_per_method(results):
    (drawing,) = figure(results)
    assert drawing.name == "robustness-av_digits-noise-concat"
    assert [axes.get_title(loc="left") for axes in drawing.figure.axes] == [
        "corrupted: audio",
        "corrupted: visual",
        "corrupted: all",
    ]
    assert [len(axes.lines) for axes in drawing.figure.axes] == [3, 3, 2]  # with the model of the modality alone
    assert drawing.figure.axes[2].lines[0].get_ydata().tolist() == pytest.approx([81.0, 71.0, 51.0])
    assert list(drawing.legend) == ["trained on the modality alone", "joint", "ogm"]


def test_a_study_without_corruptions_has_neither(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = written.results_of(written.Study(methods=("joint",)))
    assert "corrupted" not in results.offers
    assert robustness.tables(results) == [] and list(figure(results)) == []
