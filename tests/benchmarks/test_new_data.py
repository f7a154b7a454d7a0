"""The table of docs/experiments.md says what the files of docs/results say."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import new_data
from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.reports.scores import COLUMNS
from pipeline_src.study import config

ROOT = Path(__file__).parents[2]


def write(folder: Path, name: str, spread: float, methods: tuple[str, ...] = ("better", "other")) -> None:
    """Accuracies of four seeds; the differences to joint training vary by `spread` points."""
    rows = []
    for method in ("audio-only", "joint", *methods):
        fusion = "none" if method.endswith("-only") else "concat"
        for seed in range(4 if name == "new-data" else 6):
            own = 0.01 * spread * (seed % 2 - 0.5) if method in methods else 0.0
            value = 0.8 + 0.01 * seed + 0.1 * (method == "better") + own
            rows.append(("d", "r", fusion, method, seed, "test", "fused", "accuracy", value))
            rows.append(("d", "r", fusion, method, seed, "test", "audio", "accuracy_probe", 0.5))
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / f"{name}.csv", index=False)


def test_the_page_is_made_of_its_files(monkeypatch):
    monkeypatch.chdir(ROOT)
    page = new_data.PAGE.read_text(encoding="utf-8")
    assert new_data.written(page) == page, "run: python -m benchmarks new-data"
    rows = pd.read_csv(new_data.FOLDER / "new-data.csv")
    params = config.load(new_data.STUDIED)
    assert set(rows.groupby("method").seed.apply(list).map(tuple)) == {tuple(params.study.seeds)}
    assert set(rows.method) == {*params.study.methods, "audio-only", "visual-only", ENSEMBLE}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(new_data, "FOLDER", tmp_path)
    monkeypatch.setattr(new_data, "STUDIED", ROOT / new_data.STUDIED)
    return tmp_path


def test_the_methods_and_seeds_of_both_are_compared_with_the_same_correction(folder):
    write(folder, "default", 1.0, ("better", "other", "third"))
    write(folder, "new-data", 3.0)
    text = new_data.section()
    assert "corrected for 2 comparisons in both studies" in text and "third" not in text
    line = next(line for line in text.splitlines() if line.startswith("| better"))
    assert "**+10.0 ± 0.6** [+8.8, +11.2]" in line and "**+10.0 ± 1.7** [+6.4, +13.6]" in line
    assert "standard deviations are 3.0 times as large (median; 3.0 to 3.0)" in text
    assert "- Every verdict is the same." in text


def test_a_verdict_that_new_data_change_is_named(folder):
    write(folder, "default", 1.0)
    write(folder, "new-data", 9.0)
    assert "- Verdicts that differ: better (a gain; with new data not significant)." in new_data.section()
