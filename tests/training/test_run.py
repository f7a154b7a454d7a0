"""The train stage on disk: the record, the choice of the epoch, interruption, and what test data can never do."""

import json
from types import SimpleNamespace

import pytest
import torch

from pipeline_src.training import checkpoint, run, writer
from pipeline_src.training.interrupt import Stop
from pipeline_src.training.loader import Loader
from tests.synthetic import SPLITS, SyntheticCache, spec

CPU = torch.device("cpu")
PARAMS = SimpleNamespace(
    resources=SimpleNamespace(train=SimpleNamespace(threads=1, mem_mb=1000)),
    training=SimpleNamespace(checkpoint_minutes=10, resident_fraction=0.5),
)


class Killed(BaseException):
    """Stands for the end of the process."""


def make_run(folder, cache=None, **training):
    """A run of a synthetic cell whose outputs lie in `folder`."""
    cache = cache or SyntheticCache(2)
    data = SimpleNamespace(cache_fp="cafe")
    cell = SimpleNamespace(spec=spec(cache, **training), code="c0de", fp="beef", data=data, outcome=None)
    names = {"dataset": "d", "recipe": "r", "fusion": "concat", "method": "joint", "seed": 0}
    return SimpleNamespace(
        cell=cell, seed=0, requires={}, names=names, label="d", folder=folder, record=folder / "record.json"
    )


def train(one, cache=None, stop=None):
    cache = cache or SyntheticCache(2)
    cache.folder, cache.info = "cache", {"sha256": "feed"}
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in SPLITS}
    run._train(one, cache, loaders, CPU, PARAMS, None, stop or Stop())


def rows(one) -> list[dict]:
    return [json.loads(line) for line in (one.folder / "metrics.jsonl").read_text().splitlines()]


def bare(one) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(one)]


def tensors(one) -> dict[str, torch.Tensor]:
    return checkpoint.load(one.folder / "weights.safetensors")[0]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_finished_run_says_what_it_was(tmp_path):
    one = make_run(tmp_path)
    train(one)
    record = json.loads(one.record.read_text())
    assert record["status"] == "complete"
    assert record["parameters"] == one.cell.spec.record()
    assert (record["fingerprint"], record["code"], record["cache"]["sha256"]) == ("beef", "c0de", "feed")
    assert record["seed"] == 0
    assert record["versions"]["torch"] == torch.__version__
    assert record["forwards"] == 3 * SPLITS["train"]
    assert {p.name for p in tmp_path.iterdir()} == {"record.json", "metrics.jsonl", "weights.safetensors"}
    best = max(rows(one), key=lambda row: (row["val_accuracy"], row["epoch"]))
    assert record["selected"] == {"epoch": best["epoch"], "val_accuracy": best["val_accuracy"]}


def killed(one, after, monkeypatch):
    """Trains a run that is killed when `after` epochs are done."""
    epoch = run.Trainer.epoch

    def dies(self, number, pulse):
        if number == after:
            raise Killed
        return epoch(self, number, pulse)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run.Trainer, "epoch", dies)
        train(one)


@pytest.mark.parametrize("after", [1, 2])
def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_been(tmp_path, monkeypatch, after):
    whole, cut = make_run(tmp_path / "whole"), make_run(tmp_path / "cut")
    train(whole)
    killed(cut, after, monkeypatch)
    assert not cut.record.exists()
    assert json.loads((cut.folder / "attempt.json").read_text())["status"] == "failed"
    train(cut)
    assert bare(cut) == bare(whole)
    assert same(tensors(cut), tensors(whole))
    assert json.loads(cut.record.read_text())["resumed"] == 1


@pytest.mark.parametrize("inline", [("cpu",), ()])
def test_killed_between_the_line_and_the_checkpoint_no_line_stands_twice(tmp_path, monkeypatch, inline):
    monkeypatch.setattr(writer, "INLINE", inline)
    whole, cut = make_run(tmp_path / "whole"), make_run(tmp_path / "cut")
    train(whole)
    write = checkpoint.write

    def dies(file, tensors, text):
        if file.name == "checkpoint.safetensors" and json.loads(text)["at"]["epoch"] == 1:
            raise Killed
        write(file, tensors, text)

    monkeypatch.setattr(checkpoint, "write", dies)
    with pytest.raises(Killed):
        train(cut)
    assert len(rows(cut)) == 2
    monkeypatch.setattr(checkpoint, "write", write)
    train(cut)
    assert bare(cut) == bare(whole)
    assert same(tensors(cut), tensors(whole))


def test_test_data_chooses_nothing(tmp_path):
    """Scrambled test labels and inputs leave weights, choice and every number that is not test's as they were."""
    honest, scrambled = SyntheticCache(2), SyntheticCache(2)
    test = scrambled.rows("test")
    scrambled.clips.loc[test, "label"] = 2 - scrambled.clips.label[test]
    for values in scrambled._values.values():
        values[test] = 0
    one, other = make_run(tmp_path / "one"), make_run(tmp_path / "other")
    train(one, honest)
    train(other, scrambled)
    assert same(tensors(one), tensors(other))
    assert rows(one)[-1]["test_accuracy"] != rows(other)[-1]["test_accuracy"]
    for a, b in zip(bare(one), bare(other), strict=True):
        assert {k: v for k, v in a.items() if "test" not in k} == {k: v for k, v in b.items() if "test" not in k}


def test_select_last(tmp_path):
    one = make_run(tmp_path, select="last", track_test=False)
    train(one)
    assert json.loads(one.record.read_text())["selected"]["epoch"] == 2
    assert not any("test" in key for row in rows(one) for key in row)


def test_checkpoints_hold_no_pickle(tmp_path):
    checkpoint.save(tmp_path / "c.safetensors", {"a": torch.arange(3)}, {"epoch": 1})
    assert (tmp_path / "c.safetensors").read_bytes()[8:9] == b"{"
    state, about = checkpoint.load(tmp_path / "c.safetensors")
    assert state["a"].tolist() == [0, 1, 2]
    assert about == {"epoch": 1}


def test_equal_content_is_an_equal_file(tmp_path):
    """safetensors draws the order of the header's entries anew for each file."""
    tensors = {"b": torch.arange(3), "a": torch.ones(2, 2), "a b": torch.tensor([1], dtype=torch.int64)}
    about = {"text": 'ä "quoted" \\ \n', "numbers": [1, 2.5]}
    for i in range(12):
        checkpoint.save(tmp_path / f"{i}.safetensors", tensors, about)
        assert checkpoint.load(tmp_path / f"{i}.safetensors")[1] == about
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


def test_equal_runs_are_equal_weight_files(tmp_path):
    runs = [make_run(tmp_path / name) for name in "ab"]
    for one in runs:
        one.folder.mkdir()
        train(one)
    assert len({(one.folder / "weights.safetensors").read_bytes() for one in runs}) == 1
