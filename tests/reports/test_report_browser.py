"""The report as a person sees it: in a real browser, wide and narrow, light and dark, and on paper."""

import re

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
    assert len(names) >= 9
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
