import io
import math
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from pipeline_src.reports import formats, scores, tables, wording
from pipeline_src.reports.statistics import Summary
from pipeline_src.reports.wording import MINUS, NONE
from pipeline_src.tasks.base import tasks

SEEDS = [0, 1, 2]
METRICS = tasks["classification"].metrics


def cell(fusion, method):
    return {"dataset": "toy_set", "recipe": "r-1", "fusion": fusion, "method": method}


CELLS = [cell("none", "touch-only"), cell("none", "smell-only"), cell("sum", "joint"), cell("sum", "a_new|one")]


def rows(one, seed, fused, **probes):
    def row(modality, metric, value, split="test"):
        return {**one, "seed": seed, "split": split, "modality": modality, "metric": metric, "value": value}

    found = [row("fused", metric, fused) for metric in ("accuracy", "macro_f1", "map")]
    found.append(row("fused", "accuracy", 0.111, "val"))
    extra = 300 if one["method"] == "a_new|one" else 0
    cost = {"seconds": 30.0 + seed, "forwards": 1000 + extra, "backwards": 1000}
    found += [row("fused", metric, value, "train") for metric, value in cost.items()]
    for m, value in probes.items():
        found += [row(m, f"accuracy_{view}", value) for view in ("unimodal", "removal", "probe")]
    return found


def frame(skip=()):
    found = []
    for seed, d in zip(SEEDS, (0.0, 0.01, 0.03), strict=True):
        own = [
            (0.60 + d, {"touch": 0.60 + d}),
            (0.80 - d, {"smell": 0.80 - d}),
            (0.85, {"touch": 0.50 + 1.1 * d, "smell": 0.80 - d + (0.02 if seed == 1 else -0.02)}),
            (0.86 + d, {"touch": 0.55, "smell": 0.80}),
        ]
        for one, (fused, probes) in zip(CELLS, own, strict=True):
            if (one["method"], seed) not in skip:
                found += rows(one, seed, fused, **probes)
    return pd.DataFrame(found, columns=scores.COLUMNS)


def made(skip=(), seeds=SEEDS):
    metrics = frame(skip)
    return scores.accuracy_table(metrics[metrics.seed.isin(seeds)], CELLS, seeds, 0.95)


def column(table, name):
    return [str(row[table.columns.index(name)]) for row in table.rows]


def texts(table):
    return [[str(f) for f in row] for row in table.rows]


def test_rows_are_the_cells_in_order():
    table = made()
    assert table[scores.CELL].to_dict("records") == CELLS
    assert table.seeds.tolist() == ["3 of 3"] * 4
    assert table.complete.all()
    assert scores.modalities_of(table) == ["touch", "smell"]


def test_test_split_over_seeds():
    row = made().iloc[0]
    expected = np.array([0.60, 0.61, 0.63])
    low, high = stats.t.interval(0.95, 2, expected.mean(), stats.sem(expected))
    for what in ("accuracy", "touch/accuracy_probe"):
        found = [row[f"{what}_{name}"] for name in ("mean", "sd", "ci_low", "ci_high")]
        assert found == pytest.approx([expected.mean(), expected.std(ddof=1), low, high])
    assert math.isnan(row["smell/accuracy_probe_mean"])


def test_probe_gap_is_paired():
    row = made().iloc[2]
    joint, alone = [0.50, 0.511, 0.533], [0.60, 0.61, 0.63]
    expected = stats.ttest_rel(joint, alone).confidence_interval(1 - 0.05 / 4)
    assert row["touch/probe_gap_mean"] == pytest.approx(np.mean(joint) - np.mean(alone))
    assert (row["touch/probe_gap_ci_low"], row["touch/probe_gap_ci_high"]) == pytest.approx(tuple(expected))
    assert row["touch/probe_gap_family"] == 4, "two models of two modalities"
    assert made().loc[:1, "touch/probe_gap_mean"].isna().all()


def test_gain_over_the_baseline_is_paired():
    table = made()
    expected = stats.ttest_rel([0.86, 0.87, 0.89], [0.85] * 3).confidence_interval(0.95)
    assert (table.accuracy_gain_ci_low[3], table.accuracy_gain_ci_high[3]) == pytest.approx(tuple(expected))
    assert table.accuracy_gain_mean[:3].isna().all()


def test_p_and_interval_are_corrected_for_the_comparisons_with_one_fusion():
    metrics = frame()
    third = cell("sum", "another")
    film = [{**one, "fusion": "film"} for one in CELLS[2:]]
    noise = np.random.default_rng(0).choice([0.0, 0.01, 0.02, -0.01], 999)

    def copy(of, **names):
        rows = metrics[(metrics.fusion == "sum") & (metrics.method == of)].assign(**names)
        return rows.assign(value=rows.value + noise[: len(rows)])

    more = [copy("a_new|one", method="another"), copy("joint", fusion="film"), copy("a_new|one", fusion="film")]
    table = scores.accuracy_table(pd.concat([metrics, *more]), [*CELLS, third, *film], SEEDS, 0.95)
    one, other, _, alone = (table.iloc[i] for i in (3, 4, 5, 6))
    for row in (one, other):
        assert row.accuracy_gain_family == 2
        assert row.accuracy_gain_p_corrected == pytest.approx(min(1, 2 * row.accuracy_gain_p))
    assert alone.accuracy_gain_family == 1, "another fusion is another family"
    assert alone.accuracy_gain_p_corrected == alone.accuracy_gain_p
    gaps = table[["touch/probe_gap_p", "smell/probe_gap_p"]][2:5].to_numpy().ravel()
    found = table[["touch/probe_gap_p_corrected", "smell/probe_gap_p_corrected"]][2:5].to_numpy().ravel()
    assert found == pytest.approx(multipletests(gaps, method="bonferroni")[1])
    assert (table["touch/probe_gap_family"][2:5] == 6).all()


def test_the_printed_number_of_comparisons_is_the_one_corrected_for():
    metrics = frame()
    film = [{**one, "fusion": "film"} for one in CELLS[2:]]
    more = metrics[metrics.fusion == "sum"].assign(fusion="film")
    table = scores.accuracy_table(pd.concat([metrics, more]), [*CELLS, *film], SEEDS, 0.95)
    whole, each = tables.tables(table, 3, 0.95)
    assert "corrected by Bonferroni's method for 1 comparison with each fusion." in whole.caption
    numbers = f"for 4 comparisons with each fusion (probe {MINUS} alone) and 2 comparisons with each fusion"
    assert numbers in each.caption
    gone = metrics.assign(value=metrics.value + 0.01 * metrics.seed, method=metrics.method.replace("a_new|one", "b"))
    more = pd.concat([metrics, gone[gone.method == "b"], metrics[metrics.fusion == "sum"].assign(fusion="film")])
    table = scores.accuracy_table(more, [*CELLS, cell("sum", "b"), *film], SEEDS, 0.95)
    assert tables.corrections(table, [scores.ACCURACY.gain]) == "2 comparisons with sum and 1 comparison with film"


def test_an_interval_excludes_0_exactly_where_the_difference_is_significant():
    rng, metrics, seen = np.random.default_rng(3), frame(), set()
    cells = [*CELLS, *(cell("sum", f"m{i}") for i in range(30))]
    base = metrics[metrics.method == "a_new|one"]
    for i in range(30):
        shift = rng.normal(0, 0.03) + rng.normal(0, 0.002, 3)
        metrics = pd.concat([metrics, base.assign(method=f"m{i}", value=0.5 + shift[base.seed])])
    joint = (metrics.method == "joint") & (metrics.split == "test")
    metrics.loc[joint, "value"] = 0.5
    table = scores.accuracy_table(metrics, cells, SEEDS, 0.95, samples={"toy_set": 500})
    for row in table[table.accuracy_gain_p.notna()].to_dict("records"):
        outside = row["accuracy_gain_ci_low"] > 0 or row["accuracy_gain_ci_high"] < 0
        assert scores.significant(row, scores.ACCURACY.gain, 0.95) == outside
        seen.add(outside)
    assert seen == {True, False}


def test_what_could_have_been_seen_stands_in_text():
    (whole, _) = tables.tables(made(), 3, 0.95)
    row = made().iloc[3]
    size = f"{100 * row.accuracy_gain_detectable:.1f}"
    assert f"with 3 seeds, a true difference of {size} points is significant with 80 % probability." in whole.caption
    assert f"To detect one point, {row.accuracy_gain_seeds_needed:.0f} seeds are needed." in whole.caption
    for text in (formats.markdown([whole]), formats.latex([whole])):
        assert "Smallest detectable difference" in text
    assert {"accuracy_gain_detectable", "accuracy_gain_seeds_needed"} <= set(made())


def test_comparisons_of_unlike_numbers_of_seeds_say_so():
    table = pd.concat([made().iloc[[3]]] * 3, ignore_index=True)
    table["accuracy_gain_n"] = [8, 3, 3]
    said = tables.sensitivity(table, "accuracy_gain", 0.95)
    assert "with 3 to 8 seeds, a true difference of" in said and "3 seeds estimate the standard deviation" in said


def test_intervals_of_accuracies_stay_within_0_and_100():
    metrics = frame()
    near = metrics.method.eq("joint") & metrics.split.eq("test")
    metrics.loc[near, "value"] = 1 - metrics.loc[near, "seed"] * 0.004
    table = scores.accuracy_table(metrics, CELLS, SEEDS, 0.95)
    row = table.iloc[2]
    assert row.accuracy_ci_high == 1 < row.accuracy_mean + 4.30 * row.accuracy_sd / math.sqrt(3)
    assert row.accuracy_ci_low == pytest.approx(row.accuracy_mean - 4.3026527 * row.accuracy_sd / math.sqrt(3))
    for kind in ("accuracy", "macro_f1", "touch/accuracy_probe"):
        assert table[f"{kind}_ci_high"].max() <= 1 and table[f"{kind}_ci_low"].min() >= 0
    assert "cut at 0 and 100" in tables.tables(table, 3, 0.95)[0].caption


def test_bold_is_what_stands_after_the_correction():
    metrics = frame()
    strong = metrics.method.eq("a_new|one") & metrics.metric.eq("accuracy") & metrics.split.eq("test")
    metrics.loc[strong, "value"] = 0.90 + metrics.loc[strong, "seed"] * 0.0001
    table = scores.accuracy_table(metrics, CELLS, SEEDS, 0.95)
    whole = tables.tables(table, 3, 0.95)[0]
    bold = [(row[1].value, whole.columns[i]) for row in whole.rows for i, cell in enumerate(row) if cell.strong]
    assert bold == [("a_new|one", "accuracy"), ("a_new|one", f"accuracy {MINUS} joint")]
    assert "**90.0 ± 0.0** [" in formats.markdown([whole])
    assert r"\textbf{90.0 $\pm$ 0.0} {[}" in formats.latex([whole])
    unclear = tables.tables(made(), 3, 0.95)[0]
    assert not any(cell.strong for row in unclear.rows for cell in row), "the highest value alone is not marked"
    table["accuracy_gain_p_corrected"] = 0.06
    assert not any(cell.strong for row in tables.tables(table, 3, 0.95)[0].rows for cell in row)


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (0.0304, "0.030"),
        (0.0001, "< 0.001"),
        (0.34567, "0.35"),
        (1, "1.00"),
        (math.nan, NONE),
        (0.0496, "0.0496"),
        (0.0502, "0.050"),
    ],
)
def test_p_value(p, said):
    assert wording.p_value(p) == said


def test_what_a_method_does_to_a_modality_is_paired_with_the_baseline():
    table = made()
    expected = stats.ttest_rel([0.55] * 3, [0.50, 0.511, 0.533]).confidence_interval(1 - 0.05 / 2)
    found = table["touch/probe_gain_ci_low"][3], table["touch/probe_gain_ci_high"][3]
    assert found == pytest.approx(tuple(expected))
    assert table["touch/probe_gain_mean"][:3].isna().all()


def test_an_extension_is_marked_and_explained():
    whole, each = tables.tables(made(), 3, 0.95, {("toy_set", "a_new|one"): "the mean over the others"})
    assert [row[1] for row in texts(whole)] == ["touch-only", "smell-only", "joint", "a_new|one \u2020"]
    for table in (whole, each):
        assert "\u2020 Extension that no paper gives. a_new|one: the mean over the others." in table.caption
    assert formats.latex([whole]).isascii()


def test_cost():
    table = made()
    assert table.seconds_mean.tolist() == [31.0] * 4
    assert table.passes_mean[2:].tolist() == [1.0, 1.15]
    assert table.passes_mean[:2].isna().all(), "a unimodal model has no joint one with the same fusion"
    assert texts(tables.tables(table, 3, 0.95)[0])[3][-2:] == ["31", "1.15"]


def test_missing_seed_is_marked_and_never_averaged_in_silence():
    table = made({("joint", 1), ("smell-only", 2)})
    assert table.seeds.tolist() == ["3 of 3", "2 of 3", "2 of 3", "3 of 3"]
    assert table.complete.tolist() == [True, False, False, True]
    row = table.iloc[2]
    assert row.accuracy_mean == pytest.approx(0.85)
    for what in ("accuracy", "touch/accuracy_probe"):
        assert row[[f"{what}_sd", f"{what}_ci_low", f"{what}_ci_high"]].isna().all()
    assert table["smell/probe_gap_n"].tolist() == [0, 0, 1, 2], "seeds that both have"
    assert table.accuracy_gain_n[3] == 2
    assert table.accuracy_gain_mean[3] == pytest.approx(np.mean([0.86 - 0.85, 0.89 - 0.85]))
    assert table[["accuracy_gain_p", "accuracy_gain_ci_low"]].isna().all(axis=None), "two seeds are too few"
    assert not math.isnan(table["touch/probe_gap_p"][3])
    whole, each = tables.tables(table, 3, 0.95)
    assert texts(whole)[2][3] == "85.0 (incomplete)"
    assert texts(whole)[3][4] == "+2.5 (+1.0, +4.0) (2 of 3 seeds)"
    assert "[" in texts(whole)[0][3]
    assert all("incomplete" in t.caption for t in (whole, each))


def test_row_without_runs():
    table = made({("smell-only", s) for s in SEEDS})
    assert table.seeds[1] == "0 of 3"
    shown = texts(tables.tables(table, 3, 0.95)[0])[1]
    assert shown[:3] == ["none", "smell-only", "missing in 3 of 3 seeds"]
    assert set(shown[3:]) == {NONE}
    assert math.isnan(table["smell/probe_gap_mean"][2])


def test_no_runs_at_all():
    table = scores.accuracy_table(pd.DataFrame(columns=scores.COLUMNS), CELLS, SEEDS, 0.95)
    assert table.seeds.tolist() == ["0 of 3"] * 4
    whole, each = tables.tables(table, 3, 0.95)
    assert len(whole.rows) == 4
    assert each.rows == []


def test_a_metric_that_some_seeds_lack_has_no_interval():
    metrics = frame()
    metrics = metrics[~((metrics.metric == "macro_f1") & (metrics.seed == 2) & (metrics.method == "joint"))]
    row = scores.accuracy_table(metrics, CELLS, SEEDS, 0.95).iloc[2]
    assert row.complete
    assert row[["macro_f1_sd", "macro_f1_ci_low"]].isna().all()
    (*_, shown) = tables.tables(scores.accuracy_table(metrics, CELLS, SEEDS, 0.95), 3, 0.95, metrics=METRICS)
    assert column(shown, "macro-F1")[2] == "85.0 (incomplete)"


def test_metrics_are_shown_as_the_task_declares():
    metrics = frame()
    loss = metrics[(metrics.metric == "macro_f1")].assign(metric="nll")
    table = scores.accuracy_table(pd.concat([metrics, loss]), CELLS, SEEDS, 0.95)
    shown = tables.tables(table, 3, 0.95, metrics=METRICS)[-1]
    assert shown.title == "Other metrics: toy_set (recipe r-1)"
    assert shown.columns == ["fusion", "method", "macro-F1", "mAP", "NLL (lower is better)"], "ECE was not measured"
    assert column(shown, "NLL (lower is better)")[2] == "0.850 ± 0.000 [0.850, 0.850]"
    assert column(shown, "macro-F1")[2] == "85.0 ± 0.0 [85.0, 85.0]"
    for metric in METRICS[1:4]:
        assert f"{metric.label}: {metric.caption}" in shown.caption
    assert "Not in percent: NLL." in shown.caption


def test_one_seed_supports_no_conclusion():
    table = made(seeds=[0])
    whole, each = tables.tables(table, 1, 0.95)
    assert column(whole, "accuracy")[0] == column(whole, "touch probe")[0] == f"60.0 [{NONE}]"
    assert column(whole, "p, corrected") == [NONE] * 4
    assert texts(each)[2][-2] == f"{MINUS}10.0 [{NONE}]"
    assert "One seed supports no conclusion" in whole.caption


def test_best_test_epoch_stands_beside_and_says_what_it_is():
    metrics = frame()
    best = metrics[(metrics.modality == "fused") & (metrics.metric == "accuracy") & (metrics.split == "test")]
    best = best.assign(metric="accuracy_best_test_epoch", value=best.value + 0.02)
    (whole, _) = tables.tables(scores.accuracy_table(pd.concat([metrics, best]), CELLS, SEEDS, 0.95), 3, 0.95)
    at = whole.columns.index("accuracy at the best test epoch")
    assert texts(whole)[2][at].startswith("87.0 ± 0.0")
    assert "selects the epoch on test data" in whole.caption
    assert not any("best test" in c for c in tables.tables(made(), 3, 0.95)[0].columns)


@pytest.mark.parametrize(
    ("fraction", "sign", "expected"),
    [
        (0.9171, False, "91.7"),
        (-0.131, True, f"{MINUS}13.1"),
        (0.02, True, "+2.0"),
        (-0.0001, True, "0.0"),
        (math.nan, True, NONE),
    ],
)
def test_percent(fraction, sign, expected):
    assert wording.percent(fraction, sign) == expected


def test_an_interval_shows_whether_it_has_0():
    assert wording.interval(Summary(8, -0.038, 0.034, -0.075, -0.0002), True) == f"[{MINUS}7.5, {MINUS}0.02]"
    assert wording.interval(Summary(8, 0.0, 0.0, 0.0, 0.0), True) == "[0.0, 0.0]"
    assert wording.interval(Summary(8, 0.02, 0.02, -0.0003, 0.04), True) == f"[{MINUS}0.03, +4.0]"


def test_entry():
    one = Summary(3, 0.917, 0.009, 0.894, 0.94)
    assert str(tables.entry(one, 3)) == "91.7 ± 0.9 [89.4, 94.0]"


def test_csv_keeps_every_digit():
    table = made({("joint", 1)})
    read = pd.read_csv(io.StringIO(formats.csv(table)))
    pd.testing.assert_frame_equal(read, table, check_dtype=False, rtol=1e-14)
    assert {"accuracy_mean", "accuracy_ci_high", "touch/accuracy_probe_mean", "touch/probe_gap_sd"} <= set(read)


def test_markdown():
    text = formats.markdown(tables.tables(made(), 3, 0.9))
    assert "mean ± standard deviation over 3 seeds [90 % Student t interval, cut at 0 and 100]" in text
    assert "a_new\\|one" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    for width in {len(line) for line in lines}:
        assert sum(len(line) == width for line in lines) >= 6, "columns are not aligned"
    assert len([line for line in text.splitlines() if line.startswith("## ")]) == 2


def test_latex():
    text = formats.latex(tables.tables(made(), 3, 0.95))
    assert "toy\\_set" in text
    assert "a\\_new|one" in text
    assert "95 \\% Student t" in text
    assert "$\\pm$" in text
    assert text.isascii()
    assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")
    for line in text.splitlines():
        if line.endswith(r" \\"):
            assert line.replace(r"\&", "").count("&") in (7, 8)
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX: pdflatex is not installed")
def test_latex_compiles(tmp_path):
    metrics = frame()
    metrics.loc[metrics.method.eq("a_new|one"), "value"] = 0.9
    made = tables.tables(
        scores.accuracy_table(metrics, CELLS, SEEDS, 0.95), 3, 0.95, {("toy_set", "a_new|one"): "x & y"}
    )
    text = formats.latex(made)
    assert r"\textbf{" in text
    (tmp_path / "tables.tex").write_text(text)
    packages = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{tables}\end{document}"
    (tmp_path / "main.tex").write_text(packages)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (tmp_path / "main.pdf").stat().st_size > 10_000


def test_latex_escapes():
    assert formats.escape_latex(r"50 % & $a_b^c$ #1 {x} \y ~ <z>") == (
        r"50 \% \& \$a\_b\textasciicircum{}c\$ \#1 \{x\} \textbackslash{}y \textasciitilde{} \textless{}z\textgreater{}"
    )


def test_data_sets_have_their_own_tables():
    other = [{**one, "dataset": "other"} for one in CELLS]
    metrics = pd.concat([frame(), frame().assign(dataset="other")])
    table = scores.accuracy_table(metrics, [*CELLS, *other], SEEDS, 0.95)
    titles = [t.title for t in tables.tables(table, 3, 0.95)]
    assert titles == [
        f"{what}: {d} (recipe r-1)" for d in ("toy_set", "other") for what in ("Accuracy", "Each modality")
    ]
