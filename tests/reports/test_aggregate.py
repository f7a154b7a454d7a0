import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.reports import declared, formats, provenance, scores, wording
from pipeline_src.reports.aggregate import UNFINISHED, aggregate
from pipeline_src.reports.scores import ACCURACY
from tests.reports.study import Study

REPORT = Path("results/report.html")
BENCHMARK = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study()
    study.write_all()
    study.write_cache()
    return study


def text():
    """The report's words, without marks, every space plain."""
    plain = re.sub(r"<(style|script)>.*?</\1>", "", REPORT.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", plain)).split())


def parquet():
    return pd.read_parquet("results/metrics.parquet")


def test_long_form_holds_every_metric(study):
    aggregate(study)
    found = parquet()
    assert list(found) == ["dataset", "recipe", "fusion", "method", "seed", "split", "modality", "metric", "value"]
    assert found.seed.dtype == "int64"
    assert found.value.dtype == "float64"
    expected = {
        (*run.names.values(), *row.values()) for run in study.runs for row in files.read_json(run.metrics)["metrics"]
    }
    assert set(found.itertuples(index=False, name=None)) == expected


def test_index_is_last_and_lists_every_run(study):
    files.write_text(Path("results/tables/index-aaaaaaaaaa.json"), "{}")
    files.write_text(Path("results/tables", UNFINISHED), "{}")
    aggregate(study)
    assert list(Path("results/tables").glob("index-*.json")) == [study.index]
    index = json.loads(study.index.read_text())
    assert index["params"] == "params.yaml"
    assert index["complete"] is True
    assert [run["run"] for run in index["runs"]] == [str(run.folder) for run in study.runs]
    entry = index["runs"][0]
    assert list(entry) == ["dataset", "recipe", "fusion", "method", "seed", "run", "evaluation", "complete", "files"]
    assert entry["files"]["metrics.json"] == files.sha256(Path(entry["evaluation"], "metrics.json"))
    assert entry["files"]["record.json"] == files.sha256(Path(entry["run"], "record.json"))
    assert {"report.html", "metrics.parquet", "tables/accuracy.csv"} <= index["files"].keys()
    assert all(files.sha256(study.results / name) == digest for name, digest in index["files"].items())


def test_killed_between_the_tables_leaves_no_index(study, monkeypatch):
    aggregate(study)
    old = Path("results/tables/index-aaaaaaaaaa.json")
    old.write_text("{}")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(formats, "latex", killed)
    with pytest.raises(KeyboardInterrupt):
        aggregate(study)
    assert not list(Path("results/tables").glob("index-*.json"))


def test_again_gives_the_same_bytes(study):
    def outputs():
        return {p: p.read_bytes() for p in Path("results").rglob("*") if p.is_file()}

    aggregate(study)
    before = outputs()
    aggregate(study)
    assert outputs() == before
    assert not list(Path("results").rglob("*.tmp-*"))


@pytest.mark.parametrize("gone", ["metrics", "record"])
def test_incomplete_grid_shows_as_incomplete(study, gone, caplog):
    aggregate(study)
    getattr(study.run("joint", 2), gone).unlink()
    aggregate(study)
    assert not study.index.exists(), "its address promises the whole study"
    index = json.loads(Path("results/tables", UNFINISHED).read_text())
    assert index["complete"] is False
    assert [(run["method"], run["seed"]) for run in index["runs"] if not run["complete"]] == [("joint", 2)]
    assert parquet().query("method == 'joint'").seed.unique().tolist() == [0, 1]
    table = pd.read_csv("results/tables/accuracy.csv")
    assert table.seeds.tolist() == ["3 of 3", "3 of 3", "2 of 3"]
    assert table.complete.tolist() == [True, True, False]
    assert table.accuracy_ci_low.isna().tolist() == [False, False, True]
    assert "(incomplete)" in Path("results/tables/accuracy.md").read_text(encoding="utf-8")
    assert "Incomplete: 8 of 9 runs have scores." in text()
    assert "missing in 1 of 3 seeds" in text()
    assert "No answer yet: runs of 1 of 3 configurations are missing" in text()
    assert "joint seed 2" in caplog.text + text()


def test_only_modalities_alone_so_far(study):
    """The report of a study that has just begun: no figure of fused models has anything to draw."""
    for run in study.runs:
        if len(run.cell.spec.modalities) > 1:
            run.metrics.unlink()
    aggregate(study)
    assert "No answer yet" in text()


def test_no_run_at_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    aggregate(Study())
    assert len(parquet()) == 0
    assert "Incomplete: 0 of 9" in text()
    assert "the cache does not exist" in text()


def test_one_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study(methods=("joint", "ogm"), seeds=(0,))
    study.write_all()
    aggregate(study)
    assert study.index.exists()
    assert "No conclusion about any method: the study has one seed." in text()
    assert "1 seed: no test" in text() and "1 seed cannot be tested." in text()
    assert f"[{wording.NONE}]" in text()


def test_two_seeds_show_both_values_and_no_interval(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study(methods=("joint", "ogm"), seeds=(0, 1))
    study.write_all()
    study.write(study.run("ogm", 1), 0.97, audio=0.9, visual=0.6)
    aggregate(study)
    shown = Path("results/tables/accuracy.md").read_text(encoding="utf-8")
    (row,) = [line for line in shown.splitlines() if line.startswith("| concat") and "| ogm" in line][:1]
    # joint 90 and 91.2, ogm 92 and 97: the differences are 2 and 5.8
    assert "94.5 (92.0, 97.0)" in row and "+3.9 (+2.0, +5.8)" in row
    assert "with one degree of freedom, Student's t at 95 % is 13 standard errors" in shown
    assert "±" not in shown.split("## Each")[0].split("\n\n", 2)[2], "no deviation in the table"
    assert "No conclusion about any method: the study has two seeds." in text()
    assert "2 seeds: no test" in text() and "detectable difference" not in text()
    table = pd.read_csv("results/tables/accuracy.csv")
    assert table.filter(regex="_(p|p_corrected|ci_low|ci_high|detectable)$").isna().all(axis=None)


def mangle(change):
    def apply(file):
        value = json.loads(file.read_text())
        change(value)
        files.write_sealed(file, value)

    return apply


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.write_text("{"), "a damaged file"),
        (lambda file: file.write_bytes(b"\xff"), "a damaged file"),
        (lambda file: file.write_bytes(file.read_bytes().replace(b"0.4", b"0.5", 1)), "a damaged file"),
        (mangle(lambda v: v["names"].update(seed=7)), "names"),
        (mangle(lambda v: v.pop("metrics")), "expected a list of metrics"),
        (mangle(lambda v: v["metrics"][3].pop("split")), r"metrics\[3\]: expected the keys split"),
        (mangle(lambda v: v["metrics"][3].update(value="much")), r"metrics\[3\]: expected a number, but got 'much'"),
        (mangle(lambda v: v["metrics"][3].update(value=True)), "expected a number"),
        (mangle(lambda v: v["metrics"][3].update(split=1)), "expected names"),
        (mangle(lambda v: v["metrics"].append(v["metrics"][0])), "expected val/fused/accuracy once"),
        (
            mangle(lambda v: v.update(metrics=[row for row in v["metrics"] if row["split"] != "test"])),
            "expected test metrics of the fused model",
        ),
    ],
)
def test_invalid_metrics_name_the_file_and_the_mend(study, spoil, said):
    file = study.run("joint", 1).metrics
    spoil(file)
    with pytest.raises(UserError, match=said) as error:
        aggregate(study)
    assert str(file) in str(error.value)
    assert f"delete {file.parent} and run snakemake again" in str(error.value)
    assert not study.index.exists()


def test_invalid_record(study):
    file = study.run("joint", 1).record
    files.write_sealed(file, {})
    with pytest.raises(UserError, match="expected status, fingerprint, parameters, cache") as error:
        aggregate(study)
    assert str(file) in str(error.value)


class Links(HTMLParser):
    """All that a page would load or lead to."""

    def __init__(self):
        super().__init__()
        self.found, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        loads = [v for k, v in attributes if k in ("src", "href", "srcset", "data", "action", "poster")]
        self.found += [link for link in loads if not link.startswith("data:image/png;base64,")]


def test_report_is_self_contained(study):
    aggregate(study)
    page = REPORT.read_text(encoding="utf-8")
    links = Links()
    links.feed(page)
    folders = [link for link in links.found if not link.startswith("#")]
    assert {(REPORT.parent / folder).resolve() for folder in folders} == {
        path.resolve() for run in study.runs for path in (run.folder, run.cell.folder)
    }
    assert not {"link", "iframe", "img", "object"} & set(links.tags)
    assert links.tags.count("script") == 1 and "<script>" in page, "it is in the page"
    assert not re.search(r"https?://\w|url\((?!#)|@import|fetch\(|XMLHttpRequest|import\(", page)
    assert "prefers-color-scheme: dark" in page
    assert str(Path.cwd()) not in page


WHOLE = ("accuracy", "macro_f1", "map", "accuracy_best_test_epoch")


def test_report_figures_equal_the_parquet(study):
    aggregate(study)
    test = parquet().query("split == 'test'")
    shown = text()
    checked = 0
    for (_, method, modality, metric), values in test.groupby(["fusion", "method", "modality", "metric"]).value:
        if metric in (*WHOLE, *map(ACCURACY.view, declared.VIEWS)):
            assert f"{100 * values.mean():.1f} ± {100 * values.std():.1f}" in shown, (method, modality, metric)
            checked += 1
    assert checked == 3 * 4 + 4 * 3


def test_verdicts_follow_the_corrected_test(study):
    aggregate(study)
    shown = text()
    assert re.search(r"concat, joint visual probe . alone significantly below .13\.0 ", shown)
    assert re.search(r"concat, joint audio probe . alone not significant", shown)
    assert "Nothing to compare: the study has no method besides joint" in shown


def test_a_study_without_joint_training_is_told_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study(methods=("ogm",))
    study.write_all()
    study.write_cache()
    aggregate(study)
    assert "Nothing to compare: the study does not have joint, with which methods are compared; add it to" in text()


def test_the_answer_names_a_method_that_helps_and_one_that_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study(methods=("joint", "ogm<ge>", "pmr"))
    study.write_all()
    for run in study.runs:
        if run.cell.method == "ogm<ge>":
            study.write(run, (0.919, 0.932, 0.941)[run.seed], audio=0.9, visual=0.6)
        if run.cell.method == "pmr":  # as joint, but for noise
            study.write(run, 0.91 + (run.seed - 1) * 0.01 + (0.03 if run.seed == 1 else -0.01), audio=0.9, visual=0.6)
    aggregate(study)
    # Differences of 1.9, 2.0 and 2.1 points, whose sd is below that of rounding to 300 samples: 0.236 points.
    # t(1 - 0.05 / 4, 2) = 6.205, times 0.236 / sqrt(3): 0.84
    assert "ogm<ge> with concat (+2.0 points [+1.2, +2.8]) helps." in text()
    assert "significant after the correction for 2 comparisons: 1." in text()
    answer = text().split("Which method helps")[1].split("Setting")[1]
    assert "Smallest detectable difference: with 3 seeds, a true difference of" in answer
    for file in ("accuracy.md", "accuracy.tex"):
        assert "Smallest detectable difference: with 3 seeds" in Path("results/tables", file).read_text(
            encoding="utf-8"
        )
    assert "ogm<ge>" not in REPORT.read_text(encoding="utf-8"), "not escaped"


def test_what_only_looks_like_a_difference_is_not_called_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    methods = ("joint", *(f"m{i}" for i in range(8)))
    study = Study(methods=methods)
    for run in study.runs:
        gain = (0.020, 0.024, 0.017)[run.seed] if run.cell.method == "m3" else (0.01, -0.01, 0.0)[run.seed]
        gain = 0.0 if run.cell.method == "joint" else gain
        study.write(run, 0.8 + gain, **dict.fromkeys(run.cell.spec.modalities, 0.5 + run.seed / 100))
    aggregate(study)
    table = pd.read_csv("results/tables/accuracy.csv").set_index("method")
    assert table.accuracy_gain_p["m3"] < 0.05 < table.accuracy_gain_p_corrected["m3"]
    assert table.accuracy_gain_ci_low["m3"] < 0 < table.accuracy_gain_ci_high["m3"]
    assert "No method is shown to help over joint training." in text()
    assert (
        "p below 0.05 before any correction: 1 of 8 comparisons; significant after the correction for 8 comparisons: 0."
    ) in text()
    assert "**" not in Path("results/tables/accuracy.md").read_text(encoding="utf-8")


def test_the_interval_over_samples_is_of_the_stored_predictions(study, monkeypatch):
    study = Study(methods=("joint", "pmr"))
    study.write_all()
    aggregate(study)
    row = pd.read_csv("results/tables/accuracy.csv").set_index("method").loc["pmr"]

    def right(method):
        stored = [pd.read_parquet(study.run(method, seed).evaluation / "predictions.parquet") for seed in (0, 1, 2)]
        return sum((one.label == one.predicted)[one.split == "test"].astype(float) for one in stored) / 3

    gaps = right("pmr") - right("joint")
    expected = stats.norm.interval(0.95, gaps.mean(), stats.sem(gaps))
    assert (row.accuracy_gain_clips_low, row.accuracy_gain_clips_high) == pytest.approx(expected)


def test_three_modalities(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study(modalities=("audio", "flow", "visual"))
    study.write_all()
    study.write_cache()
    aggregate(study)
    assert scores.modalities_of(pd.read_csv("results/tables/accuracy.csv")) == ["audio", "flow", "visual"]
    assert "flow with concat" in text()


def test_setting_and_data(study):
    aggregate(study)
    shown = text()
    assert "3 seeds: 0, 1, 2" in shown
    assert "12 epochs in batches of 32 samples with sgd, learning rate 0.02" in shown
    assert "1 200 train, 200 val, 300 test" in shown
    assert "No sample is quarantined" in shown
    assert "1 234 567" in shown


def test_a_lowered_quarantine_share_stops_here_too(study):
    study.write_cache([(f"c{i}", "audio", f"c{i}.mp4", "no sound", "extract") for i in range(60)])
    study.datasets["av_digits"].dataset.params.max_quarantine = 0.01
    with pytest.raises(UserError, match=r"60 of 1760 clips \(3.4%\) are quarantined, more than"):
        aggregate(study)
    assert not Path("results/metrics.parquet").exists()


def test_quarantine_is_counted_and_cut(study):
    study.write_cache([(f"c{i}", "audio", f"c{i}.mp4", "no sound" if i else "empty", "extract") for i in range(60)])
    aggregate(study)
    shown = text()
    assert "60 samples could not be read" in shown
    assert "no sound 59" in shown
    assert "empty 1" in shown
    assert "The first 50 of 60 samples" in shown
    assert "c49.mp4" in shown
    assert "c50.mp4" not in shown


def test_benchmarks(tmp_path):
    for name, body in {
        "train/a/b-aaaaaaaaaa/c.tsv": "30.5\t0:00:30\t900.5\t0\t0\t0\t0\t0\t99\t28\n",
        "train/a-aaaaaaaaaa/d.tsv": "9.5\t0:00:09\t1200\t0\t0\t0\t0\t0\t99\t9\n",
        "train/other-bbbbbbbbbb/e.tsv": "5\t0:00:05\t100\t0\t0\t0\t0\t0\t99\t5\n",
        "train/killed-aaaaaaaaaa.tsv": None,
        "extract/x-cccccccccc.tsv": "60\t0:01:00\t-\tNA\t0\t0\t0\t0\t0\tNA\n" * 2,
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("" if body is None else BENCHMARK + body)
    found = provenance.benchmarks({"aaaaaaaaaa", "cccccccccc"}, tmp_path).set_index("stage")
    assert found.index.tolist() == ["extract", "train"]
    assert found.jobs.tolist() == [1, 3]
    assert found.seconds.tolist() == [120, 40]
    assert found.fraction.tolist() == [0.75, 0.25]
    assert found.max_rss["train"] == 1200
    assert found.cpu_seconds.tolist() == [0, 37]
    assert len(provenance.benchmarks({"aaaaaaaaaa"}, tmp_path / "nowhere")) == 0


def test_benchmarks_are_in_the_report(study):
    files.write_text(Path("logs/train/joint-0000000000/x.tsv"), BENCHMARK + "200\t0:03:20\t-\t0\t0\t0\t0\t0\t99\t28\n")
    aggregate(study)
    assert f"train 1 3 min 20 s 100.0 % 28.0 s {wording.NONE}" in text()


@pytest.mark.parametrize(
    ("seconds", "said"), [(45.24, "45.2 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (float("nan"), wording.NONE)]
)
def test_clock(seconds, said):
    assert wording.clock(seconds) == said
