"""The table of docs/experiments.md has every method once, and says what docs/results/all-methods.csv says."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import all_methods
from pipeline_src.methods.base import methods
from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.reports.scores import COLUMNS
from pipeline_src.reports.wording import MINUS, NONE
from pipeline_src.study import config
from pipeline_src.study.naming import study_name

ROOT = Path(__file__).parents[2]
SETTINGS = [config.load(ROOT / file) for file in all_methods.STUDIED]


def test_the_page_is_made_of_its_file(monkeypatch):
    monkeypatch.chdir(ROOT)
    page = all_methods.PAGE.read_text(encoding="utf-8")
    assert all_methods.written(page) == page, "run: python -m benchmarks all-methods"
    rows = pd.read_csv(all_methods.FILE, keep_default_na=False)
    asked = [(params.study.fusions[0], method) for params in SETTINGS for method in params.study.methods]
    alone = [("none", "audio-only"), ("none", "visual-only"), ("concat", ENSEMBLE)]
    assert sorted(zip(rows.fusion, rows.method, strict=True)) == sorted([*asked, *alone])
    assert {seed for params in SETTINGS for seed in params.study.seeds} == set(rows.seed) == {0}


def test_every_method_is_in_a_study_and_other_settings_are_its_own():
    names = {method for params in SETTINGS for method in params.study.methods}
    here = {name.removesuffix("_here") for name in names if name.endswith("_here")}
    assert names - {f"{name}_here" for name in here} == set(methods)
    assert here == set(methods) - {"joint", "joint_unimodal", "mbsd", "tcmax"}  # whose values no schedule changes


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder with the results of the three studies, of which the second has a run that diverged."""
    found = {
        "": [
            ("none", "audio-only", 0.7),
            ("concat", "joint", 0.8),
            ("concat", "ogm", 0.75),
            ("concat", "ogm_here", 0.9),
        ],
        "-shared": [("shared", "joint", 0.6), ("shared", "mla", None)],
        "-mmtm": [("mmtm", "joint", 0.5), ("mmtm", "greedy", 0.55)],
    }
    monkeypatch.chdir(tmp_path)
    for file, runs in zip(all_methods.STUDIED, found.values(), strict=True):
        folder = tmp_path / "results" / "studies" / study_name(file)
        (folder / "tables").mkdir(parents=True)
        scores = [
            ("d", "r", fusion, method, 0, split, "fused", "accuracy", value)
            for fusion, method, value in runs
            for split in ("val", "test")
            if value is not None
        ]
        pd.DataFrame(scores, columns=COLUMNS).to_parquet(folder / "metrics.parquet")
        ended = [("d", "r", fusion, method, int(value is None)) for fusion, method, value in runs]
        pd.DataFrame(ended, columns=[*COLUMNS[:4], "diverged"]).to_csv(folder / "tables" / "accuracy.csv", index=False)
    (tmp_path / "docs/results").mkdir(parents=True)
    Path(all_methods.PAGE).write_text(f"before\n{all_methods.BEGIN}\nold\n{all_methods.END}\nafter\n")
    return tmp_path


def test_both_settings_are_beside_joint_training_with_the_same_fusion(clone):
    all_methods.all_methods()
    page = Path(all_methods.PAGE).read_text(encoding="utf-8")
    assert page.startswith("before\n") and page.endswith("\nafter\n") and "old" not in page
    cells = {
        line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]]
        for line in page.splitlines()
        if "|" in line
    }
    assert cells["audio-only"] == ["none", "70.0", "", "", ""]
    assert cells["ogm"] == ["concat", "75.0", f"{MINUS}5.0", "90.0", "+10.0"]
    assert cells["greedy"] == ["mmtm", "55.0", "+5.0", "", ""]
    assert cells["mla"] == ["shared", NONE, NONE, "", ""]
    assert "- 8 runs. Diverged: mla." in page
    assert len(pd.read_csv(all_methods.FILE)) == 8


def test_without_the_results_of_all_studies_the_file_stays(clone):
    all_methods.all_methods()
    kept = all_methods.FILE.read_bytes()
    (clone / "results/studies" / study_name(all_methods.STUDIED[2]) / "metrics.parquet").unlink()
    all_methods.all_methods()
    assert all_methods.FILE.read_bytes() == kept
