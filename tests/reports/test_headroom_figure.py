"""The figure of gain against head-room has each from its own half of the seeds."""

import pytest

from pipeline_src.reports.figures.headroom import headroom
from tests.reports.gridded import grid

VALUES = {
    ("a",): {"joint": [0.5, 0.6], "better": [0.51, 0.64], "ensemble": [0.6, 0.72]},
    ("b",): {"joint": [0.6, 0.5], "better": [0.62, 0.55], "ensemble": [0.8, 0.71]},
}


def test_gain_and_head_room_of_a_point_are_of_different_seeds():
    (drawing,) = headroom(grid({"sound": ["a", "b"]}, VALUES, seeds=(7, 2)))
    (axes,) = drawing.figure.axes
    first, second, zero = axes.lines
    assert first.get_xdata() == pytest.approx([12, 21]) and first.get_ydata() == pytest.approx([1, 2])
    assert second.get_xdata() == pytest.approx([10, 20]) and second.get_ydata() == pytest.approx([4, 5])
    assert set(zero.get_ydata()) == {0} and axes.get_title(loc="left") == "better"
    assert next(iter(drawing.legend)) == "gain on seeds 7, head-room on the others"


def test_one_seed_has_no_halves():
    one = {levels: {method: values[:1] for method, values in of.items()} for levels, of in VALUES.items()}
    assert not list(headroom(grid({"sound": ["a", "b"]}, one, seeds=(7,))))
