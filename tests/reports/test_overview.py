"""The page across studies: gains, ranks and what is significant, from the tables of hand-made studies."""

import html
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline_src import cli
from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.reports import formats, overview
from pipeline_src.reports.scores import COLUMNS, accuracy_table
from pipeline_src.reports.wording import MINUS, NONE
from tests.browser import chromium

NOISE = np.array([0.0, 0.01, -0.01, 0.02])  # of the seeds, the same for all methods
OWN = np.array([0.001, -0.001, 0.0, 0.0])  # of a method
PAGE = Path("results/overview.html")


def write(name, accuracies, dataset="digits", fusion="concat", complete=True, tuned=None):
    """A study's folder, of {method: accuracy}; `tuned`: those of the tuned runs."""
    folder = Path("results/studies", name)

    def table(means):
        rows, cells = [], []
        for i, (method, mean) in enumerate(means.items()):
            names = {"dataset": dataset, "recipe": "r-1", "fusion": "none" if "only" in method else fusion}
            cells.append(names | {"method": method})
            for seed, noise in enumerate(NOISE):
                value = mean + noise + (i + 1) * OWN[seed]
                one = {"split": "test", "modality": "fused", "metric": "accuracy", "value": value}
                rows.append(cells[-1] | {"seed": seed} | one)
        return accuracy_table(pd.DataFrame(rows, columns=COLUMNS), cells, range(4), 0.95)

    files.write_text(folder / "tables/accuracy.csv", formats.csv(table(accuracies)))
    if tuned:
        files.write_text(folder / "tables/tuned.csv", formats.csv(table(tuned)))
    files.write_sealed(folder / "tables/index-0123456789.json", {"complete": complete, "confidence_level": 0.95})
    return folder


@pytest.fixture
def three(tmp_path, monkeypatch):
    """Three studies: ogm is always best, pmr helps once and hurts once, and one study lacks mla."""
    monkeypatch.chdir(tmp_path)
    write("a", {"sound-only": 0.6, "joint": 0.7, "ogm": 0.8, "pmr": 0.75, "mla": 0.65, "ensemble": 0.9})
    write("b", {"joint": 0.7, "ogm": 0.75, "pmr": 0.6, "mla": 0.65}, dataset="faces")
    write("c", {"joint": 0.5, "ogm": 0.6, "pmr": 0.5}, fusion="sum")
    return [setting for name in "abc" for setting in overview.settings(Path("results/studies", name))]


def texts(table):
    return {row[0].value: [str(entry) for entry in row[1:]] for row in table.rows}


def text():
    plain = re.sub(r"<(style|script)>.*?</\1>", "", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", plain)).split())


def test_settings_are_fused_models_of_each_dataset_and_fusion(three):
    assert [(s.study, s.dataset, s.fusion) for s in three] == [
        ("a", "digits", "concat"),
        ("b", "faces", "concat"),
        ("c", "digits", "sum"),
    ]
    assert list(three[0].rows.index) == ["joint", "ogm", "pmr", "mla", "ensemble"], "no model of one modality"
    assert (three[0].seeds, three[0].confidence, three[0].complete) == (4, 0.95, True)


def test_ranks_are_of_the_settings_that_have_all_common_methods(three):
    found = overview.ranking(three)
    # mla is in two of three settings, which is more than half, so c is left out; the ensemble is not trained
    assert found.ranks.shape == (2, 4)
    assert found.ranks.mean().to_dict() == {"joint": 2.5, "ogm": 1.0, "pmr": 3.0, "mla": 3.5}
    (first, second), spreads = found.ranks.to_numpy(), []
    for order in itertools.permutations(second):
        spreads.append(np.square(first + np.array(order)).sum())
    assert found.p == np.mean(np.array(spreads) >= np.square(first + second).sum())
    # Demsar's Table 5a: q(0.05, 4 classifiers) = 2.569
    assert found.difference == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 2)), abs=0.002)


def settings_of(scores: dict[str, list[float]]) -> list[overview.Setting]:
    """Settings in which methods have these scores."""
    return [
        overview.Setting(
            *("s", Path(), f"d{i}", "r", "f"),
            pd.DataFrame({"accuracy_mean": column, "complete": True, "metric": "accuracy"}, index=list(scores)),
            *(5, 0.95, True),
        )
        for i, column in enumerate(np.array(list(scores.values())).T)
    ]


@pytest.mark.parametrize(("settings", "p"), [(2, 1 / 2), (3, 1 / 4), (6, 1 / 32)])
def test_settings_that_all_agree_have_the_p_of_their_number(settings, p):
    every = settings_of({"joint": [0.80] * settings, "pmr": [0.85] * settings})
    found = overview.ranking(every)
    assert found.p == p
    (line, *_) = overview.points(every, found)
    assert ("Two of them differ significantly" in line) == (settings == 6), "else no two can be so far apart"


@pytest.mark.parametrize(("settings", "methods"), [(2, 2), (2, 3), (3, 3), (4, 2)])
def test_ranks_without_cause_are_called_different_in_five_of_a_hundred_pages_at_most(settings, methods):
    """All pages that there can be, as often as each other."""
    p = []
    for others in itertools.product(itertools.permutations(range(methods)), repeat=settings - 1):
        scores = np.array([range(methods), *others]).T / 10
        p.append(overview.ranking(settings_of({f"m{i}": list(row) for i, row in enumerate(scores)})).p)
    assert np.mean(np.array(p) < 0.05) <= 0.05 and np.mean(np.array(p) <= min(p)) == pytest.approx(min(p))


def test_friedmans_test_on_demsars_example():
    """His Table 6: four classifiers on fourteen data sets have mean ranks 3.143, 2.000, 2.893, 1.964; F_F = 3.69."""
    auc = [[0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.000, 0.940, 0.619, 0.972, 0.957]]
    auc += [[0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.000, 0.962, 0.666, 0.981, 0.978]]
    auc += [[0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.000, 0.965, 0.614, 0.9751, 0.946]]
    auc += [[0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.000, 0.962, 0.669, 0.975, 0.970]]
    found = overview.ranking(settings_of(dict(zip(["joint", "m", "cf", "both"], auc, strict=True))))
    assert found.ranks.mean().round(3).tolist() == pytest.approx([3.143, 2.0, 2.893, 1.964], abs=0.01)
    assert found.p == pytest.approx(stats.friedmanchisquare(*auc).pvalue, abs=0.006), "with ties; his 0.02 is without"
    assert found.difference == pytest.approx(1.25, abs=0.01)


def test_one_setting_has_ranks_without_a_test(three):
    found = overview.ranking(three[:1])
    assert found.ranks.loc[0].to_dict() == {"joint": 3.0, "ogm": 1.0, "pmr": 2.0, "mla": 4.0}
    assert math.isnan(found.p)
    assert "Mean ranks are not tested" in next(iter(overview.points(three[:1], found)))


def test_the_page_says_what_is_gained_where(three):
    overview.overview([])
    assert "ogm in 3 of 3, pmr in 1 of 3 settings" in text()
    ranked = overview.ranking(three)
    methods = overview._ordered(three, ranked)
    assert methods == ["ogm", "pmr", "mla", "ensemble"], "by mean rank, the reference last"
    columns = overview._names(three)
    assert columns == ["digits, concat", "faces, concat", "digits, sum"]
    table = overview.gains_table(three, methods, columns, ranked)
    rows = texts(table)
    # mean rank, mean gain, better, worse, neither
    assert rows["ogm"][:5] == ["1.0", "+8.3", "3", "0", "0"]
    assert rows["pmr"][:5] == ["3.0", f"{MINUS}1.7", "1", "1", "1"]
    assert rows["mla"][:5] == ["3.5", f"{MINUS}5.0", "0", "2", "0"] and rows["mla"][7] == NONE
    assert rows["joint"][:6] == ["2.5", *[NONE] * 5]
    assert rows["ensemble"][:2] == [NONE, "+20.0"]
    assert rows["pmr"][6].startswith(f"{MINUS}10.0 ± ")
    (pmr,) = [row for row in table.rows if row[0].value == "pmr"]
    assert [entry.strong for entry in pmr[6:]] == [True, True, False]
    accuracies = texts(overview.scores_table(three, methods, columns))
    assert accuracies["joint"][0].startswith("70.5 ± ")


def test_the_same_dataset_in_two_studies_and_tuned_runs_are_settings_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("a", {"joint": 0.7, "ogm": 0.8}, tuned={"joint": 0.8, "ogm": 0.8})
    write("b", {"joint": 0.7, "ogm": 0.8}, complete=False)
    overview.overview([])
    assert "digits, concat (a, equal tuning)" in text() and "digits, concat (b)" in text()
    assert "ogm in 2 of 3 settings" in text()
    assert "Not all runs are there: b." in text()


def test_of_a_metric_whose_lower_values_are_better_the_lowest_is_first(three):
    gain = {"nll_gain_mean": [math.nan, -0.2, 0.1], "nll_gain_p_corrected": [math.nan, 0.01, 0.02]}
    gain |= dict.fromkeys(("nll_gain_sd", "nll_gain_ci_low", "nll_gain_ci_high"), 0.01)
    scores = {"nll_mean": [0.8, 0.6, 0.9], "complete": True, "metric": "nll"}
    rows = pd.DataFrame(scores | gain, index=["joint", "ogm", "pmr"])
    other = overview.Setting("d", Path("d"), "clips", "r-1", "concat", rows, 4, 0.95, True)
    assert overview.ranking([other]).ranks.loc[0].to_dict() == {"joint": 2.0, "ogm": 1.0, "pmr": 3.0}
    assert [other.verdict(method) for method in ("joint", "ogm", "pmr", "mla")] == [0, 1, -1, 0]
    rows = texts(overview.gains_table([three[0], other], ["ogm"], ["a", "b"], overview.ranking([other])))
    assert rows["ogm"][1] == "+10.0", "no mean of points and nats"
    assert rows["ogm"][2:5] == ["2", "0", "0"]


def test_chosen_folders_and_another_place(three):
    assert cli.main(["overview", "results/studies/a", "--out", "pages/one.html"]) == 0
    page = Path("pages/one.html").read_text(encoding="utf-8")
    assert 'href="../results/studies/a/"' in page and "faces" not in page
    assert not re.search(r"https?://\w|url\((?!#)|@import", page), "it needs no network"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda: (), "results/studies: expected the results of a study, but got none"),
        (
            lambda: write("a", {"joint": 0.7, "sound-only": 0.6}),
            "expected finished runs of joint and of another method",
        ),
        (lambda: files.write_text(write("a", {"joint": 0.7}) / "tables/accuracy.csv", "dataset\n"), "column recipe"),
        (lambda: (write("a", {"joint": 0.7}) / "tables/index-0123456789.json").unlink(), "and an index, but got none"),
        (
            lambda: files.write_sealed(write("a", {"joint": 0.7}) / "tables/index-0123456789.json", {"complete": True}),
            "expected the confidence of the tables, but got none",
        ),
    ],
)
def test_what_is_missing_is_said(tmp_path, monkeypatch, spoil, said):
    monkeypatch.chdir(tmp_path)
    spoil()
    with pytest.raises(UserError, match=said):
        overview.overview([])


@pytest.mark.parametrize("width", [1280, 390])
def test_it_opens_sorts_and_fits(three, width):
    overview.overview([])
    with chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": 900})
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda one: asked.append(one.url))
        page.goto(PAGE.absolute().as_uri())
        table = page.get_by_role("table", name="Gains by setting", exact=True)
        heading = table.get_by_role("columnheader", name="faces, concat", exact=True)
        heading.get_by_role("button").click()
        names = [row.locator("td").first.inner_text() for row in table.locator("tbody tr").all()]
        assert names == ["ogm", "mla", "pmr", "ensemble", "joint"]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert said == [] and asked == [page.url]
