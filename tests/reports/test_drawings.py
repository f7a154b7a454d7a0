"""The report's figures: what they show of a study, and that they are themselves on a page with others."""

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline_src.reports.aggregate import aggregate
from pipeline_src.reports.figures import examples, style
from pipeline_src.reports.figures.drawing import keys, panels
from pipeline_src.reports.figures.gains import gains
from pipeline_src.reports.figures.learning import learning
from tests.reports.study import Study


@pytest.fixture
def parts(monkeypatch):
    """Makes the Results that the report is drawn from, of a study, by catching them on their way."""

    def made(study):
        from pipeline_src.reports import aggregate as module

        found = []
        real = module.sections
        monkeypatch.setattr(module, "sections", lambda plan, all_, *rest: found.extend(all_) or real(plan, all_, *rest))
        aggregate(study)
        return found

    return made


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(**options):
        one = Study(**options)
        one.write_all()
        return one

    return make


def markers(axes):
    """Face colours of the points in a figure of gains, method by method."""
    return [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"]


def test_a_gain_is_filled_only_if_it_is_significant(study, parts):
    one = study(methods=("joint", "clear", "unclear"))
    for run in one.runs:
        if run.cell.method == "clear":
            one.write(run, (0.919, 0.932, 0.941)[run.seed], audio=0.9, visual=0.6)
        if run.cell.method == "unclear":
            one.write(run, 0.9 + 0.03 * run.seed, audio=0.9, visual=0.6)
    (part,) = parts(one)
    (drawing,) = gains(part)
    (axes,) = drawing.figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["clear", "unclear"]
    assert [face == style.PAPER for face in markers(axes)] == [False, True]
    row = part.table.loc[("concat", "unclear")]
    ends = [line.get_xdata() for line in axes.lines if line.get_marker() != "o"][2]
    assert list(ends) == pytest.approx([100 * row.accuracy_gain_ci_low, 100 * row.accuracy_gain_ci_high])
    assert "corrected for 2 comparisons" in drawing.caption
    low, high = axes.get_xlim()
    assert low == -high, "0 stands in the middle"


def test_one_seed_has_points_without_intervals(study, parts):
    (drawing,) = gains(parts(study(methods=("joint", "a"), seeds=(0,)))[0])
    assert "Fewer than 3 seeds give points without intervals; they support no conclusion." in drawing.caption
    (face,) = markers(drawing.figure.axes[0])
    assert face == style.PAPER


def test_an_incomplete_grid_is_drawn_from_what_is_there(study, parts):
    one = study(methods=("joint", "a", "b"))
    for seed in (0, 1, 2):
        one.run("b", seed).metrics.unlink()
    one.run("joint", 2).record.unlink()
    (part,) = parts(one)
    (drawing,) = gains(part)
    (axes,) = drawing.figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a"], "of the seeds that both have"
    assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"] == pytest.approx([2.0])
    (drawing,) = learning(part)
    assert list(drawing.legend) == ["joint", "a", "trained on the modality alone"]


def test_a_study_without_the_baseline(study, parts):
    (part,) = parts(study(methods=("a", "b")))
    assert "gains" not in part.offers
    assert [drawing.name for drawing in learning(part)] == ["learning-av_digits-concat"]


def test_curves_are_means_over_seeds(study, parts):
    (drawing,) = learning(parts(study())[0])
    whole, audio, _ = drawing.figure.axes
    alone, joint = audio.lines
    assert joint.get_ydata().tolist() == pytest.approx(
        [21, 31, 41]
    )  # 0.2 + epoch / 10, and the mean of the seeds / 100
    assert alone.get_ydata().tolist() == pytest.approx([30, 40, 50])
    assert whole.lines[1].get_xdata().tolist() == [1, 2, 3]


def test_every_identifier_of_the_page_is_there_once(study, tmp_path):
    one = study(methods=("joint", "ogm", "relearning"))
    one.write_cache()
    aggregate(one)
    page = Path("results/report.html").read_text(encoding="utf-8")
    found = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(found)) == len(found)
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', page)) <= set(found)


def test_panels_take_the_colours_of_the_page(study, parts):
    (drawing,) = learning(parts(study(methods=("joint", "a")))[0])
    found = panels(drawing, style.svg(drawing.figure))
    assert len(found) == 3
    assert all("var(--ink)" in one.svg and "var(--s0)" in one.svg for one in found)
    assert not any(color in one.svg for one in found for color in (style.INK, style.SERIES[0], "DejaVu"))
    assert all(200 < one.width < 400 for one in found)
    assert [(key.label, key.color) for key in keys(drawing)][:2] == [("joint", "var(--ink)"), ("a", "var(--s0)")]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((9, 5), (9, 5)), ((3, 3, 8, 6), (8, 6, 3)), ((4, 2, 8, 6), (8, 6)), ((1, 1, 8, 6), (8, 6)), ((7, 4, 2), (7, 8))],
)
def test_what_a_cache_holds_becomes_a_picture(shape, expected):
    assert examples.image(np.ones(shape, np.float16)).shape == expected


def test_of_several_frames_the_middle_one_is_shown():
    frames = np.zeros((3, 3, 2, 2), np.uint8)
    frames[1, 0] = 200
    assert examples.image(frames)[..., 0].tolist() == [[200, 200], [200, 200]]
