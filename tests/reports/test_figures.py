import io
import math
import subprocess
import sys
from dataclasses import replace

import pytest

from pipeline_src.methods.base import Quantity, methods
from pipeline_src.reports.figures.run import history, logged, series
from pipeline_src.reports.figures.style import INK, looks, svg
from pipeline_src.reports.scores import ACCURACY


def rows(epochs=4, **more):
    return [
        {
            "epoch": i,
            "lr": 0.02,
            "loss": 2.0 - i / 10,
            "ratio/touch": 1.5,
            "ratio/smell": 0.7 + i / 10,
            "coefficient/touch": 0.3,
            "coefficient/smell": 1.0,
            "modulated_tensors/touch": 12.0,
            "val_accuracy": 0.2 + i / 10,
            "val_accuracy/touch": 0.1,
            "val_accuracy/smell": 0.15,
            "test_accuracy": 0.3,
            "test_accuracy/touch": 0.3,
            **more,
        }
        for i in range(epochs)
    ]


OGM = {quantity.name: quantity for quantity in methods["ogm"].quantities}


def test_what_a_method_declares_and_logged():
    both = ["touch", "smell"]
    assert logged(rows(), OGM) == {"ratio": both, "coefficient": both, "modulated_tensors": ["touch"]}
    assert logged(rows(lone=1.0), {"lone": Quantity("lone", "", "It is of the model.")}) == {"lone": [""]}
    assert logged(rows(), {}) == logged([{"epoch": 0, "loss": 1.0}], OGM) == {}


def test_series_skips_what_is_not_there_or_not_finite():
    some = [
        {"epoch": 0, "a": 1.0},
        {"epoch": 1},
        {"epoch": 2, "a": math.nan},
        {"epoch": 3, "a": 2},
        {"epoch": 3, "a": 4},
    ]
    assert series(some, "a") == ([1, 4], [1.0, 4.0])


def test_history_has_accuracies_and_a_panel_for_each_quantity():
    limited = replace(OGM["coefficient"], limits=(0.0, 1.0))
    figure = history(rows(), "toy/concat/ogm seed 0", {**OGM, "coefficient": limited}, ACCURACY)
    first, *others = figure.axes
    assert [axes.get_title(loc="left") for axes in others] == ["Ratio", "Coefficient", "Modulated tensors"]
    assert first.lines[0].get_ydata().tolist() == pytest.approx([20, 30, 40, 50])
    assert first.lines[0].get_xdata().tolist() == [1, 2, 3, 4]
    assert first.get_ylim()[1] < 60, "the scale of the data"
    assert len(first.lines) == 3, "test accuracy must not guide choices"
    ratio, coefficient, _ = others
    (reference,) = [line for line in ratio.lines if len(line.get_xdata()) == 2]
    assert set(reference.get_ydata()) == {1.0} and ratio.get_yscale() == "log", "as declared"
    _, smell = [line for line in ratio.lines if line is not reference]
    assert smell.get_ydata().tolist() == pytest.approx([0.7, 0.8, 0.9, 1.0])
    assert coefficient.get_ylim() == pytest.approx((-0.03, 1.03)), "as declared"
    assert "toy/concat/ogm seed 0" in svg(figure)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    assert png.getvalue().startswith(b"\x89PNG")


RELEARNING = {quantity.name: quantity for quantity in methods["relearning"].quantities}


def test_a_quantity_of_some_epochs_is_drawn_as_points():
    some = rows(6)
    for i in (2, 5):
        some[i]["purity_train/touch"] = 0.5
    (axes,) = [a for a in history(some, "r", RELEARNING, ACCURACY).axes if a.get_title(loc="left") == "Purity train"]
    (line,) = axes.lines
    assert line.get_xdata().tolist() == [3, 6]
    assert line.get_marker() != "None"


@pytest.mark.parametrize("epochs", [0, 1])
def test_history_of_a_run_that_has_just_begun(epochs):
    assert "</svg>" in svg(history(rows(epochs), "r", OGM, ACCURACY))


def test_the_same_rows_give_the_same_bytes():
    assert svg(history(rows(), "r", OGM, ACCURACY)) == svg(history(rows(), "r", OGM, ACCURACY))


def test_the_baseline_keeps_its_look_and_others_theirs():
    found = looks(["joint", "a", "b"], "joint")
    assert found["joint"].color == INK
    assert len({look.color for look in looks([f"m{i}" for i in range(8)]).values()}) == 8
    assert found["a"] == looks(["a", "b"], "joint")["a"]


def test_nothing_is_imported_before_something_is_drawn():
    code = "import sys, pipeline_src.reports.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
