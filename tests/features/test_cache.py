"""The feature cache gives back what was extracted, bit for bit, however it was cut."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.datasets import quarantine
from pipeline_src.datasets.base import Dataset, DatasetParams
from pipeline_src.features import build, read
from pipeline_src.features.read import Cache, tensors
from pipeline_src.media.base import Extractor, ExtractorParams, MediaError
from pipeline_src.study.outputs import Data

CLIPS = 23
SPLITS = ["train", "train", "val", "test"]


class Fake(Dataset):
    modalities = ("sound", "picture")
    classes = ("cat", "dog", "eel")


class Stored(Extractor):
    """Files that hold the array's bytes."""

    def extract(self, file: Path) -> np.ndarray:
        held = file.read_bytes()
        if len(held) != np.prod(self.shape) * self.dtype.itemsize:
            raise MediaError(f"cannot be decoded: {len(held)} bytes")
        return np.frombuffer(held, self.dtype).reshape(self.shape)


class Sound(Stored):
    layout, dtype, shape = "spectrogram", np.dtype(np.float16), (5, 7)


class Picture(Stored):
    layout, dtype, shape = "frames", np.dtype(np.uint8), (2, 3, 4, 4)


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """What the files hold: any bits that are numbers."""
    rng = np.random.default_rng(0)
    sound = (rng.standard_normal((CLIPS, *Sound.shape)) * 10.0 ** rng.integers(-6, 3, (CLIPS, 1, 1))).astype(np.float16)
    return {"sound": sound, "picture": rng.integers(0, 256, (CLIPS, *Picture.shape), dtype=np.uint8)}


@pytest.fixture
def data(tmp_path, arrays) -> Data:
    """The plan's entry of a dataset whose manifest is made."""
    params = DatasetParams(kind="fake", recipe="r-1", val_fraction=0.2, split_seed=0, max_quarantine=0.2, shards=3)
    extractors = {"sound": Sound(ExtractorParams(kind="sound")), "picture": Picture(ExtractorParams(kind="picture"))}
    data = Data(
        *("fake", "r-1", Fake(params), extractors, tmp_path / "raw", True, tmp_path / "seen.json"),
        *(tmp_path / "manifest", tmp_path / "cache"),
        cache_fp="0123456789",
    )
    data.manifest.mkdir()
    for m, values in arrays.items():
        (data.raw / m).mkdir(parents=True)
        for i, value in enumerate(values):
            (data.raw / m / f"c{i:02}").write_bytes(value.tobytes())
    ids = [f"c{i:02}" for i in range(CLIPS)]
    columns = {m: [f"{m}/{id_}" for id_ in ids] for m in arrays}
    labels = [Fake.classes[i % 3] for i in range(CLIPS)]
    splits = [SPLITS[i % 4] for i in range(CLIPS)]
    table = pd.DataFrame({"id": ids, **columns, "label": labels, "split": splits, "group": [f"g{i}" for i in ids]})
    files.write_table(data.manifest / "manifest.parquet", table)
    files.write_table(data.manifest / "quarantine.parquet", quarantine.table([], "manifest"))
    return data


def cut(data: Data, shards: int, folder: str) -> Data:
    params = data.dataset.params.model_copy(update={"shards": shards})
    return replace(data, dataset=Fake(params), cache=data.cache.with_name(folder))


def built(data: Data) -> Cache:
    for i in range(len(data.shards)):
        build.extract(data, i)
    build.pack(data)
    return Cache(data.cache)


def test_what_was_extracted_comes_back_bit_for_bit(data, arrays):
    cache = built(data)
    manifest = pd.read_parquet(data.manifest / "manifest.parquet")
    for m, values in arrays.items():
        back = cache.gather(m, np.arange(CLIPS))
        assert back.dtype == values.dtype and back.tobytes() == values.tobytes()
    assert list(cache.clips.columns) == ["id", "label", "split", "group"]
    for column in ("id", "split", "group"):
        assert list(cache.clips[column]) == list(manifest[column])
    assert [cache.classes[label] for label in cache.clips.label] == list(manifest.label)
    assert list(cache.rows("val")) == list(range(2, CLIPS, 4))
    assert cache.info["splits"] == manifest.split.value_counts().to_dict()
    assert cache.row_bytes(["sound", "picture"]) == 5 * 7 * 2 + 2 * 3 * 4 * 4


def test_shards_hold_fixed_shape_tensors_and_say_what_they_are(data):
    built(data)
    with pa.memory_map(str(data.shards[0].with_suffix(".arrow"))) as mapped:
        schema = pa.ipc.open_file(mapped).schema
    assert schema.names == ["id", "label", "split", "group", "sound", "picture"]
    assert schema.field("sound").type == pa.fixed_shape_tensor(pa.float16(), [5, 7])
    assert schema.field("picture").type == pa.fixed_shape_tensor(pa.uint8(), [2, 3, 4, 4])
    assert schema.field("sound").type.extension_name == "arrow.fixed_shape_tensor"
    assert schema.field("label").type == pa.int32()
    assert json.loads(schema.metadata[b"recipe"]) == {"sound": {"kind": "sound"}, "picture": {"kind": "picture"}}
    assert schema.metadata[b"fingerprint"] == b"0123456789"


def test_reading_maps_the_file_and_copies_nothing(data):
    built(data)
    before = pa.total_allocated_bytes()
    for batch in tensors(data.shards[0].with_suffix(".arrow")):
        for m in data.extractors:
            assert not batch[m].flags.owndata and not batch[m].flags.writeable
    assert pa.total_allocated_bytes() - before < 1000


@pytest.mark.parametrize("batch_bytes", [1, 500, 16 << 20])
@pytest.mark.parametrize("shards", [1, 4, CLIPS + 5])
def test_shards_and_batches_do_not_matter(data, arrays, monkeypatch, shards, batch_bytes):
    reference = built(cut(data, 2, "reference"))
    monkeypatch.setattr(build, "BATCH_BYTES", batch_bytes)
    data = cut(data, shards, "other")
    cache = built(data)
    assert len(cache.info["shards"]) == shards
    batches = sum(len(list(tensors(data.cache / shard))) for shard in cache.info["shards"])
    assert batches == {1: CLIPS, 500: max(8, min(shards, CLIPS)), 16 << 20: min(shards, CLIPS)}[batch_bytes]
    assert cache.clips.equals(reference.clips)
    assert cache.info["sha256"] == reference.info["sha256"]
    for m, values in arrays.items():
        assert cache.gather(m, np.arange(CLIPS)).tobytes() == values.tobytes()
        for statistic in ("mean", "std"):
            expected = reference.info["modalities"][m][statistic]
            np.testing.assert_allclose(cache.info["modalities"][m][statistic], expected, rtol=1e-12)


@pytest.mark.parametrize("change", ["picture", "label", "split", "id"])
def test_hash_is_of_all_that_training_sees(data, change):
    before = built(data).info["sha256"]
    if change == "picture":
        file = data.raw / "picture" / "c07"
        file.write_bytes(file.read_bytes()[::-1])
    else:
        table = pd.read_parquet(data.manifest / "manifest.parquet")
        table.loc[7, change] = {"label": "cat", "split": "train", "id": "other"}[change]
        files.write_table(data.manifest / "manifest.parquet", table)
    assert built(cut(data, 3, "changed")).info["sha256"] != before


@pytest.mark.parametrize("large", [1, 1 << 20])  # rows are read from the file, or from the map
@pytest.mark.parametrize("batch_bytes", [1, 500, 16 << 20])
def test_gather_takes_any_rows_in_any_order(data, arrays, monkeypatch, batch_bytes, large):
    monkeypatch.setattr(build, "BATCH_BYTES", batch_bytes)
    monkeypatch.setattr(read, "LARGE", large)
    cache = built(data)
    rng = np.random.default_rng(1)
    for rows in (rng.permutation(CLIPS), rng.integers(0, CLIPS, 50), np.array([CLIPS - 1, 0]), np.array([], dtype=int)):
        for m, values in arrays.items():
            assert np.array_equal(cache.gather(m, rows), values[rows])
            out = np.zeros((len(rows), *values.shape[1:]), values.dtype)
            assert cache.gather(m, rows, out) is out and np.array_equal(out, values[rows])


def test_a_file_that_ends_early_is_named(data, monkeypatch):
    monkeypatch.setattr(read, "LARGE", 1)
    cache = built(data)
    last = cache._parts[-1]
    cache._parts[-1] = last._replace(start=last.start - (1 << 40))  # beyond the end
    with pytest.raises(OSError, match="the file ends before its last row") as said:
        cache.gather("picture", np.array([0, CLIPS - 1]))
    assert said.value.filename == last.file.name


def test_statistics_come_from_train_alone(data, arrays):
    cache = built(data)
    train = [i for i in range(CLIPS) if SPLITS[i % 4] == "train"]
    for m, axes in (("sound", (0, 1, 2)), ("picture", (0, 1, 3, 4))):
        values = arrays[m][train].astype(np.float64)
        info = cache.modalities[m]
        np.testing.assert_allclose(info["mean"], np.atleast_1d(values.mean(axes)), rtol=1e-9)
        np.testing.assert_allclose(info["std"], np.atleast_1d(values.std(axes)), rtol=1e-9)
        assert len(info["mean"]) == {"sound": 1, "picture": 3}[m]
        assert not np.allclose(info["mean"], arrays[m].astype(np.float64).mean(axes))  # of all the clips
    assert cache.modalities["picture"]["layout"] == "frames" and cache.modalities["sound"]["layout"] == "spectrogram"


@pytest.mark.parametrize("constant", [0.0, 0.1, -16.12, 6e-8, 60_000.0])
def test_constant_modality_keeps_its_scale(data, constant):
    for file in (data.raw / "sound").iterdir():
        file.write_bytes(np.full(Sound.shape, constant, np.float16).tobytes())
    info = built(data).modalities["sound"]
    assert info["std"] == [1.0]
    assert info["mean"] == pytest.approx([float(np.float16(constant))])


def test_rounding_of_the_sums_is_no_deviation():
    """Sums of float16 are exact; of these float32 they are not, and the naive deviation is 8e-8."""
    moments = build._Moments("spectrogram")
    for _ in range(5):
        moments.add(np.full((3, 50, 7), -7.322673320770264, np.float32))
    assert moments.result()["std"] == [1.0]


def test_constant_channel_does_not_change_the_others(data):
    for file in (data.raw / "picture").iterdir():
        values = np.frombuffer(file.read_bytes(), np.uint8).reshape(Picture.shape).copy()
        values[:, 1] = 77
        file.write_bytes(values.tobytes())
    std = built(data).modalities["picture"]["std"]
    assert std[1] == 1.0 and min(std[0], std[2]) > 50


@pytest.mark.parametrize("batch_bytes", [1, 500, 16 << 20])
def test_clip_that_fails_in_one_modality_is_quarantined_whole(data, arrays, monkeypatch, batch_bytes):
    monkeypatch.setattr(build, "BATCH_BYTES", batch_bytes)
    (data.raw / "picture" / "c05").write_bytes(b"short")
    (data.raw / "sound" / "c06").write_bytes(b"")
    (data.raw / "picture" / "c20").write_bytes(b"")
    cache = built(data)
    kept = [i for i in range(CLIPS) if i not in (5, 6, 20)]
    assert list(cache.clips.id) == [f"c{i:02}" for i in kept]
    for m, values in arrays.items():
        assert np.array_equal(cache.gather(m, np.arange(len(kept))), values[kept])
    bad = pd.read_parquet(data.cache / "quarantine.parquet")
    assert bad.to_numpy().tolist() == [
        ["c05", "picture", "picture/c05", "cannot be decoded: 5 bytes", "extract"],
        ["c06", "sound", "sound/c06", "cannot be decoded: 0 bytes", "extract"],
        ["c20", "picture", "picture/c20", "cannot be decoded: 0 bytes", "extract"],
    ]
    assert cache.info["quarantined"] == 3


def test_too_many_undecodable_clips_stop_the_run_and_leave_their_list(data):
    """Those that the manifest has quarantined count as well."""
    rows = [("x1", "sound", "sound/x1", "empty"), ("x2", "sound", "sound/x2", "empty")]
    files.write_table(data.manifest / "quarantine.parquet", quarantine.table(rows, "manifest"))
    for i in range(4):
        (data.raw / "picture" / f"c{i:02}").write_bytes(b"")
    with pytest.raises(UserError, match=r"6 of 25 clips \(24\.0%\) .* 4 x cannot be decoded: 0 bytes, 2 x empty"):
        built(data)
    assert len(pd.read_parquet(data.cache / "quarantine.parquet")) == 6
    assert not (data.cache / "cache.json").exists()


def test_interrupted_extraction_leaves_no_shard_and_the_next_makes_it(data, monkeypatch):
    monkeypatch.setattr(build, "BATCH_BYTES", 1)
    for i in range(3):
        build.extract(data, i)
    done = data.shards[0].with_suffix(".arrow")
    expected = hashlib.sha256(data.shards[1].with_suffix(".arrow").read_bytes()).hexdigest()
    stamp = done.stat().st_mtime_ns
    for suffix in (".arrow", ".quarantine.parquet"):
        data.shards[1].with_suffix(suffix).unlink()
    before = sorted(data.cache.iterdir())
    extract, count = Picture.extract, iter(range(100))

    def interrupted(self, file):
        if next(count) == 3:
            raise KeyboardInterrupt
        return extract(self, file)

    with monkeypatch.context() as patch:
        patch.setattr(Picture, "extract", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build.extract(data, 1)
    assert sorted(data.cache.iterdir()) == before
    build.extract(data, 1)
    assert hashlib.sha256(data.shards[1].with_suffix(".arrow").read_bytes()).hexdigest() == expected
    assert done.stat().st_mtime_ns == stamp
    build.pack(data)
    assert len(Cache(data.cache).clips) == CLIPS


def test_unfinished_cache_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"cache\.json: expected a file, but got none; run snakemake"):
        Cache(tmp_path)


def test_statistics_of_sequences_leave_padding_out_and_tokens_have_none():
    values = np.array([[[1.0, 5.0], [3.0, 0.0], [0.0, 0.0]], [[5.0, 1.0], [0.0, 0.0], [0.0, 0.0]]], np.float32)
    moments = build._Moments("sequence")
    moments.add(values[:1])
    moments.add(values[1:])
    found = moments.result()
    steps = np.array([[1.0, 5], [3, 0], [5, 1]])
    np.testing.assert_allclose(found["mean"], steps.mean(0))
    np.testing.assert_allclose(found["std"], steps.std(0))
    tokens = build._Moments("tokens")
    tokens.add(np.ones((4, 3), np.int32))
    assert tokens.result() == {"mean": [0.0], "std": [1.0]}


def test_sequences_and_tokens_come_back_bit_for_bit(data):
    class Sequence(Stored):
        layout, dtype, shape = "sequence", np.dtype(np.float32), (4, 3)

    class Words(Stored):
        layout, dtype, shape = "tokens", np.dtype(np.int32), (5,)

    rng = np.random.default_rng(1)
    held = {
        "sound": rng.normal(size=(CLIPS, 4, 3)).astype(np.float32),
        "picture": rng.integers(0, 2**31, (CLIPS, 5), dtype=np.int32),
    }
    held["sound"][:, 2:] = 0
    for m, values in held.items():
        for i, value in enumerate(values):
            (data.raw / m / f"c{i:02}").write_bytes(value.tobytes())
    of = {"sound": Sequence(ExtractorParams(kind="a")), "picture": Words(ExtractorParams(kind="b"))}
    changed = replace(data, extractors=of)
    for i in range(len(changed.shards)):
        build.extract(changed, i)
    build.pack(changed)
    cache = Cache(changed.cache)
    for m, values in held.items():
        np.testing.assert_array_equal(cache.gather(m, np.arange(CLIPS)), values)
        assert cache.modalities[m]["dtype"] == values.dtype.name
    train = held["sound"][(cache.clips.split == "train").to_numpy()][:, :2].reshape(-1, 3)
    np.testing.assert_allclose(cache.modalities["sound"]["mean"], train.mean(0), rtol=1e-5)
