"""The heat maps of a grid: every number in its field, what is significant marked, one scale."""

import numpy as np
import pytest

from pipeline_src.reports.figures import style
from pipeline_src.reports.figures.drawing import shown
from pipeline_src.reports.figures.heatmaps import DARKEST, heatmaps
from pipeline_src.reports.grids import gains_table
from pipeline_src.reports.wording import MINUS, NONE
from tests.reports.gridded import grid

AXES = {"sound": ["noisy", "clear"], "picture": ["scarce", "middle", "rich"]}
NOISE = np.array([0.001, -0.001, 0.002, -0.002])


def accuracies(gains, room=0.04):
    """Of four seeds: joint .7, the method with its gain in every dataset, and an ensemble."""
    each = iter(gains)
    found = {}
    for sound in AXES["sound"]:
        for picture in AXES["picture"]:
            gain = next(each)
            method = [None] * 4 if gain is None else list(0.7 + gain + NOISE)
            found[sound, picture] = {"joint": [0.7] * 4, "pmr": method, "ensemble": list(0.7 + room + NOISE)}
    return found


def texts(axes):
    return [text.get_text() for text in axes.texts]


def opacities(axes):
    """Of the coloured fields, in order; those of a difference of 0 have none."""
    return [patch.get_alpha() for patch in axes.patches if patch.get_alpha()]


def test_every_number_is_in_its_field_with_one_scale_for_all_panels():
    (drawing,) = heatmaps(grid(AXES, accuracies([0.08, -0.02, 0.0, 0.01, None, -0.16])))
    room, pmr = drawing.figure.axes
    assert [axes.get_title(loc="left") for axes in (room, pmr)] == ["head-room", "pmr"]
    assert texts(room) == ["+4.0"] * 6
    assert texts(pmr) == ["+8.0", f"{MINUS}2.0", "0.0", "+1.0", NONE, f"{MINUS}16.0"]
    assert [(t.get_position()) for t in pmr.texts][:4] == [(0, 0), (1, 0), (2, 0), (0, 1)], "across, down"
    assert (pmr.get_xlabel(), pmr.get_ylabel()) == ("picture", "sound")
    assert [label.get_text() for label in pmr.get_xticklabels()] == AXES["picture"]
    assert [label.get_text() for label in pmr.get_yticklabels()] == AXES["sound"]
    assert opacities(pmr) == pytest.approx([DARKEST / 2, DARKEST / 8, DARKEST / 16, DARKEST])
    assert opacities(room) == pytest.approx([DARKEST / 4] * 6)


def test_above_and_below_have_colours_that_stay_apart():
    (drawing,) = heatmaps(grid(AXES, accuracies([0.08, -0.02, 0.01, 0.01, 0.01, 0.01])))
    svg = style.svg(drawing.figure)
    assert style.SERIES[0] in svg and style.SERIES[1] in svg


def test_what_is_significant_is_bold_and_framed_and_nothing_else():
    values = accuracies([0.08, -0.02, 0.0, 0.01, 0.02, 0.03])
    values["noisy", "middle"]["pmr"] = [0.6, 0.8, 0.5, 0.7]  # a gain that differs from seed to seed
    (drawing,) = heatmaps(grid(AXES, values))
    pmr = drawing.figure.axes[1]
    bold = [text.get_fontweight() == "bold" for text in pmr.texts]
    assert bold == [True, False, False, True, True, True]
    framed = [patch for patch in pmr.patches if patch.get_linewidth() > 1.5]
    assert len(framed) == sum(bold)


def test_a_grid_of_one_axis_is_one_row_and_without_ensembles_has_no_head_room():
    values = {(level,): {"joint": [0.7, 0.6], "pmr": [0.8, 0.7]} for level in ("a", "b", "c")}
    (drawing,) = heatmaps(grid({"picture": ["a", "b", "c"]}, values, seeds=(0, 1)))
    (pmr,) = drawing.figure.axes
    assert texts(pmr) == ["+10.0"] * 3 and pmr.get_xlabel() == "picture"
    assert "Head-room" not in drawing.caption and "2 seeds" in drawing.caption


def test_the_page_takes_it_apart_and_the_same_numbers_give_the_same_bytes():
    make = lambda: next(heatmaps(grid(AXES, accuracies([0.08, -0.02, 0.0, 0.01, None, -0.16]))))  # noqa: E731
    made = shown(make(), folded=False)
    assert len(made.panels) == 2 and "var(--s1)" in made.panels[1].svg and "var(--ink)" in made.panels[1].svg
    assert made.svg == shown(make(), folded=False).svg


def test_the_table_has_the_numbers_of_the_figure():
    values = accuracies([0.08, -0.02, 0.0, 0.01, None, -0.16])
    table = gains_table(grid(AXES, values))
    assert table.columns == ["fusion", "sound", "picture", "joint", "head-room", "pmr"] and table.names == 3
    assert [[entry.value for entry in row] for row in table.rows][:2] == [
        ["concat", "noisy", "scarce", "70.0", "+4.0", "+8.0"],
        ["concat", "noisy", "middle", "70.0", "+4.0", f"{MINUS}2.0"],
    ]
    assert [row[5].value for row in table.rows][4] == NONE
    assert [row[5].strong for row in table.rows] == [True, True, False, True, False, True]
