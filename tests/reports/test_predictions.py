"""Columns of predictions.parquet as arrays: of one split, and without an object of Python for a sample."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline_src.reports import predictions

COUNT, CLASSES = 3_000, 100


@pytest.fixture
def file(tmp_path):
    number = np.arange(COUNT)
    logits = np.arange(COUNT * CLASSES, dtype=np.float32)
    table = {
        "id": [f"c{i}" for i in number],
        "split": np.where(number % 3 == 0, "test", "val"),
        "label": pa.array(number, pa.int32()),
        "truth": pa.array(number / 7, pa.float32()),
        "fused": pa.FixedSizeListArray.from_arrays(pa.array(logits), CLASSES),
    }
    pq.write_table(pa.table(table), tmp_path / "predictions.parquet", row_group_size=1_000)
    return tmp_path / "predictions.parquet"


def test_columns_of_a_split(file):
    assert predictions.names(file) == ["id", "split", "label", "truth", "fused"]
    found = predictions.read(file, ["fused", "id", "label", "truth"], "test")
    rows = np.arange(0, COUNT, 3)
    assert list(found) == ["fused", "id", "label", "truth"]
    assert found["id"].tolist() == [f"c{i}" for i in rows]
    assert found["label"].tolist() == rows.tolist() and found["label"].dtype == np.int32
    assert found["truth"].tobytes() == (rows / 7).astype(np.float32).tobytes()
    expected = np.arange(COUNT * CLASSES, dtype=np.float32).reshape(COUNT, CLASSES)[rows]
    assert found["fused"].dtype == np.float32 and np.array_equal(found["fused"], expected)


def test_a_split_without_samples(file):
    found = predictions.read(file, ["id", "label", "fused"], "train")
    assert len(found["id"]) == found["label"].size == found["fused"].size == 0


def test_no_object_of_python_per_sample(file):
    predictions.read(file, ["label", "fused"], "val")  # what is imported and read once
    tracemalloc.start()
    found = predictions.read(file, ["label", "fused"], "val")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found["label"]) == 2_000
    assert peak < 50 * 2_000, f"{peak / 2_000:.0f} bytes a sample; an array of its logits takes 112 beside them"
