"""The report's figures: what they show of a study, and that they are themselves on a page with others."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pipeline_src.core import files
from pipeline_src.reports.aggregate import aggregate
from pipeline_src.reports.figures import examples, style
from pipeline_src.reports.figures.confusion import confusion
from pipeline_src.reports.figures.contributions import contributions
from pipeline_src.reports.figures.cost import cost
from pipeline_src.reports.figures.drawing import keys, panels
from pipeline_src.reports.figures.gains import gains
from pipeline_src.reports.figures.learning import learning
from pipeline_src.reports.results import Curve
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
    (line,) = whole.lines
    assert line.get_xdata().tolist() == [1, 2, 3]


def test_seeds_are_points_beside_their_mean(study, parts):
    one = study(methods=("joint", "a"))
    for run in one.runs:
        if run.cell.method == "a":
            one.write(run, (0.93, 0.94, 0.96)[run.seed], audio=0.9, visual=0.6)
    (part,) = parts(one)
    drawn = [axes for figure in (gains, contributions, cost) for one in figure(part) for axes in one.figure.axes]
    gain, *others = (
        [axes.collections[i].get_offsets().data.tolist() for i in range(len(axes.collections))] for axes in drawn
    )
    (seeds,) = gain
    assert sorted(x for x, _ in seeds) == pytest.approx([2.8, 3.0, 4.0]), "0.93, 0.94, 0.96 less 0.90, 0.912, 0.92"
    assert len({y for _, y in seeds}) == 3, "none hides another"
    assert len(others) == 3 and all(len(points) == 3 for panel in others for points in panel)


def test_curves_have_bands_which_are_intervals_of_the_mean(study, parts):
    (part,) = parts(study(methods=("joint", "a")))
    (drawing,) = learning(part)
    whole, gain, audio, visual = drawing.figure.axes
    curve = part.seeded(("concat", "joint"), "val_accuracy/audio")
    low, high = curve.band(0.95)
    expected = stats.t.interval(0.95, 2, 0.21, stats.sem([0.20, 0.21, 0.22]))
    assert (low[0], high[0]) == pytest.approx(expected)
    heights = audio.collections[1].get_paths()[0].vertices[:, 1]  # after that of the model trained on audio alone
    assert [heights.min(), heights.max()] == pytest.approx([100 * low.min(), 100 * high.max()])
    assert "Band: 95 % Student t interval of the mean, epoch by epoch." in drawing.caption
    assert audio.get_ylim() == visual.get_ylim() != whole.get_ylim(), "the modalities have one scale"
    assert 100 not in (*audio.get_ylim(), *whole.get_ylim()) and whole.get_ylim()[0] > 1, "the data's own scale"
    assert gain.get_title(loc="left") == "fused model, less joint"
    assert gain.lines[1].get_ydata().tolist() == pytest.approx([0, 0, 0])


def test_two_seeds_have_a_band_between_them_and_one_has_none():
    two = Curve([1, 2], np.array([[0.1, 0.3], [0.2, 0.1]]))
    low, high = two.band(0.95)
    assert low.tolist() == [0.1, 0.1] and high.tolist() == [0.2, 0.3]
    _, (axes,) = style.panels(1)
    style.draw_band(axes, Curve([1, 2], np.array([[0.1, 0.3]])), 0.95, style.Look(style.INK))
    assert not axes.collections
    style.draw_band(axes, two, 0.95, style.Look(style.INK))
    assert len(axes.collections) == 1


def test_time_is_drawn_only_where_the_machine_was_quiet(study, parts):
    one = study(methods=("joint", "a"))

    def drawn(seconds):
        for run in one.runs:
            values = files.read_json(run.metrics)["metrics"]
            for row in values:
                if row["metric"] == "seconds":
                    row["value"] = seconds[run.seed]
            files.write_sealed(run.metrics, {"names": run.names, "metrics": values})
        (part,) = parts(one)[-1:]
        (drawing,) = cost(part)
        return [axes.get_xlabel() for axes in drawing.figure.axes], drawing.caption

    axes, caption = drawn([60.0, 61.0, 60.0])
    assert axes == ["passes of samples, joint = 1", "training time of a run, seconds"]
    assert "The machine was quiet: times of a row's seeds, which do the same work, spread by 1 %" in caption
    axes, caption = drawn([60.0, 61.0, 90.0])
    assert axes == ["passes of samples, joint = 1"]
    assert "The machine was not quiet" in caption and "spread by up to 24 %" in caption
    assert "So no measured time is drawn." in caption


def test_confusions_are_numbers(study, parts):
    (part,) = parts(study())
    (drawing,) = confusion(part)
    (axes,) = drawing.figure.axes
    counts = part.outcomes["concat", "joint"].confusion
    shown = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in axes.texts}
    expected = 100 * counts / counts.sum(1, keepdims=True)
    assert shown == {(int(i), int(j)): f"{expected[i, j]:.0f}" for i, j in np.ndindex(10, 10) if expected[i, j] >= 0.5}
    assert 10 < len(shown) < 100
    part.classes = [f"class {i}" for i in range(13)]
    part.outcomes["concat", "joint"].confusion = np.diag(np.arange(1, 14)) + 3 * np.eye(13, k=-1, dtype=int)
    (drawing,) = confusion(part)
    assert "joint: class 1 as class 0 (60 %)." in drawing.caption, "too many for numbers"


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
    assert len(found) == 4
    assert all("var(--ink)" in one.svg and "var(--s0)" in one.svg for one in found)
    assert not any(color in one.svg for one in found for color in (style.INK, style.SERIES[0], "DejaVu"))
    assert all(200 < one.width < 460 for one in found)
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
