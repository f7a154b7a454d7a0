"""Epochs and operations to a set score, by hand; the training loss that each method minimises, drawn."""

import pytest

from pipeline_src.reports import convergence
from pipeline_src.reports.figures.fitting import fitting
from pipeline_src.study import estimate
from pipeline_src.study.runs import RunFiles
from tests.reports import study as written


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A study whose val accuracies are 0.3, 0.4 and 0.5 over three epochs, in every run."""
    monkeypatch.chdir(tmp_path)
    plan = written.Study(methods=("joint", "ogm"))
    plan.params.reporting = plan.params.reporting.model_copy(update={"convergence": [0.4]})
    monkeypatch.setattr(estimate, "operations", lambda cell, m: (2e9, 6e9))
    return written.results_of(plan), plan


def test_epochs_to_a_score_are_of_the_seeds_that_reach_it(results):
    found, _ = results
    assert convergence.first_epochs(found, ("concat", "ogm"), 0.4) == [2, 2, 2]
    assert convergence.first_epochs(found, ("concat", "ogm"), 0.1) == [1, 1, 1]
    assert convergence.first_epochs(found, ("concat", "ogm"), 0.51) == []
    found.histories["concat", "ogm"]["val_accuracy"].values[1] = [0.2, 0.3, 0.35]
    assert convergence.first_epochs(found, ("concat", "ogm"), 0.4) == [2, 2]


def test_operations_are_counted_forward_and_backward_over_the_modalities(results):
    found, plan = results
    record = RunFiles(plan.run("ogm", 0)).record()
    per_epoch = (record["forwards"] * 2 * 2e9 + record["backwards"] * 2 * 4e9) / 12
    assert found.operations["concat", "ogm"] == pytest.approx(per_epoch)
    assert found.operations["none", "audio-only"] == pytest.approx(per_epoch / 2)


def test_the_table(results):
    found, _ = results
    (table,) = convergence.tables(found, [0.4, 0.9])
    assert table.columns[2:] == ["TFLOP an epoch", "epochs to 40.0", "TFLOP to 40.0", "epochs to 90.0", "TFLOP to 90.0"]
    rows = {row[1].value: [str(e) for e in row[2:]] for row in table.rows}
    assert list(rows) == ["audio-only", "visual-only", "joint", "ogm"]
    tera = found.operations["concat", "ogm"] / 1e12
    assert rows["ogm"][:3] == [f"{tera:.3g}", "2.0 ± 0.0", f"{2 * tera:.3g}"]
    assert rows["ogm"][3].endswith("(0 of 3 seeds)")
    assert convergence.tables(found, []) == []


def test_the_training_loss_is_drawn_of_every_method(results):
    found, _ = results
    (drawing,) = fitting(found)
    (axes,) = drawing.figure.axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [[1.0, 1.0, 1.0]] * 2
    assert list(drawing.legend) == ["joint", "ogm"] and drawing.name == "fitting-av_digits"
