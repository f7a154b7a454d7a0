"""A table with several labels per sample, or a number, through all stages to the report."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline_src.datasets import manifest
from pipeline_src.evaluation.run import evaluate
from pipeline_src.features.build import extract, pack
from pipeline_src.reports.aggregate import aggregate
from pipeline_src.study.plan import Plan
from pipeline_src.training.run import train
from tests.datasets.test_table import params

COUNT = 90


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Arrays and texts of samples, the array with the sample's label in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "media").mkdir()
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        values = rng.normal(size=(2, 3)) + np.array([i % 3, i % 2, 1])
        np.save(tmp_path / f"media/s{i:02}.npy", values.astype(np.float32))
        (tmp_path / f"media/s{i:02}.txt").write_text(f"word{i % 3} word{i % 2}")
    return tmp_path


def plan(folder, task, labels) -> Plan:
    names = [f"s{i:02}" for i in range(COUNT)]
    table = pd.DataFrame({"id": names, "label": labels})
    table["pose"], table["words"] = [f"{name}.npy" for name in names], [f"{name}.txt" for name in names]
    table.to_csv(folder / "media/table.csv", index=False)
    values = params(task=task, modalities={"posing": "pose", "reading": "words"})
    values["study"] |= {"methods": ["joint", "ogm_ge", "opm"], "seeds": [0, 1, 2], "unimodal": True}
    values["training"] |= {"epochs": 2, "batch_size": 16, "track_test": True}
    values["methods"], values["tracking"] = {}, {"enabled": False}
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return Plan("params.yaml")


@pytest.mark.parametrize(
    ("task", "metric", "label", "labels"),
    [
        ("multilabel", "map", "mAP", ["a" if i % 3 else "a;b" if i % 2 else "c" for i in range(COUNT)]),
        ("regression", "mae", "MAE", [i % 3 - 1.0 + i % 2 / 2 for i in range(COUNT)]),
    ],
)
def test_a_table_becomes_a_report(folder, task, metric, label, labels):
    study = plan(folder, task, labels)
    (data,) = study.data
    manifest.make(data)
    for shard in range(len(data.shards)):
        extract(data, shard)
    pack(data)
    for run in study.runs:
        train([run], study.params)
        evaluate([run], study.params)
    aggregate(study)
    table = pd.read_csv(study.results / "tables/accuracy.csv").set_index("method")
    assert table.complete.all() and (table.metric == metric).all()
    assert list(table.index) == ["posing-only", "reading-only", "joint", "ogm_ge", "opm", "ensemble"]
    assert table[f"{metric}_mean"].notna().all() and table[f"{metric}_gain_p"].notna().sum() == 3
    assert table[f"posing/{metric}_probe_mean"].drop(["reading-only", "ensemble"]).notna().all()
    assert f"{label} minus that of joint" in (study.results / "tables/accuracy.md").read_text()
    predictions = pq.read_table(study.runs[-1].evaluation / "predictions.parquet").to_pandas()
    if task == "regression":
        test = predictions[predictions.split == "test"]
        row = pd.read_parquet(study.results / "metrics.parquet").query("metric == 'mae' and split == 'test'")
        values = row[(row.method == "opm") & (row.seed == 2)].value.tolist()
        assert values == [pytest.approx(np.abs(test.label - test.predicted).mean(), rel=1e-5)]
    else:
        assert {len(x) for x in predictions.predicted} == {3} and {len(x) for x in predictions.label} == {3}
