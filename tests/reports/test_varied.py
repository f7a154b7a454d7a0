"""Runs whose data differs by seed: one row for all seeds, and no sample is compared across seeds."""

import html
import re
from pathlib import Path

import pandas as pd
import pytest

from pipeline_src.reports import wording
from pipeline_src.reports.aggregate import aggregate
from pipeline_src.reports.ensemble import ENSEMBLE
from tests.reports.study import Study
from tests.reports.test_ensemble import with_logits

CLIPS = ["accuracy_gain_clips_low", "accuracy_gain_clips_high"]
TABLE = Path("results/tables/accuracy.csv")


def made(vary: list[str], folder: Path, monkeypatch) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Accuracy table, history and the report's words of a study."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    study = Study(methods=("joint", "ogm"), vary=vary)
    study.write_all()
    study.write_cache()
    with_logits(study)
    aggregate(study)
    text = re.sub(r"<[^>]+>", " ", Path("results/report.html").read_text(encoding="utf-8"))
    return pd.read_csv(TABLE), pd.read_csv("results/history.csv"), " ".join(html.unescape(text).split())


@pytest.fixture
def fixed(tmp_path, monkeypatch):
    return made([], tmp_path / "fixed", monkeypatch)


@pytest.mark.parametrize("vary", [["split"], ["split", "data"]])
def test_tables_are_those_of_the_same_scores_but_for_what_pairs_samples(fixed, vary, tmp_path, monkeypatch):
    table, history, text = made(vary, tmp_path / "varied", monkeypatch)
    pd.testing.assert_frame_equal(table.drop(columns=CLIPS), fixed[0].drop(columns=CLIPS))
    pd.testing.assert_frame_equal(history, fixed[1])
    assert len(table) == 5 and set(table.seeds) == {"3 of 3"}
    compared = table.index[table.method.isin(["ogm", ENSEMBLE])]
    assert len(compared) == 2 and fixed[0].loc[compared, CLIPS].notna().all(axis=None)
    if "data" in vary:  # an id is another sample in each seed
        assert table[CLIPS].isna().all(axis=None)
    else:
        pd.testing.assert_frame_equal(table[CLIPS], fixed[0][CLIPS])
    assert "1 198 to 1 200 train, 200 to 202 val, 300 test, in 3 draws, one for each seed" in text
    assert wording.covered(vary, "All draws have ten digits.") in text
    assert ("All draws have ten digits." in text) == ("data" in vary)


def test_a_study_of_one_draw_says_so(fixed):
    said = wording.covered([])
    assert said in fixed[2] and "1 200 train, 200 val, 300 test." in fixed[2]
    assert said.endswith("Split and data are the same in all seeds, so intervals do not cover other data.")
    assert "Test samples are the same in all seeds" in wording.covered(["split"])
    assert "same in all" not in wording.covered(["data"]) and "split" not in wording.covered(["data"])
