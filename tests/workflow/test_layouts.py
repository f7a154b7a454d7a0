"""Words, sequences and small pictures through every stage: from the published files, made small, to metrics."""

import pytest
import torch
import yaml

from pipeline_src.core import files
from pipeline_src.datasets.fetch import fetch
from pipeline_src.datasets.manifest import make
from pipeline_src.evaluation.run import evaluate
from pipeline_src.features.build import extract, pack
from pipeline_src.study.plan import Plan
from pipeline_src.training.run import train
from tests.datasets import published

PICTURE = {"kind": "convnet", "width": 4, "features": 8}
WORDS = {"kind": "transformer", "width": 8, "layers": 1, "heads": 2, "feedforward": 8, "words": 101}
STUDIES = {
    "cmu_mosi": ({}, "none"),
    "food101": ({"image": PICTURE, "text": WORDS}, "imagenet"),
    "cg_mnist": ({"gray": PICTURE, "colored": PICTURE}, "train"),
}


@pytest.mark.parametrize("kind", STUDIES)
def test_published_files_become_metrics(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    encoders, normalize = STUDIES[kind]
    values = published.params(tmp_path / "own", **published.MADE[kind](tmp_path / "own"))
    values["study"] |= {"methods": ["ogm"], "unimodal": False}
    values["model"]["encoders"] |= encoders
    values["training"] |= {"normalize": normalize, "resident_fraction": 0.0}
    if kind == "cg_mnist":
        values["datasets"][kind]["recipe"] = "pmr-2023-cgmnist"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))

    fetch(Plan("params.yaml").datasets[kind])
    plan = Plan("params.yaml")
    data, threads = plan.datasets[kind], torch.get_num_threads()
    make(data)
    for index in range(len(data.shards)):
        extract(data, index)
    pack(data)
    train(plan.runs, plan.params)
    evaluate(plan.runs, plan.params)
    torch.set_num_threads(threads)

    info = files.read_json(data.cache / "cache.json")
    assert info["quarantined"] == 0 and set(info["splits"]) == {"train", "val", "test"}
    rows = files.read_json(plan.runs[0].metrics)["metrics"]
    found = {(row["split"], row["modality"], row["metric"]): row["value"] for row in rows}
    assert all(0 <= found[split, "fused", "accuracy"] <= 1 for split in ("val", "test"))
    assert {m for _, m, metric in found if metric == "accuracy_probe"} == set(data.extractors)
