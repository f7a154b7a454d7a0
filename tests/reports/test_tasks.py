"""Studies of tasks whose primary metric is not accuracy: its unit and direction in tables, text and figures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline_src.core import files
from pipeline_src.reports import answer, scores, tables
from pipeline_src.reports.aggregate import aggregate
from pipeline_src.reports.declared import primary
from pipeline_src.study.outputs import NO_FUSION
from pipeline_src.study.runs import write_record
from tests.reports.study import Study, record

SEEDS = (0, 1, 2)
ERROR = {
    "audio-only": 1.4,
    "visual-only": 1.5,
    "joint": 1.2,
    "ogm": 0.9,
    "opm": 1.3,
}  # MAE of a method, less seed / 100


class Sentiment(Study):
    """The small study, of numbers to predict."""

    def __init__(self):
        super().__init__(methods=("joint", "ogm", "opm"), seeds=SEEDS)
        for data in self.data:
            data.dataset.task, data.dataset.classes = "regression", []

    def write_all(self):
        for run in self.runs:
            error = (
                ERROR[run.cell.method] - run.seed / 100 + (0.003 * run.seed if run.cell.method in ("ogm", "opm") else 0)
            )
            rows = [("fused", "mae", error), ("fused", "correlation", 0.5), ("fused", "sign_accuracy", 0.7)]
            rows += [("fused", "mae_best_test_epoch", error - 0.05)]
            for m in run.cell.spec.modalities:
                alone = run.cell.fusion == NO_FUSION
                rows += [(m, f"mae_{view}", 1.5 if alone else 1.6) for view in ("unimodal", "removal", "probe")]
            rows = [{"split": "test", "modality": m, "metric": k, "value": v} for m, k, v in rows]
            costs = ("seconds", "forwards", "backwards")
            rows += [{"split": "train", "modality": "fused", "metric": k, "value": 100.0} for k in costs]
            files.write_sealed(run.metrics, {"names": run.names, "metrics": rows})
            history = [{"epoch": i, "seconds": 1.0, "loss": 1.0, "val_mae": error + 0.1 / (i + 1)} for i in range(3)]
            files.write_text(run.folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in history))
            write_record(run.folder, record(run))
            truth = np.linspace(-3, 3, 40).astype(np.float32)
            columns = {
                "id": [f"c{i}" for i in range(40)],
                "split": ["test"] * 40,
                "label": pa.array(truth),
                "predicted": pa.array(truth + np.float32(error)),
            }
            files.write_table(run.evaluation / "predictions.parquet", pa.table(columns))


@pytest.fixture
def sentiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Sentiment()
    study.write_all()
    return study


def test_an_error_that_falls_is_a_gain_in_every_table_and_sentence(sentiment):
    aggregate(sentiment)
    table = pd.read_csv("results/tables/accuracy.csv").set_index("method")
    assert (table.metric == "mae").all() and table.mae_mean["joint"] == pytest.approx(1.19)
    assert table.mae_gain_mean["ogm"] == pytest.approx(-0.297) and table.mae_gain_mean["opm"] == pytest.approx(0.103)
    assert "accuracy_mean" not in table
    page = Path("results/report.html").read_text(encoding="utf-8")
    assert "ogm with concat (\u22120.297 MAE [" in page and "helps" in page
    assert "opm with concat (+0.103 MAE" in page and "hurts" in page
    shown = Path("results/tables/accuracy.md").read_text(encoding="utf-8")
    assert "## MAE: av_digits" in shown and "MAE (lower is better)" in shown
    assert "The mean absolute error." in shown and "cut at 0 and 100" not in shown
    row = next(line for line in shown.splitlines() if line.startswith("| concat | ogm"))
    assert "**0.893 \u00b1 0.007**" in row and "**\u22120.297 \u00b1" in row
    assert "In percent: sign accuracy." in shown and "70.0" in shown


def test_its_figures_are_drawn_in_its_unit(sentiment):
    aggregate(sentiment)
    gains = Path("results/figures/gains-av_digits.svg").read_text(encoding="utf-8")
    assert "MAE above joint" in gains
    learning = Path("results/figures/learning-av_digits-concat.svg").read_text(encoding="utf-8")
    assert "val MAE" in learning and "percent" not in learning
    page = Path("results/report.html").read_text(encoding="utf-8")
    assert "Lower MAE is better: a gain is left of 0." in page
    assert "confusion" in page.split("Not drawn")[-1] or "needs confusions" in page


def rows(dataset, method, metric, values):
    return [
        (dataset, "r", "concat", method, seed, "test", "fused", metric, value)
        for seed, value in zip(SEEDS, values, strict=True)
    ]


def test_a_study_of_two_tasks_reads_each_dataset_by_its_own_metric():
    metrics = pd.DataFrame(
        rows("digits", "joint", "accuracy", [0.8, 0.81, 0.82])
        + rows("digits", "ogm", "accuracy", [0.9, 0.91, 0.92])
        + rows("mosi", "joint", "mae", [1.0, 1.1, 1.2])
        + rows("mosi", "ogm", "mae", [3.0, 3.1, 3.23]),
        columns=scores.COLUMNS,
    )
    cells = metrics[scores.CELL].drop_duplicates().to_dict("records")
    of = {"digits": primary("classification"), "mosi": primary("regression")}
    table = scores.accuracy_table(metrics, cells, SEEDS, 0.95, samples={"digits": 100, "mosi": 100}, primaries=of)
    digits, mosi = (rows for _, rows in table.groupby("dataset"))
    assert scores.primary_of(digits).score == "accuracy" and scores.primary_of(mosi).score == "mae"
    worse = mosi.iloc[1]
    assert worse.mae_gain_mean == pytest.approx(2.01)  # not cut at 1, as no difference of errors is a fraction
    assert np.isnan(worse.accuracy_mean) and np.isnan(digits.iloc[0].mae_mean)
    headlines = [one.headline for one in answer.answers(table, 3, 0.95)]
    assert headlines[0].startswith("ogm with concat (+10.0 points") and "helps" in headlines[0]
    assert "No method is shown to help" in headlines[1]
    titles = [one.title for one in tables.tables(table, 3, 0.95)]
    assert "Accuracy: digits (recipe r)" in titles and "MAE: mosi (recipe r)" in titles
