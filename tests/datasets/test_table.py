"""A table of the user's own: CSV and Parquet, any modalities, splits given or cut; a mistake names file and row."""

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from pipeline_src import cli
from pipeline_src.core.errors import UserError
from pipeline_src.datasets import manifest
from pipeline_src.datasets.table import Table, TableParams
from pipeline_src.features.build import extract, pack
from pipeline_src.features.read import Cache
from pipeline_src.media import cells
from pipeline_src.media.base import MediaError
from pipeline_src.study.plan import Plan
from tests.attacks.judge import STUDY, put
from tests.media import clips

COUNT = 60
PATHS = {"sound": "wav/s{:02}.wav", "photo": "jpg/s{:02}.jpg", "pose": "npy/s{:02}.npy", "words": "txt/s{:02}.txt"}
RECIPE = {
    "hearing": {"kind": "log_stft", "sample_rate": 8000, "seconds": 0.3, "pad": "zero", "n_fft": 64, "hop": 64}
    | {"floor": 1e-7},
    "seeing": {"kind": "image", "size": 16, "color": "rgb", "fit": "crop"},
    "posing": {"kind": "array", "length": 2, "features": 3, "non_finite": "refuse"},
    "reading": {"kind": "tokens", "length": 4, "buckets": 50},
}
ENCODERS = {
    "hearing": {"kind": "resnet", "width": 4, "depth": [1, 1]},
    "seeing": {"kind": "convnet", "width": 4, "features": 8},
    "posing": {"kind": "transformer", "width": 8, "layers": 1, "heads": 2, "feedforward": 8, "dropout": 0.0},
    "reading": {"kind": "embedding", "words": 51, "width": 8},
}
SECOND = {"reading": "words"}
MODALITIES = dict(zip(RECIPE, PATHS, strict=True))  # modality -> column


def rows(count: int = COUNT) -> pd.DataFrame:
    """The table: three labels, fifteen speakers."""
    number = range(count)
    table = pd.DataFrame({"id": [f"s{i:02}" for i in number], "label": [("up", "down", "left")[i % 3] for i in number]})
    for column, form in PATHS.items():
        table[column] = [form.format(i) for i in number]
    return table.assign(remark=["", "a, b"] * (count // 2))  # a column that nobody asks for


def params(**block) -> dict:
    """A study of the table, with the modalities `block` has or all four."""
    block = {"kind": "table", "folder": "media", "file": "table.csv", "recipe": "mine", **block}
    modalities = block.setdefault("modalities", MODALITIES)
    study = yaml.safe_load(STUDY)
    study["study"]["datasets"] = ["mine"]
    study["datasets"] = {"mine": block}
    study["recipes"] = {"mine": {m: RECIPE[m] for m in modalities if m in RECIPE}}
    study["model"]["encoders"] = {m: ENCODERS[m] for m in modalities if m in ENCODERS}
    study["training"]["augmentation"] = {m: {} for m in modalities}
    return study


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    for form in PATHS.values():
        (folder / form).parent.mkdir()
    for i in range(COUNT):
        clips.write(folder / PATHS["sound"].format(i), wave=clips.noise(0.3, 8000, seed=i), rate=8000)
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)).save(folder / PATHS["photo"].format(i))
        np.save(folder / PATHS["pose"].format(i), rng.normal(size=(2, 3)).astype(np.float32))
        (folder / PATHS["words"].format(i)).write_text(f"sample {i} says hello")
    return folder


@pytest.fixture
def study(media, tmp_path, monkeypatch):
    """A function: (table, or its text; keys of the block) -> the plan's entry. Works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "media").mkdir()
    for name in ("wav", "jpg", "npy", "txt"):
        (tmp_path / "media" / name).symlink_to(media / name, target_is_directory=True)

    def of(table: pd.DataFrame | str, **block):
        file = tmp_path / "media" / block.get("file", "table.csv")
        if isinstance(table, str):
            file.write_text(table)
        elif file.suffix == ".parquet":
            table.to_parquet(file)
        else:
            table.to_csv(file, index=False, sep=block.pop("sep", ","))
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params(**block), sort_keys=False))
        return Plan().named("mine")[0]

    return of


def made(data) -> pd.DataFrame:
    manifest.make(data)
    return pd.read_parquet(data.manifest / "manifest.parquet")


def test_a_table_of_four_kinds_of_files_becomes_a_cache(study):
    data = study(rows())
    assert list(data.extractors) == sorted(MODALITIES) and not data.fetched
    assert data.dataset.params.shards == 1  # what a block leaves out has a default
    table = made(data)
    assert len(table) == COUNT and set(table.columns) >= set(MODALITIES)
    assert table.set_index("id").seeing["s07"] == "jpg/s07.jpg"
    for shard in range(len(data.shards)):
        extract(data, shard)
    pack(data)
    cache = Cache(data.cache)
    assert len(cache.clips) == COUNT and list(cache.classes) == ["down", "left", "up"]
    pose = cache.gather("posing", np.arange(COUNT))
    expected = [np.load(f"media/npy/{name}.npy") for name in cache.clips.id]
    np.testing.assert_allclose(pose.reshape(COUNT, 2, 3), expected, rtol=1e-6)


def test_csv_and_parquet_with_any_separator_say_the_same(study):
    first = made(study(rows()))
    for more in ({"sep": ";"}, {"sep": "\t", "file": "table.tsv"}, {"file": "table.parquet"}):
        pd.testing.assert_frame_equal(made(study(rows(), **more)), first)


def arrays(table: pd.DataFrame, pose: list) -> pd.DataFrame:
    """The table with arrays in the column pose, in place of paths."""
    return table.assign(pose=pd.Series([None if value is None else np.asarray(value).tolist() for value in pose]))


def test_a_column_may_hold_the_arrays_themselves(study):
    data = study(rows(), file="table.parquet")
    expected = made(data)
    pose = [np.load(f"media/npy/s{i:02}.npy") for i in range(COUNT)]
    data = study(arrays(rows(), pose), file="table.parquet")
    table = made(data)
    assert table.posing[7] == "table.parquet/pose/7" and table.split.tolist() == expected.split.tolist()
    extract(data, 0)
    pack(data)
    cache = Cache(data.cache)
    order = [int(name[1:]) for name in cache.clips.id]
    found = cache.gather("posing", np.arange(COUNT)).reshape(COUNT, 2, 3)
    np.testing.assert_allclose(found, np.asarray(pose)[order], rtol=1e-6)
    assert cli.main(["check", "mine"]) == 0


def test_a_list_of_numbers_is_one_step_and_what_is_no_array_goes_to_quarantine(study):
    pose = [[float(i), 1.0, 2.0] for i in range(COUNT)]
    pose[3], pose[4], pose[5] = None, [1.0, 2.0], [1.0, float("nan"), 2.0]
    data = study(arrays(rows(), pose), file="table.parquet", max_quarantine=0.2)
    table = made(data)
    bad = pd.read_parquet(data.manifest / "quarantine.parquet").set_index("id").reason
    assert bad["s03"] == "missing value" and "expected numbers (steps, 3), but got float64 (1, 2)" in bad["s04"]
    assert len(table) == COUNT - 2
    extract(data, 0)
    late = pd.read_parquet(data.shards[0].with_suffix(".quarantine.parquet"))
    assert late.id.tolist() == ["s05"] and "not finite" in late.reason[0]
    pack(data)
    cache = Cache(data.cache)
    row = cache.clips.id.tolist().index("s09")
    np.testing.assert_array_equal(cache.gather("posing", np.arange(row, row + 1))[0], [[9, 1, 2], [0, 0, 0]])


def test_tensors_of_a_fixed_shape_are_arrays_too(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(values)
    pq.write_table(pa.table({"pose": column}), tmp_path / "t.parquet")
    assert cells.is_array(pq.read_schema(tmp_path / "t.parquet").field("pose").type)
    np.testing.assert_array_equal(cells.read(cells.at(tmp_path / "t.parquet/pose/1")), values[1])
    with pytest.raises(MediaError, match="missing value"):
        cells.read(cells.Cell(tmp_path / "t.parquet", "pose", 2))


def test_a_column_of_arrays_has_a_name_that_can_be_a_file(study):
    table = arrays(rows(), [[1.0, 2.0, 3.0]] * COUNT).rename(columns={"pose": "a/pose"})
    data = study(table, file="table.parquet", modalities={**MODALITIES, "posing": "a/pose"})
    with pytest.raises(UserError, match=r"expected a column of arrays whose name has no / or \\, but got 'a/pose'"):
        made(data)


def test_the_splits_of_the_table_are_kept(study):
    splits = (["train"] * 7 + ["val", "test", "test"]) * 6
    data = study(rows().assign(split=splits))
    table = made(data)
    assert table.split.tolist() == splits and data.dataset.cut == ""
    assert data.dataset.sizes == {"train": 42, "val": 6, "test": 12}
    assert "publishes its val" in data.dataset.refuses("split")


def test_without_splits_the_test_set_is_cut_stratified_by_label_and_said(study, caplog):
    data = study(rows())
    table = made(data)
    counts = pd.crosstab(table.label, table.split)
    assert (counts.test == 4).all() and (counts.val > 0).all() and counts.to_numpy().sum() == COUNT
    assert "20% of the samples were cut off as test by seed 0, stratified by label" in caplog.text
    assert data.dataset.sizes == {"train": 48, "test": 12}
    other = made(study(rows(), test_seed=1))
    assert set(other.id[other.split == "test"]) != set(table.id[table.split == "test"])
    half = made(study(rows(), test_fraction=0.4))
    assert 20 <= (half.split == "test").sum() <= 30


def test_the_test_set_stays_where_the_seed_of_val_changes(study):
    first, second = (made(study(rows(), split_seed=seed)) for seed in (0, 1))
    tests = [set(table.id[table.split == "test"]) for table in (first, second)]
    assert tests[0] == tests[1]
    assert set(first.id[first.split == "val"]) != set(second.id[second.split == "val"])


def test_a_group_is_on_one_side_of_every_cut(study):
    data = study(rows().assign(group=[f"speaker{i // 4}" for i in range(COUNT)]))
    table = made(data)
    assert table.groupby("group").split.nunique().max() == 1
    assert set(table.split) == {"train", "val", "test"}
    assert "no group is on two sides" in data.dataset.cut


def test_labels_may_be_whole_numbers(study):
    numbered = rows().assign(label=[i % 12 for i in range(COUNT)])
    for file in ("table.csv", "table.parquet"):
        assert study(numbered, file=file).dataset.classes == tuple(map(str, range(12)))


def test_the_address_is_of_the_content(study):
    first = study(rows()).manifest
    assert study(rows()).manifest == first
    assert study(rows().assign(label=rows().label.replace("up", "over"))).manifest != first
    assert study(rows(), modalities={m: MODALITIES[m] for m in ("hearing", "seeing")}).manifest != first


def test_a_missing_file_is_quarantined_and_stops_the_run_beyond_the_limit(study):
    bad = rows().replace({"photo": {"jpg/s07.jpg": "jpg/none.jpg"}})
    with pytest.raises(
        UserError, match=r"1 of 60 clips \(1.7%\) are quarantined.*1 x missing file; first jpg/none.jpg"
    ):
        manifest.make(study(bad))
    assert len(made(study(bad, max_quarantine=0.05))) == COUNT - 1


def test_the_command_line_checks_and_describes_a_table(study, capsys):
    study(rows())
    assert cli.main(["check", "mine"]) == 0
    assert "ready     60 clips, 0 quarantined" in capsys.readouterr().out
    assert cli.main(["fetch", "mine"]) == 0
    assert (
        "table.csv    columns id, label, sound, photo, pose, words; optional: split, group" in capsys.readouterr().out
    )


TEXT = rows(6).to_csv(index=False)
WRONG = {  # the table, what the error says of it
    "no column of a modality": (TEXT.replace("photo", "foto", 1), "table.csv:1: expected a column 'photo'.*'foto'"),
    "no label": (TEXT.replace("label", "class", 1), "table.csv:1: expected a column 'label'"),
    "a column twice": (TEXT.replace("remark", "label", 1), "table.csv:1: expected each column once, but got 'label' 2"),
    "an id twice": (TEXT.replace("s02,left", "s01,left"), r"table.csv:4: expected each id once, .*'s01' in .*csv:3"),
    "an id that is a path": (TEXT.replace("s02,left", "a/b,left"), "table.csv:4: expected at most .* in id"),
    "no label in a row": (TEXT.replace("s02,left", "s02,"), "table.csv:4: expected a value in label, but got none"),
    "a path upwards": (TEXT.replace("jpg/s03", "../s03"), "table.csv:5: expected a path relative.* in photo"),
    "an absolute path": (TEXT.replace("jpg/s03", "/etc/s03"), "table.csv:5: expected a path relative.* in photo"),
    "a path of Windows": (TEXT.replace("jpg/s03", "jpg\\s03"), "table.csv:5: expected a path relative.* in photo"),
    "a row too short": (TEXT + "s99,up\n", "table.csv:8: expected 7 values as in the header, but got 2"),
    "one label alone": (TEXT.replace("left", "up").replace("down", "up"), "table.csv: expected at least two labels"),
    "no rows": (TEXT.splitlines()[0], "table.csv: expected rows with id, label, .*, but got none"),
    "nothing": ("", "table.csv: expected rows"),
    "too few to cut": (rows(4).to_csv(index=False), "table.csv: expected enough samples to cut off 20% as test"),
    "a split of another name": (
        rows(6).assign(split="valid").to_csv(index=False),
        "table.csv:2: expected train, val, test; did you mean 'val'\\? in split, but got 'valid'",
    ),
    "no test": (
        rows(6).assign(split="train").to_csv(index=False),
        "expected rows of train and of test .* none of test",
    ),
    "no group in a row": (
        rows(6).assign(group=["a", "a", "b", "", "c", "c"]).to_csv(index=False),
        "table.csv:5: expected a value in group, but got none",
    ),
    "a NUL": (TEXT.replace("s02", "s\0"), "table.csv: expected text, but got binary data"),
    "a quote without its end": (TEXT + '"s99', "table.csv:8: expected"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_table_that_cannot_be_is_one_line_with_file_and_row(study, capsys, case):
    text, says = WRONG[case]
    study(text)
    assert cli.main(["manifest"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and len(errors[0]) < 1000
    with pytest.raises(UserError, match=says):
        raise UserError(errors[0])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1.5, 2.5, 1.5, 2.5, 1.5, 2.5], "table.parquet: row 1: expected text or a whole number in label, but got 1.5"),
        ([None, *"ababa"], "table.parquet: row 1: expected a value in label, but got none"),
        ([[1], [2], [1], [2], [1], [2]], r"row 1: expected text or a whole number in label, but got \[1\]"),
    ],
)
def test_a_parquet_table_with_other_values_names_the_row(study, values, says):
    with pytest.raises(UserError, match=says):
        made(study(rows(6).assign(label=values), file="table.parquet"))


def read_labels(data):
    for index in range(len(data.shards)):
        extract(data, index)
    pack(data)
    cache = Cache(data.cache)
    return cache, dict(zip(cache.clips.id, cache.clips.label, strict=True))


@pytest.mark.parametrize("file", ["table.csv", "table.parquet"])
def test_several_classes_per_sample_become_lists_of_0_and_1(study, file):
    names = [("up;down", "left", "down ; up; left")[i % 3] for i in range(COUNT)]
    if file == "table.parquet":
        names = [[part.strip() for part in name.split(";")] for name in names]
    data = study(rows().assign(label=names), file=file, task="multilabel", modalities={"posing": "pose"} | SECOND)
    table = made(data)
    assert data.dataset.classes == ("down", "left", "up")
    assert list(table.label[0]) == ["up", "down"] and set(table.split) == {"train", "val", "test"}
    cache, label = read_labels(data)
    assert cache.classes == ["down", "left", "up"]
    assert [label[f"s0{i}"].tolist() for i in range(3)] == [[1, 0, 1], [0, 1, 0], [1, 1, 1]]


def test_numbers_to_predict_are_kept(study):
    data = study(rows().assign(label=[f"{i / 7 - 3:.3f}" for i in range(COUNT)]), task="regression")
    made(data)
    assert data.dataset.classes == ()
    cache, label = read_labels(data)
    assert cache.clips.label.dtype == np.float32
    assert label["s00"] == -3 and label["s09"] == np.float32(-1.714)


@pytest.mark.parametrize(
    ("task", "label", "says"),
    [
        ("regression", "three", r"table.csv:2: expected a number in label, but got 'three'"),
        ("regression", "nan", r"table.csv:2: expected a number in label, but got 'nan'"),
        ("multilabel", ";", r"table.csv:2: expected classes of .* separated by ;, in label, but got ';'"),
        ("classification", "a;b", r"table.csv:2: expected at most 100 letters, .* in label, but got 'a;b'"),
    ],
)
def test_a_label_that_the_task_has_not_names_the_row(study, task, label, says):
    table = rows().assign(label=[label] + ["1"] * (COUNT - 1))
    with pytest.raises(UserError, match=says):
        made(study(table, task=task, sep="\t", file="table.csv"))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"id,label\n", bytes(range(256)) * 40])
def test_what_is_no_parquet_file_is_one_line(study, tmp_path, content):
    data = study(rows(6), file="table.parquet")
    Path("media/table.parquet").write_bytes(content)
    with pytest.raises(
        UserError, match=r"table.parquet: expected a Parquet table, but got an error: .+; fix the table"
    ):
        manifest.make(data)


def test_a_table_that_is_not_there_is_planned_and_named_by_the_first_job(study, capsys):
    study(rows())
    Path("media/table.csv").unlink()
    assert cli.main(["plan"]) == 0 and cli.main(["estimate"]) == 0
    assert cli.main(["manifest"]) == 2
    assert "media/table.csv: expected a list, but got no file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "written", "says"),
    [
        ("file", "../table.csv", "datasets.mine.file: expected a path inside of the folder"),
        ("file", "table.xlsx", "datasets.mine.file: "),
        ("modalities", "{hearing: sound}", "datasets.mine.modalities: "),
        ("modalities", "{hearing: label, seeing: photo}", "datasets.mine.modalities: expected other names than"),
        ("modalities", "{fused: sound, seeing: photo}", "datasets.mine.modalities: expected other names than"),
        ("modalities", "{hearing: sound, Seeing: photo}", "datasets.mine.modalities"),
        ("modalities", "{hearing: sound, smelling: photo}", "expected a block for the modality 'smelling'"),
        ("modalitis", "{hearing: sound}", "datasets.mine.modalitis: unknown key; did you mean 'modalities'?"),
    ],
)
def test_a_block_that_cannot_be_is_said_before_any_job(tmp_path, monkeypatch, capsys, place, written, says):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(
        put(
            yaml.safe_dump(params(**{place: "here"} if place == "modalitis" else {})), f"datasets.mine.{place}", written
        )
    )
    assert cli.main(["plan"]) == 2
    err = capsys.readouterr().err
    assert says in err and err.startswith("error: params.yaml:")


def test_a_long_table_takes_little_memory(tmp_path):
    """Paths, ids and groups are kept, rows are not, and of labels and splits one text each."""
    count = 5000
    table = pd.DataFrame({name: [f"{name}/{i:08d}.mp4" for i in range(count)] for name in ("group", "sound", "photo")})
    table = table.assign(id=[f"clip{i}" for i in range(count)], label=[f"class {i % 9}" for i in range(count)])
    table["split"] = ["test" if i % 5 == 0 else "train" for i in range(count)]
    table.to_parquet(tmp_path / "table.parquet")
    modalities = {"hearing": "sound", "seeing": "photo"}
    data = Table(
        TableParams(kind="table", recipe="any", folder=str(tmp_path), file="table.parquet", modalities=modalities)
    )
    tracemalloc.start()
    kept = data._columns
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(kept["id"]) == count and len({id(label) for label in kept["label"]}) == 9
    assert taken < 500 * count, f"{taken / count:.0f} bytes a row"
