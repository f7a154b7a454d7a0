"""The page on equal tuning says what the report makes of its two files."""

import pandas as pd
import pytest

from benchmarks import tuning
from pipeline_src.study import config


@pytest.fixture(autouse=True)
def root(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


def test_the_page_is_made_of_its_files():
    page = tuning.PAGE.read_text(encoding="utf-8")
    assert tuning.written(page) == page, "run: python -m benchmarks tuning"


def test_the_files_have_every_run_and_every_trial():
    params = config.load(tuning.STUDIED)
    configurations = len(params.study.methods) + 2  # and each modality alone
    trials, rows = pd.read_csv(tuning.TRIALS), pd.read_csv(tuning.ACCURACIES)
    assert len(trials) == configurations * params.tuning.trials and trials.chosen.sum() == configurations
    assert set(rows.groupby("method").seed.apply(list).map(tuple)) == {tuple(params.study.seeds)}
    assert len(rows) == 2 * (configurations + 1) * len(params.study.seeds)  # and the ensemble, in both halves
    for _, group in trials.groupby("method"):
        best = group["mean"].max()
        assert group[group.chosen]["mean"].item() == best
        assert group.trial[group.chosen].item() == group.trial[group["mean"] == best].min()
