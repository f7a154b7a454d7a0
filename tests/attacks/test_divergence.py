"""Values that are not finite: a diverged run is a finding that every output names, a bad sample goes to quarantine."""

import json
import wave
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_src.datasets.manifest import cut_val
from pipeline_src.features import unseen_in_val
from pipeline_src.features.build import finite
from pipeline_src.media.base import MediaError
from pipeline_src.media.decode import mono
from pipeline_src.study.plan import Plan
from tests.attacks.judge import STUDY, call, put


@pytest.mark.parametrize("change", [("training.lr", "1.0e+9"), ("training.weight_decay", "1.0e+30")])
def test_a_run_that_diverges_is_recorded_shown_and_never_averaged(change, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(put(put(STUDY, *change), "study.methods", "[joint, ogm]"))
    for stage in ("fetch", "manifest", "extract", "cache"):
        assert call(stage).status == 0
    runs = Plan().runs
    for run in runs:
        for arguments in (("train", run.record), ("evaluate", run.metrics)):
            outcome = call(*arguments)
            assert outcome.status == 0, outcome.err
            assert "diverged in epoch" in outcome.err
        record = json.loads(run.record.read_text())
        assert record["status"] == "diverged"
        assert record["diverged"]["epoch"] in (1, 2) and "not finite" in record["diverged"]["reason"]
        assert all(file.exists() for file in (*run.train_files, *run.evaluate_files))
    outcome = call("aggregate")
    assert outcome.status == 0, outcome.err
    assert Plan().index.exists(), "a study whose runs diverged is done"
    table = pd.read_csv(Plan().results / "tables" / "accuracy.csv")
    assert table.accuracy_mean.isna().all()
    assert "diverged" in (Plan().results / "report.html").read_text()
    said = call("status").out
    assert "diverged" in said and "not finite" in said
    assert call("verify").status == 0


def test_sound_that_is_not_finite_is_refused_before_a_floor_hides_it(tmp_path):
    rate, file = 16000, tmp_path / "a.wav"
    samples = np.sin(np.arange(rate) / 20).astype(np.float32)
    write_float(file, samples, rate)
    assert len(mono(file, rate, rate)) == rate
    for bad in (np.nan, np.inf):
        samples[5000] = bad
        write_float(file, samples, rate)
        with pytest.raises(MediaError, match="samples are not finite"):
            mono(file, rate, rate)


def write_float(file: Path, samples: np.ndarray, rate: int) -> None:
    """A WAV file of 32-bit floats: the header of one with integers, with the format's number changed."""
    with wave.open(str(file), "wb") as writer:
        writer.setparams((1, 4, rate, len(samples), "NONE", ""))
        writer.writeframes(samples.tobytes())
    content = bytearray(file.read_bytes())
    content[20:22] = (3).to_bytes(2, "little")
    file.write_bytes(content)


def test_arrays_of_every_extractor_are_looked_at():
    assert finite(np.arange(3, dtype=np.uint8)).tolist() == [0, 1, 2]
    assert finite(np.zeros(3, np.float16)).tolist() == [0, 0, 0]
    with pytest.raises(MediaError, match="2 of 4 values are not finite"):
        finite(np.array([0, np.nan, np.inf, 1], np.float16))


def test_val_has_every_class_of_train_that_has_two_groups():
    """Classes of one group each but one or two: the folds alone would leave some out of val."""
    labels = ["common"] * 60 + ["rare"] * 2 + ["single"]
    groups = [f"g{i}" for i in range(60)] + ["r0", "r1", "s"]
    table = pd.DataFrame({"label": labels, "group": groups, "split": "train"})
    for seed in range(10):
        splits = cut_val(table, 0.1, seed)
        assert unseen_in_val(table.label, splits) == ["single"], "one group cannot be on both sides"
        assert not (set(table.group[splits == "val"]) & set(table.group[splits == "train"]))
        assert set(table.label[splits == "train"]) == set(labels)


def test_classes_that_val_lacks():
    label, split = pd.Series(["a", "b", "a"]), pd.Series(["train", "train", "val"])
    assert unseen_in_val(label, split) == ["b"]
