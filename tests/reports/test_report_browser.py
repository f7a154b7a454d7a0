"""The report as a person sees it: in a real browser, wide and narrow, light and dark, and on paper."""

import csv
import re
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pandas as pd
import pytest

from pipeline_src.reports.aggregate import aggregate
from tests.browser import chromium, keep
from tests.reports.study import Study

SIZES = {"desktop": 1280, "phone": 390}

# What a figure's panels look like once laid out: [identifier, width, height, marks drawn].
DRAWN = """() => [...document.querySelectorAll('figure.drawing')].flatMap(figure => {
  figure.closest('details')?.setAttribute('open', '');
  return [...figure.querySelectorAll('.panels svg')].map(svg => {
    const box = svg.getBoundingClientRect();
    const marks = [...svg.querySelectorAll('path, use, image')].filter(one => one.getBoundingClientRect().width > 0);
    return [figure.id, box.width, box.height, marks.length];
  });
})"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = Study(methods=("joint", "ogm", "relearning"))
        study.write_all()
        for seed in study.params.study.seeds:  # the last method is the worst
            study.write(study.run("relearning", seed), 0.80 + seed / 100, audio=0.9, visual=0.6)
        study.write_cache()
        aggregate(study)
    return folder / "results"


@pytest.fixture(scope="module")
def browser():
    with chromium() as one:
        yield one


@pytest.fixture
def opened(report, browser, request):
    size, scheme = request.param
    page = browser.new_page(viewport={"width": SIZES[size], "height": 900}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda one: asked.append(one.url))
    page.goto((report / "report.html").as_uri())
    yield page, said, asked
    keep(page, f"report-{size}-{scheme}")
    page.close()


each = pytest.mark.parametrize(
    "opened", [(s, c) for s in SIZES for c in ("light", "dark")], indirect=True, ids="-".join
)


@each
def test_it_opens_without_an_error_and_asks_nobody(opened):
    page, said, asked = opened
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page.url]


@each
def test_every_figure_is_drawn_and_nothing_sticks_out(opened, report):
    page, _, _ = opened
    panels = page.evaluate(DRAWN)
    names = {name for name, *_ in panels}
    assert names == {file.stem for file in (report / "figures").glob("*.svg")}
    assert len(names) >= 8
    for name, width, height, marks in panels:
        assert width > 60 and height > 40, name
        assert marks > 1, name
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= page.viewport_size["width"]
    assert max(width for _, width, *_ in panels) <= page.viewport_size["width"]


@pytest.mark.parametrize("opened", [("desktop", "light")], indirect=True)
def test_a_value_of_the_table_is_the_one_of_the_parquet(opened, report):
    page, _, _ = opened
    metrics = pd.read_parquet(report / "metrics.parquet")
    one = metrics.query("method == 'ogm' and split == 'test' and modality == 'fused' and metric == 'accuracy'").value
    row = page.locator("tbody tr").filter(has=page.get_by_role("cell", name="ogm", exact=True)).first
    assert row.locator("td").nth(1).inner_text().startswith(f"{100 * one.mean():.1f} ± {100 * one.std():.1f}")


MAIN = "Accuracy: av_digits (recipe av-digits-1)"
desktop = pytest.mark.parametrize("opened", [("desktop", "light")], indirect=True, ids="-".join)


def table(page, title=MAIN):
    """A table by its caption, which is its accessible name."""
    return page.get_by_role("table", name=title, exact=True)


def methods(page, title=MAIN):
    """The methods of the rows that are shown, in order."""
    rows = table(page, title).locator("tbody tr:not(.group)")
    return [row.locator("td").first.inner_text() for row in rows.all() if row.is_visible()]


@desktop
def test_a_heading_sorts_each_group_and_a_third_click_restores_the_order(opened):
    page, said, _ = opened
    assert methods(page) == ["audio-only", "visual-only", "joint", "ogm", "relearning"]
    heading = table(page).get_by_role("columnheader", name="accuracy", exact=True)
    assert heading.get_attribute("aria-sort") == "none"
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending", "numbers: the best first"
    assert methods(page) == ["audio-only", "visual-only", "ogm", "joint", "relearning"]
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert methods(page) == ["visual-only", "audio-only", "relearning", "joint", "ogm"]
    other = table(page).get_by_role("columnheader", name="accuracy \u2212 joint", exact=True)
    other.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "none", "one column sorts"
    assert methods(page)[2:] == ["ogm", "relearning", "joint"], "negative numbers; no value comes last"
    other.get_by_role("button").click()
    assert methods(page)[2:] == ["relearning", "ogm", "joint"]
    other.get_by_role("button").click()
    assert methods(page) == ["audio-only", "visual-only", "joint", "ogm", "relearning"]
    name = table(page).get_by_role("columnheader", name="method", exact=True)
    name.get_by_role("button").click()
    assert name.get_attribute("aria-sort") == "ascending", "words: from A on"
    assert said == []


@each
def test_tables_work_from_the_keyboard(opened):
    page, _, _ = opened
    field = page.get_by_role("searchbox", name=f"Filter rows of: {MAIN}", exact=True)
    field.focus()
    page.keyboard.type("concat ogm")
    assert methods(page) == ["ogm"], "words of the row and of its group"
    assert field.locator("xpath=following-sibling::output").inner_text() == "1 of 5 rows"
    page.keyboard.press("Tab")
    saves = page.get_by_role("button", name=f"Save as CSV: {MAIN}", exact=True)
    assert saves.evaluate("one => one === document.activeElement")
    assert saves.evaluate("one => getComputedStyle(one).outlineStyle") == "solid", "the focus is seen"
    page.keyboard.press("Tab")  # the table, which scrolls
    page.keyboard.press("Tab")
    first = table(page).get_by_role("columnheader").first
    assert first.get_by_role("button").evaluate("one => one === document.activeElement")
    page.keyboard.press("Enter")
    assert first.get_attribute("aria-sort") == "ascending"
    field.focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("nothing at all")
    assert methods(page) == []
    assert not table(page).locator("tr.group").first.is_visible(), "no heading without rows"
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    assert len(methods(page)) == 5


@desktop
def test_what_is_shown_is_saved_as_csv(opened, report, tmp_path):
    page, _, _ = opened
    table(page).get_by_role("columnheader", name="accuracy", exact=True).get_by_role("button").click()
    page.get_by_role("searchbox", name=f"Filter rows of: {MAIN}", exact=True).fill("concat")
    with page.expect_download() as found:
        page.get_by_role("button", name=f"Save as CSV: {MAIN}", exact=True).click()
    assert found.value.suggested_filename == "accuracy-av-digits-recipe-av-digits-1.csv"
    found.value.save_as(tmp_path / "saved.csv")
    rows = list(csv.DictReader((tmp_path / "saved.csv").open(encoding="utf-8")))
    assert [(row["fusion"], row["method"]) for row in rows] == [
        ("concat", method) for method in ("ogm", "joint", "relearning")
    ]
    gain = pd.read_csv(report / "tables/accuracy.csv").set_index("method").accuracy_gain_mean["relearning"]
    assert gain < 0 and rows[2]["accuracy - joint"].startswith(f"{100 * gain:.1f} ±"), "a minus that programs read"
    assert re.fullmatch(r"\[\d+\.\d, \d+\.\d\]", rows[0]["accuracy, interval"])
    assert rows[1]["accuracy - joint"] == "", "no value"


@desktop
def test_rows_link_to_folders_and_to_mlflow_where_it_is_named(opened, report):
    page, _, _ = opened
    assert page.locator("a.mlflow").count() == 0
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    links = [a.get_attribute("href") for a in table(page, "Runs").locator("a").all()]
    folders = [Path(report, unquote(link)) for link in links]
    assert len(folders) == 15 and all((folder / "record.json").exists() for folder in folders)
    (link,) = table(page).get_by_role("link", name="ogm", exact=True).all()
    assert sorted(path.name for path in Path(report, link.get_attribute("href")).iterdir()) == [
        "seed0",
        "seed1",
        "seed2",
    ]

    experiment = "http://127.0.0.1:5001/#/experiments/7"
    page.goto(f"{(report / 'report.html').as_uri()}?mlflow={quote(experiment, safe='')}")
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    link = page.get_by_role("link", name="MLflow: av_digits/concat/ogm seed 1", exact=True)
    address = urlsplit(link.get_attribute("href"))
    assert (address.netloc, address.fragment.partition("?")[0]) == ("127.0.0.1:5001", "/experiments/7/runs")
    (condition,) = parse_qs(address.fragment.partition("?")[2])["searchFilter"]
    assert re.fullmatch(r"tags.address LIKE 'results/runs/av_digits/av-digits-1/concat/ogm-\w+/seed1%'", condition)
    page.goto(f"{(report / 'report.html').as_uri()}?mlflow=javascript:alert(1)")
    assert page.locator("a.mlflow").count() == 0


@pytest.mark.parametrize("opened", [("phone", "light")], indirect=True, ids="-".join)
def test_a_wide_table_scrolls_by_itself_on_a_phone(opened):
    page, _, _ = opened
    box = table(page).locator("xpath=ancestor::*[@role='region']")
    assert box.evaluate("one => one.scrollWidth > one.clientWidth")
    box.evaluate("one => { one.scrollLeft = 400 }")
    names = table(page).locator("tbody tr:not(.group) td:first-child").first
    assert names.bounding_box()["x"] == pytest.approx(box.bounding_box()["x"], abs=1), "the names stay"
    tools = page.locator(".tools").first.bounding_box()
    assert tools["x"] >= 0 and tools["x"] + tools["width"] <= 390


@pytest.mark.parametrize("opened", [("desktop", "dark")], indirect=True)
def test_figures_follow_the_scheme(opened):
    page, _, _ = opened
    ink = page.locator("#learning-av_digits-concat text").first.evaluate("one => getComputedStyle(one).fill")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light, dark = (sum(map(int, re.findall(r"\d+", color)[:3])) for color in (ink, paper))
    assert light > 500 > 150 > dark


def test_it_prints(report, browser):
    page = browser.new_page(color_scheme="dark")
    page.goto((report / "report.html").as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)", "paper is white"
    assert len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4"))) >= 3
    page.close()
