"""The ensemble of the models trained alone: a row beside the methods, from the predictions of the same seed."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.reports import ensemble
from pipeline_src.reports.aggregate import aggregate
from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.tasks.base import tasks
from tests.reports.study import Study


def with_logits(study, strength=(3.0, 2.0)):
    """Give every unimodal run's predictions logits: right for the samples of one modality, unsure for the rest."""
    for run in study.runs:
        own = run.cell.spec.modalities
        if len(own) != 1:
            continue
        file = run.evaluation / "predictions.parquet"
        table = pq.read_table(file)
        label, rng = table["label"].to_numpy(), np.random.default_rng(run.seed)
        place = list(study.datasets["av_digits"].extractors).index(own[0])
        logits = rng.normal(0, 0.1, (len(label), 10))
        known = np.arange(len(label)) % 2 == place
        logits[known, label[known]] += strength[place]
        values = pa.FixedSizeListArray.from_arrays(pa.array(logits.astype(np.float32).reshape(-1)), 10)
        files.write_table(file, table.append_column("fused", values))


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Study(methods=("joint", "ogm"))
    made.write_all()
    made.write_cache()
    with_logits(made)
    return made


def test_the_mean_of_probabilities():
    task = tasks["classification"](2)
    logits = [np.log([[0.9, 0.1], [0.6, 0.4]]), 5 + np.log([[0.3, 0.7], [0.1, 0.9]])]
    assert np.exp(task.ensemble(logits)) == pytest.approx(np.array([[0.6, 0.4], [0.35, 0.65]]))
    extreme = task.ensemble([np.array([[1e4, -1e4]]), np.array([[-1e4, 1e4]])])
    assert np.exp(extreme) == pytest.approx(np.array([[0.5, 0.5]])), "finite for large logits"


@pytest.mark.parametrize("name", ["classification", "segments", "multilabel", "regression"])
def test_blocks_of_rows_have_the_same_mean_and_take_less_memory(name, monkeypatch):
    task = tasks[name](300)
    rng = np.random.default_rng(0)
    logits = [rng.normal(size=(2_000, task.outputs)).astype(np.float32) for _ in range(2)]
    whole = task.ensemble(logits)
    monkeypatch.setattr(ensemble, "BLOCK", 7 * task.outputs)  # does not divide the rows
    tracemalloc.start()
    found = ensemble.averaged(task, logits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.dtype == whole.dtype and found.tobytes() == whole.tobytes()
    assert peak < 1.5 * whole.nbytes + 200_000, f"{peak / whole.nbytes:.1f} times the result"


def test_it_is_right_where_either_modality_is(study):
    aggregate(study)
    metrics = pd.read_parquet("results/metrics.parquet").query("method == @ENSEMBLE")
    test = metrics.query("split == 'test' and metric == 'accuracy'")
    assert test.fusion.unique().tolist() == ["concat"] and test.seed.tolist() == [0, 1, 2]
    assert test.value.min() > 0.99, "each modality knows half of the samples, the mean all"
    assert set(metrics.split) == {"val", "test", "train"}
    assert {"macro_f1", "map", "nll", "ece"} <= set(metrics.metric)
    cost = metrics.query("metric == 'forwards' and seed == 0").value.item()
    assert cost == 1234567, "two runs of one encoder each are as many passes as one of both"


def test_it_is_compared_with_joint_training(study):
    aggregate(study)
    table = pd.read_csv("results/tables/accuracy.csv").set_index("method")
    assert list(table.index) == ["audio-only", "visual-only", "joint", "ogm", ENSEMBLE]
    row = table.loc[ENSEMBLE]
    assert row.accuracy_gain_mean == pytest.approx(row.accuracy_mean - table.accuracy_mean["joint"])
    assert row.accuracy_gain_family == 2, "ogm and the ensemble"
    assert row.accuracy_gain_p_corrected == pytest.approx(min(1, 2 * row.accuracy_gain_p))
    assert row.accuracy_gain_clips_low < row.accuracy_gain_clips_high
    number = json.loads(Path("results/metrics/av_digits/concat/ensemble.json").read_text())
    assert number == {"fused": pytest.approx(row.accuracy_mean, abs=1e-5)}
    words = Path("results/tables/accuracy.md").read_text(encoding="utf-8")
    assert "| concat | ensemble" in words and "arXiv:2305.01233" in words
    assert ENSEMBLE in Path("results/figures/gains-av_digits.svg").read_text(encoding="utf-8")
    page = Path("results/report.html").read_text(encoding="utf-8")
    headline = page.split('class="headline">')[1].split("</p>")[0]
    assert ENSEMBLE not in headline, "it is no method"
    assert "Reference: ensemble with concat (" in page and "correction for 2 comparisons" in page


def test_it_waits_for_every_modality_of_a_seed(study):
    study.run("audio-only", 1).metrics.unlink()
    aggregate(study)
    table = pd.read_csv("results/tables/accuracy.csv").set_index("method")
    assert table.seeds[ENSEMBLE] == "2 of 3" and table.accuracy_gain_n[ENSEMBLE] == 2
    assert np.isnan(table.accuracy_gain_p[ENSEMBLE]) and table.accuracy_gain_family["ogm"] == 1
    for seed in (0, 2):
        study.run("audio-only", seed).metrics.unlink()
    aggregate(study)
    assert ENSEMBLE not in pd.read_csv("results/tables/accuracy.csv").method.tolist()


def test_predictions_of_other_samples_are_refused(study):
    file = study.run("visual-only", 0).evaluation / "predictions.parquet"
    table = pq.read_table(file)
    files.write_table(file, table.slice(1))
    with pytest.raises(UserError, match="expected predictions of the samples of"):
        aggregate(study)
