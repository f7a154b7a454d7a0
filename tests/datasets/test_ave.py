"""AVE with a label per second: from its videos, and from its published features."""

import numpy as np
import pandas as pd
import pytest

from pipeline_src.core.errors import UserError
from pipeline_src.datasets import fetch, manifest
from pipeline_src.features.build import extract, pack
from pipeline_src.features.read import Cache
from tests.datasets import published

CLIPS = 32
arrays = published.ave_arrays
EDITS = {
    "a label of two classes": (
        "labels",
        lambda a: a.__setitem__((0, 0, 1), 1),
        r"labels\.\w+: expected one class for each second",
    ),
    "nine seconds": (
        "audio_feature",
        lambda a: a[:, :9],
        r"audio_feature\.\w+: expected \(32, 10, 128\), but got \(32, 9, 128\)",
    ),
    "a clip that is not there": (
        "val_order",
        lambda a: a + CLIPS,
        r"val_order\.\w+: expected numbers of clips below 32",
    ),
}


def features(folder, content, suffix):
    published.ave_features(folder, content, suffix)
    return published.plan(folder.parent, folder, kind="ave_features", shards=2)


@pytest.fixture(params=["npy", "h5"])
def suffix(request):
    if request.param == "h5":
        pytest.importorskip("h5py", reason="pip install -r envs/hdf5.txt")
    return request.param


def made(data) -> pd.DataFrame:
    if data.fetched:
        fetch.fetch(data)
    manifest.make(data)
    return pd.read_parquet(data.manifest / "manifest.parquet").set_index("id")


def test_published_features_and_labels_by_second_become_a_cache(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    data = features(tmp_path / "ave", arrays(), suffix)
    table = made(data)
    assert table.split.value_counts().to_dict() == {"train": 28, "val": 2, "test": 2}
    assert list(table.label["ave-0003"]) == ["background"] * 2 + ["event-04"] * 8
    for shard in range(2):
        extract(data, shard)
    pack(data)
    cache = Cache(data.cache)
    row = cache.clips.id.tolist().index("ave-0005")
    assert cache.classes[-1] == "background" and cache.clips.label[row].tolist() == [28, 28, *[5] * 8]
    assert cache.gather("visual", np.array([row])).shape == (1, 10, 25_088)
    assert (cache.gather("audio", np.array([row])) == 5).all()


@pytest.mark.parametrize("name", EDITS)
def test_features_that_are_not_as_published(tmp_path, monkeypatch, suffix, name):
    monkeypatch.chdir(tmp_path)
    stem, edit, message = EDITS[name]
    content = arrays()
    changed = edit(content[stem])
    content[stem] = content[stem] if changed is None else changed
    with pytest.raises(UserError, match=message):
        fetch.fetch(features(tmp_path / "ave", content, suffix))


def test_what_is_no_array_or_missing_is_one_line(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    data = features(tmp_path / "ave", arrays(), suffix)
    file = tmp_path / f"ave/labels.{suffix}"
    file.write_bytes(b"no")
    with pytest.raises(UserError, match=r"labels\.\w+: expected an array, but got an error: .*; get the file again"):
        fetch.fetch(data)
    file.unlink()
    with pytest.raises(UserError, match=r"labels\.h5: expected an HDF5 file, but got no file"):
        fetch.fetch(data)


def test_without_h5py_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ave").mkdir()
    (tmp_path / "ave/labels.h5").write_bytes(b"no")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    data = published.plan(tmp_path, tmp_path / "ave", kind="ave_features")
    with pytest.raises(UserError, match=r"^h5py: expected it to be installed, .*; pip install -r envs/hdf5\.txt"):
        fetch.fetch(data)


def test_the_seconds_of_the_lists_are_the_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "ave"
    folder.mkdir()
    block = published.ave(folder)
    table = made(published.plan(tmp_path, folder, **block | {"kind": "ave_segments"}))
    twice = table[table.index.str.endswith(".2")].label
    assert [list(label) for label in twice] == [["background"] * 3 + ["Event 0, loud"] * 2 + ["background"] * 5]
    assert {len(set(label)) for label in table.label} == {1, 2}
