"""What observers saw reaches the report, MLflow and DVC, and what is not observed is not drawn."""

import json
from dataclasses import replace
from functools import cached_property

import pytest

from pipeline_src.observers.base import observers
from pipeline_src.reports import declared
from pipeline_src.reports.figures.observed import observed
from pipeline_src.reports.summaries import history
from tests.reports import study as written


class Watched(written.Study):
    """A study of which every run was observed by `scores`, and by `probe` in the second epoch."""

    @cached_property
    def cells(self):
        seen = {name: observers[name].Params() for name in ("scores", "probe")}
        return [replace(cell, spec=replace(cell.spec, observers=seen)) for cell in super().cells]

    def write(self, run, accuracy, **modalities):
        super().write(run, accuracy, **modalities)
        file, rows = run.folder / "metrics.jsonl", written.epochs(run)
        several = len(run.cell.spec.modalities) > 1
        for i, row in enumerate(rows):
            row |= {"observer_seconds": 0.5, "score_on_train": 0.5 + i / 10, "loss_on_train": 1.0 - i / 10}
            row |= {f"score_on_train/{m}": 0.4 for m in run.cell.spec.modalities if several}
            row |= {f"probe_on_val/{m}": 0.7 for m in run.cell.spec.modalities if i == 1}
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        written.write_record(run.folder, written.record(run))


def test_a_drawing_per_observer_with_a_panel_for_the_fused_model_and_each_modality(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = written.results_of(Watched(methods=("joint", "ogm")))
    assert "observed" in results.offers
    scores, probe = observed(results)
    assert scores.name == "observed-av_digits-scores-concat"
    titles = [axes.get_title(loc="left") for axes in scores.figure.axes]
    assert titles == [
        "Score on train, fused model",
        "Score on train, audio",
        "Score on train, visual",
        "Loss on train, fused model",
    ]
    for line in scores.figure.axes[0].lines:
        assert line.get_ydata().tolist() == pytest.approx([0.5, 0.6, 0.7])
    assert len(scores.figure.axes[1].lines) == 3  # of the two methods, and of the model trained on sound alone
    assert list(scores.legend) == ["joint", "ogm", "trained on the modality alone"]
    assert [axes.lines[0].get_xdata().tolist() for axes in probe.figure.axes] == [[2], [2]]
    assert "linear model" in probe.caption and "Ratio" not in scores.caption


def test_what_is_not_observed_is_not_drawn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = written.results_of(written.Study())
    assert "observed" not in results.offers and not list(observed(results))


def test_mlflow_and_dvc_get_the_observers_quantities_beside_the_methods(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = Watched(methods=("ogm",))
    written.results_of(plan)
    cell = plan.rows[-1]
    assert {"ratio", "score_on_train", "probe_on_val", "observer_seconds"} <= declared.quantities(cell).keys()
    names = {quantity.name for quantity in declared.compared(plan)}
    assert {"coefficient", "score_on_train", "probe_on_val"} <= names and "observer_seconds" not in names
    table = history(plan.runs)
    captions = table[(table.metric == "score_on_train") & (table.method == "ogm")].groupby("modality").caption.first()
    assert set(captions.index) == {"audio", "visual", "fused"} and captions.str.startswith("Score on train: ").all()
