"""Runs that diverged or failed: shown as such in every output, and in no mean."""

import html
import io
import re
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from pipeline_src.core import files
from pipeline_src.reports import formats, scores, tables
from pipeline_src.reports.aggregate import UNFINISHED, aggregate
from pipeline_src.reports.answer import answers, comparisons
from pipeline_src.reports.scores import Ended, accuracy_table, shortfall
from pipeline_src.reports.wording import MINUS, NONE
from pipeline_src.study.runs import DIVERGED, FAILED
from tests.reports.study import Study
from tests.reports.test_tables import CELLS, frame

SEEDS = range(3)
NAN = Ended(DIVERGED, "epoch 3, step 17: the loss is not finite")
OUT = Ended(FAILED, "out of memory")


def key(cell, seed):
    return (*(cell[name] for name in scores.CELL), seed)


def made(ended):
    """The accuracy table where some runs, {(index of CELLS, seed): Ended}, have no scores."""
    skip = {(CELLS[i]["method"], seed) for i, seed in ended}
    ends = {key(CELLS[i], seed): how for (i, seed), how in ended.items()}
    return accuracy_table(frame(skip), CELLS, SEEDS, 0.95, ends), ends


def test_the_csv_counts_them():
    table, _ = made({(3, 0): NAN, (3, 2): NAN, (2, 1): OUT})
    assert table.diverged.tolist() == [0, 0, 0, 2]
    assert table.failed.tolist() == [0, 0, 1, 0]
    assert table.complete.tolist() == [True, True, False, False]
    assert table.accuracy_mean[3] == pytest.approx(0.87), "of the seed that has scores"
    assert table[["accuracy_sd", "accuracy_ci_low", "accuracy_gain_p"]].loc[3].isna().all()
    assert {"diverged", "failed"} <= set(pd.read_csv(io.StringIO(formats.csv(table))))


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        ({(3, 0): NAN, (3, 2): NAN}, "diverged in 2 of 3 seeds"),
        ({(3, 0): OUT}, "failed in 1 of 3 seeds"),
        ({(3, 0): NAN, (3, 1): OUT}, "diverged in 1 of 3 seeds, failed in 1 of 3 seeds"),
        ({}, ""),
    ],
)
def test_a_row_says_why_it_lacks_runs(ended, said):
    table, _ = made(ended)
    assert shortfall(table.iloc[3]) == said


def test_markdown_and_latex_say_so_and_mark_every_mean():
    table, ends = made({(3, 0): NAN, (3, 2): NAN})
    shown = [*tables.tables(table, 3, 0.95), tables.ended_table("toy_set", "r-1", ends)]
    for text in (formats.markdown(shown), formats.latex(shown)):
        assert "diverged in 2 of 3 seeds" in text
        assert "87.0 (incomplete)" in text
        assert "step 17: the loss is not finite" in text
        assert "A run has diverged if its loss was no longer finite; it has no scores." in text
    assert formats.latex(shown).isascii()
    row = next(row for row in shown[0].rows if str(row[1]) == "a_new|one")
    scored = [entry for entry in row[3:] if entry.value not in (NONE, *map(str, row[-2:]))]
    marks = ("(incomplete)", f"[{NONE}] (1 of 3 seeds)")
    assert scored and all(entry.interval in marks for entry in scored), "no mean without the mark"
    assert "If a method's worst runs are those that diverge, its differences flatter it." in shown[0].caption


def test_the_list_has_state_and_reason_and_is_of_one_dataset():
    _, ends = made({(3, 0): NAN, (2, 1): OUT})
    listed = tables.ended_table("toy_set", "r-1", ends)
    assert [[str(entry) for entry in row] for row in listed.rows] == [
        ["sum", "a_new|one", "0", "diverged", "epoch 3, step 17: the loss is not finite"],
        ["sum", "joint", "1", "failed", "out of memory"],
    ]
    assert tables.ended_table("another", "r-1", ends) is None


def test_divergence_is_part_of_the_answer_and_failure_leaves_none():
    table, _ = made({(3, 0): NAN})
    (found,) = answers(table, 3, 0.95)
    assert found.headline == "No answer: too many runs diverged to compare any method."
    assert found.points[0].startswith("Training diverged: a_new|one with sum diverged in 1 of 3 seeds.")
    verdicts = {(str(row[0]), str(row[2])) for row in comparisons(table, 3, 0.95).rows if "a_new" in str(row[0])}
    assert verdicts == {("sum, a_new|one", "diverged in 1 of 3 seeds: no test")}
    table, _ = made({(3, 0): OUT})
    (found,) = answers(table, 3, 0.95)
    assert found.headline == "No answer yet: runs of 1 of 4 configurations are missing."


def test_equal_differences_in_every_seed_crash_nothing():
    metrics = frame()
    joint = metrics[(metrics.method == "joint")]
    metrics = pd.concat([metrics[metrics.method != "a_new|one"], joint.assign(method="a_new|one")])
    table = accuracy_table(metrics, CELLS, SEEDS, 0.95)
    (found,) = answers(table, 3, 0.95)
    assert found.headline == "No method is shown to help over joint training."
    assert table.accuracy_gain_p[3] == 1.0
    (row,) = [row for row in comparisons(table, 3, 0.95).rows if str(row[1]) == f"accuracy {MINUS} joint"]
    assert (str(row[2]), str(row[3])) == ("equal in every seed", "0.0 ± 0.0 [0.0, 0.0]")


def lost(count, samples=(("toy_set", 100),)):
    """The accuracy table, by default of 100 test samples, where a method loses as many in each of three seeds."""
    metrics = frame()
    joint = metrics[metrics.method == "joint"]
    less = joint.assign(method="a_new|one", value=joint.value - count / 100)
    metrics = pd.concat([metrics[metrics.method != "a_new|one"], less])
    return accuracy_table(metrics, CELLS, SEEDS, 0.95, samples=dict(samples))


def test_the_same_loss_in_every_seed_is_a_finding():
    (found,) = answers(lost(3), 3, 0.95)
    which = "a_new|one with sum (-3.0 points [-4.8, -1.2])".replace("-", MINUS)
    assert found.headline == f"No method is shown to help over joint training; {which} hurts."
    (row,) = [row for row in comparisons(lost(3), 3, 0.95).rows if str(row[1]) == f"accuracy {MINUS} joint"]
    assert str(row[2]) == "significantly below" and str(row[4]) != NONE
    (found,) = answers(lost(1), 3, 0.95)
    assert found.headline == "No method is shown to help over joint training.", "one sample may be rounding"


def test_equal_differences_of_a_value_that_is_not_rounded_are_not_blamed_on_divergence():
    table = lost(3, samples=())
    assert table.accuracy_gain_p.isna()[3]
    (found,) = answers(table, 3, 0.95)
    assert found.headline == "No test: the differences from joint are equal in every seed, so that they show no spread."


def test_differences_are_of_the_seeds_that_both_have_and_say_so():
    seeds = range(5)
    metrics = frame()
    more = [metrics[metrics.seed == i].assign(seed=i + 3, value=metrics.value + 0.003 * i) for i in (0, 1)]
    metrics = pd.concat([metrics, *more])
    metrics = metrics[~((metrics.method == "a_new|one") & metrics.seed.isin([4]))]
    ends = {key(CELLS[3], 4): NAN}
    table = accuracy_table(metrics, CELLS, seeds, 0.95, ends)
    row = table.iloc[3]
    gaps = [0.01, 0.02, 0.04, 0.01]  # of seeds 0 to 3; joint has 4, too
    assert row.accuracy_gain_n == 4 and row.accuracy_gain_mean == pytest.approx(sum(gaps) / 4)
    assert row.accuracy_gain_p == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue)
    assert str(tables.tables(table, 5, 0.95)[0].rows[3][4]).endswith("] (4 of 5 seeds)")
    (found,) = answers(table, 5, 0.95)
    assert "diverged in 1 of 5 seeds" in found.points[0] and "seeds that both have" in found.points[0]
    assert "a_new|one with sum (+2.0 points [" in found.points[1]
    assert "]; diverged in 1 of 5 seeds)." in found.points[1]


def test_a_failed_run_is_in_report_tables_and_index(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study(methods=("joint", "ogm"))
    study.write_all()
    run = study.run("ogm", 1)
    for file in (run.record, run.metrics):
        file.unlink()
    files.write_json(run.folder / "attempt.json", {"status": "failed", "error": "ValueError('<b>no</b>')"})
    aggregate(study)
    page = Path("results/report.html").read_text(encoding="utf-8")
    shown = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
    assert "Incomplete: 8 of 12 runs" not in shown and "11 of 12 runs have scores; 1 failed." in shown
    assert "ValueError('<b>no</b>')" in html.unescape(page) and "<b>no</b>" not in page, "escaped"
    assert "failed in 1 of 3 seeds" in Path("results/tables/accuracy.md").read_text(encoding="utf-8")
    assert "ValueError" in Path("results/tables/accuracy.tex").read_text(encoding="utf-8")
    assert pd.read_csv("results/tables/accuracy.csv").failed.tolist() == [0, 0, 0, 1]
    assert Path("results/tables", UNFINISHED).exists() and not study.index.exists()
