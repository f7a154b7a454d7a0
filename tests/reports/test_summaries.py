import json
import math
from pathlib import Path

import pandas as pd
import pytest

from pipeline_src.core import files
from pipeline_src.reports import summaries
from pipeline_src.reports.aggregate import aggregate
from pipeline_src.study.runs import write_record
from tests.reports.study import Study, record


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study(methods=("joint", "ogm"), seeds=(0, 1))
    study.write_all()
    return study


def history(study):
    return summaries.history(study.runs)


def test_each_cell_has_its_means(study):
    for seed, value in ((0, 0.5), (1, 0.7)):
        study.write(study.run("ogm", seed), value, audio=value + 0.1, visual=0.25)
    aggregate(study)
    assert files.read_json(Path("results/metrics/av_digits/concat/ogm.json")) == {
        "fused": 0.6,
        "audio": 0.7,
        "visual": 0.25,
    }
    assert set(files.read_json(Path("results/metrics/av_digits/none/audio-only.json"))) == {"fused", "audio"}
    assert sorted(cell.place.with_suffix(".json") for cell in study.cells) == sorted(
        path.relative_to("results/metrics") for path in Path("results/metrics").rglob("*.json")
    )


def test_an_incomplete_cell_has_none_and_what_was_there_goes(study):
    aggregate(study)
    Path("results/metrics/av_digits/concat/gone.json").write_text("{}")
    study.run("ogm", 1).metrics.unlink()
    aggregate(study)
    assert sorted(path.name for path in Path("results/metrics").rglob("*.json")) == [
        "audio-only.json",
        "joint.json",
        "visual-only.json",
    ]


def test_history_is_the_mean_over_the_seeds(study):
    for seed in (0, 1):
        row = {"epoch": 0, "ratio/audio": 1.0 + seed, "loss": 4, "lr": 0.1, "seconds": 3.0}
        run = study.run("ogm", seed)
        files.write_text(run.folder / "metrics.jsonl", json.dumps(row) + "\n")
        write_record(run.folder, record(run))
    found = history(study)
    assert list(found) == summaries.HISTORY
    ogm = found[found.method == "ogm"].set_index(["modality", "metric", "epoch"])
    assert ogm.value.to_dict() == {("audio", "ratio", 1): 1.5, ("fused", "loss", 1): 4.0}


def test_history_of_a_single_modality_is_that_modalitys(study):
    found = history(study)
    assert set(found[found.method == "audio-only"].modality) == {"audio"}
    joint = found[(found.method == "joint") & (found.metric == "val_accuracy")]
    assert joint.groupby("modality").epoch.apply(list).to_dict() == {m: [1, 2, 3] for m in ("audio", "fused", "visual")}


def test_history_as_csv_is_what_was_aggregated(study):
    aggregate(study)
    written = pd.read_csv("results/history.csv")
    assert len(written) == len(history(study)) > 0
    assert math.isclose(written.value.sum(), history(study).value.sum())
