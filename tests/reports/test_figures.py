import subprocess
import sys
from dataclasses import replace

import pytest

from pipeline_src.methods.base import methods
from pipeline_src.reports.figures.style import INK, Look, draw_quantity, looks, panels, styled, svg

OGM = {quantity.name: quantity for quantity in methods["ogm"].quantities}


def drawn(quantity, x, *curves):
    """The figure and the axes of a quantity's curves."""
    with styled():
        figure, (axes,) = panels(1)
        for y in curves:
            draw_quantity(axes, quantity, x, y, Look(INK))
    return figure, axes


def test_a_quantity_is_drawn_as_it_is_declared():
    _, axes = drawn(OGM["ratio"], [1, 2, 3, 4], [1.5, 1.5, 1.5, 1.5], [0.7, 0.8, 0.9, 1.0])
    (reference,) = [line for line in axes.lines if len(line.get_xdata()) == 2]
    assert set(reference.get_ydata()) == {1.0} and axes.get_yscale() == "log"
    _, smell = [line for line in axes.lines if line is not reference]
    assert list(smell.get_ydata()) == pytest.approx([0.7, 0.8, 0.9, 1.0])
    _, axes = drawn(replace(OGM["coefficient"], limits=(0.0, 1.0)), [1, 2], [0.2, 0.3])
    assert axes.get_ylim() == pytest.approx((-0.03, 1.03))


def test_a_quantity_of_some_epochs_is_drawn_as_points():
    purity = {quantity.name: quantity for quantity in methods["relearning"].quantities}["purity_train"]
    _, axes = drawn(purity, [3, 6], [0.5, 0.6])
    assert axes.lines[0].get_marker() != "None"
    _, axes = drawn(purity, [1, 2], [0.5, 0.6])
    assert axes.lines[0].get_marker() == "None"


def test_the_same_values_give_the_same_bytes():
    one, other = (svg(drawn(OGM["ratio"], [1, 2], [0.5, 0.7])[0]) for _ in range(2))
    assert one == other and "</svg>" in one


def test_the_baseline_keeps_its_look_and_others_theirs():
    found = looks(["joint", "a", "b"], "joint")
    assert found["joint"].color == INK
    assert len({look.color for look in looks([f"m{i}" for i in range(8)]).values()}) == 8
    assert found["a"] == looks(["a", "b"], "joint")["a"]


def test_nothing_is_imported_before_something_is_drawn():
    code = "import sys, pipeline_src.reports.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
