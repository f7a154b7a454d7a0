"""On disk: an observed run has the weights, predictions, rows and costs of one that is not, and says what it cost."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline_src.corruptions.base import corruptions
from pipeline_src.evaluation import run as evaluation
from pipeline_src.evaluation.params import Evaluation
from pipeline_src.observers.base import SECONDS, observers
from pipeline_src.training.loader import Loader
from tests.observers.test_observers import CPU, declared
from tests.synthetic import SPLITS, SyntheticCache
from tests.training.test_run import killed, make_run, rows, same, tensors, train

TIMES = {"seconds", "fixed_seconds", "started", "ended", "peak_memory_mb", SECONDS.name, "files", "checksum"}


def observed(folder, **training):
    """A run of a synthetic cell with every observer, each after every second epoch."""
    one = make_run(folder, **training)
    every = {name: observers[name].Params(every=2) for name in observers}
    one.cell.spec = replace(one.cell.spec, observers=every)
    return one


def bare(one) -> list[dict]:
    """The rows without what observers add, and without times."""
    left = declared() | {"seconds"}
    return [{k: v for k, v in row.items() if k.partition("/")[0] not in left} for row in rows(one)]


def predictions(one, cache, **how) -> dict[str, np.ndarray]:
    """The columns of numbers that evaluating a run writes."""
    cell = one.cell
    spoiled = {"missing": corruptions["missing"].Params(rates=[0.5])}
    asked = {"tsne": 5.0, "corruptions": spoiled, **how}
    cell.evaluation = Evaluation(batch_size=8, probe_c=1.0, probe_iterations=1000, **asked)
    one.evaluation = one.folder / "evaluation"
    one.metrics = one.evaluation / "metrics.json"
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=False) for s in SPLITS}
    evaluation._evaluate(one, cache, loaders, CPU)
    table = pq.read_table(one.evaluation / "predictions.parquet")
    return {name: np.asarray(table[name].to_pylist()) for name in table.column_names}


def test_an_observed_run_has_the_files_of_one_that_is_not(tmp_path):
    cache = SyntheticCache(2)
    plain, watched = make_run(tmp_path / "plain"), observed(tmp_path / "watched")
    train(plain, cache), train(watched, cache)
    assert same(tensors(plain), tensors(watched))
    assert bare(watched) == bare(plain) and bare(plain)[0].keys() == rows(plain)[0].keys() - {"seconds"}
    ours, theirs = (json.loads(one.record.read_text()) for one in (plain, watched))
    assert theirs.pop(SECONDS.name) == sum(row.get(SECONDS.name, 0.0) for row in rows(watched)) > 0
    assert theirs["parameters"].pop("observers").keys() == set(observers)
    assert {k: v for k, v in ours.items() if k not in TIMES} == {k: v for k, v in theirs.items() if k not in TIMES}
    assert [SECONDS.name in row for row in rows(watched)] == [False, True, True]
    first, second = predictions(plain, cache), predictions(watched, cache)
    assert first.keys() == second.keys() and {"m0/tsne", "m1/tsne"} <= first.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)  # NaN are equal
    placed = np.isfinite(first["m0/tsne"]).all(1)
    assert (placed == (first["split"] == "test")).all()
    metrics = [json.loads((one.folder / "evaluation/metrics.json").read_text())["metrics"] for one in (plain, watched)]
    assert [row for row in metrics[0] if row["split"] != "train"] == [
        row for row in metrics[1] if row["split"] != "train"
    ]
    assert {row["modality"] for row in metrics[0] if row["split"] == "corrupted"} == {"m0", "m1", "fused"}


def test_the_probe_is_fitted_on_no_more_samples_than_asked(tmp_path):
    assert evaluation.spread(10, 10) == slice(None)
    assert evaluation.spread(10, 4).tolist() == [0, 2, 5, 7]
    cache, one = SyntheticCache(2), make_run(tmp_path)
    train(one, cache)
    count = len(cache.rows("train"))
    every, as_many, fewer = (
        predictions(one, cache, **how) for how in ({}, {"probe_samples": count}, {"probe_samples": 9})
    )
    for name in every:
        np.testing.assert_array_equal(every[name], as_many[name], err_msg=name)
        if not name.endswith("/probe"):
            np.testing.assert_array_equal(every[name], fewer[name], err_msg=name)
    assert not np.array_equal(every["m0/probe"], fewer["m0/probe"])


@pytest.mark.parametrize("after", [1, 2])
def test_a_killed_run_observes_the_rest_as_if_nothing_had_been(tmp_path, monkeypatch, after):
    whole, cut = observed(tmp_path / "whole"), observed(tmp_path / "cut")
    train(whole)
    killed(cut, after, monkeypatch)
    train(cut)
    times = {"seconds", SECONDS.name}
    without = [[{k: v for k, v in row.items() if k not in times} for row in rows(one)] for one in (whole, cut)]
    assert without[0] == without[1] and same(tensors(whole), tensors(cut))
