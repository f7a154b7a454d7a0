"""The published datasets, made small in their own layouts: from lists and files to the manifest, and all that can be
wrong with them: counted and named.
"""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline_src import cli
from pipeline_src.core.errors import UserError
from pipeline_src.datasets import fetch, manifest
from pipeline_src.datasets.base import datasets
from pipeline_src.datasets.cg_mnist import MEANS, made
from pipeline_src.datasets.sentiment import video_of
from pipeline_src.study.plan import Plan
from tests.datasets import published
from tests.media import clips

CONVERTED = ("ave_features", "cg_mnist", "cmu_mosi", "cmu_mosei", "food101")
FOLDERS = [kind for kind in published.MADE if kind not in CONVERTED]

# clips by split, with the val that is cut from train where none is published; groups of the training clips
EXPECTED = {
    "cremad": ({"train": 48, "test": 12}, 10),
    "kinetics_sounds": ({"train": 31 * 4, "test": 31}, 31 * 4),
    "vggsound": ({"train": 309 * 2, "test": 309}, 309 * 2),
    "ave": ({"train": 28 * 3 + 1, "val": 28, "test": 28}, 28 * 3),
    "ave_segments": ({"train": 28 * 3 + 1, "val": 28, "test": 28}, 28 * 3),
    "ave_features": ({"train": 28, "val": 2, "test": 2}, 28),
    "ucf101": ({"train": 101 * 4, "test": 101}, 101 * 4),
    "cg_mnist": ({"train": 60, "test": 30}, 60),
    "cmu_mosi": ({"train": 24, "val": 8, "test": 8}, 8),
    "cmu_mosei": ({"train": 24, "val": 8, "test": 8}, 8),
    "food101": ({"train": 404, "test": 202}, 404),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A function: kind -> (folder of the small copy, its block in params.yaml), made once."""
    there = {}

    def of(kind: str):
        if kind not in there:
            folder = tmp_path_factory.mktemp(kind)
            there[kind] = folder, published.MADE[kind](folder)
        return there[kind]

    return of


@pytest.fixture
def copy(originals, tmp_path, monkeypatch):
    """A function: (kind, changes of its block) -> (its own copy of the folder, its entry in the plan)."""
    monkeypatch.chdir(tmp_path)

    def of(kind: str, **changes):
        folder, block = originals(kind)
        own = tmp_path / kind
        if not own.exists():
            shutil.copytree(folder, own, ignore=shutil.ignore_patterns(".made"))
        return own, published.plan(tmp_path, own, **block | changes)

    return of


def ready(data):
    """The plan's entry with its raw folder made, where the fetch stage makes it."""
    if data.fetched:
        fetch.fetch(data)
    return data


@pytest.mark.parametrize("kind", published.MADE)
def test_from_published_files_to_a_manifest(copy, kind):
    _, data = copy(kind)
    manifest.make(ready(data), processes=2)
    table = pd.read_parquet(data.manifest / "manifest.parquet")
    assert pd.read_parquet(data.manifest / "quarantine.parquet").empty
    splits, groups = EXPECTED[kind]
    counts = table.split.value_counts().to_dict()
    if "val" not in splits:  # cut from train
        assert counts["val"] > 0
        counts["train"] += counts.pop("val")
    assert counts == splits
    learnt = table[table.split != "test"] if "val" not in splits else table[table.split == "train"]
    assert learnt.group.nunique() == groups
    assert set(table.label.explode()) == set(data.dataset.classes)
    assert len(set(table.id)) == len(table)
    if "val" not in splits:
        assert not set(table.group[table.split == "val"]) & set(table.group[table.split == "train"])


@pytest.mark.parametrize("kind", published.MADE)
def test_a_study_is_planned_without_the_data_and_the_first_job_says_what_is_missing(
    tmp_path, monkeypatch, kind, capsys
):
    monkeypatch.chdir(tmp_path)
    block = {"cremad": {"split": "authors"}, "ucf101": {"split": 1}}.get(kind, {})
    block |= {"cg_mnist": {"colors": "made", "variance": 0.03, "seed": 0}}.get(kind, {})
    block |= {"file": "x.pkl"} if kind.startswith("cmu_") else {}
    published.plan(tmp_path, tmp_path / "nowhere", kind, **block)
    assert cli.main(["plan"]) == 0
    assert "train results/runs" in capsys.readouterr().out
    first = "fetch" if kind in CONVERTED else "manifest"
    assert cli.main([first]) == 2
    message = rf"error: {kind}: expected its files in .*/nowhere, but there is no such folder; .* fetch {kind}`"
    assert re.match(message, capsys.readouterr().err)
    assert cli.main(["check"]) == 2
    assert re.match(message, capsys.readouterr().err)


def test_the_address_is_of_the_content_and_not_of_the_place(copy, tmp_path):
    folder, data = copy("cremad")
    shutil.move(folder, tmp_path / "elsewhere")
    moved = published.plan(tmp_path, tmp_path / "elsewhere", "cremad", split="authors")
    assert moved.manifest == data.manifest and moved.raw != data.raw
    (tmp_path / "elsewhere/more.zip").touch()  # archives, hidden and unfinished files come and go
    (tmp_path / "elsewhere/.hidden").touch()
    (tmp_path / "elsewhere/lists/x.part").touch()
    again = published.plan(tmp_path, tmp_path / "elsewhere", "cremad", split="authors")
    assert again.manifest == data.manifest
    (tmp_path / "elsewhere/AudioWAV/1001_IEO_NEU_XX.wav").write_bytes(b"other")
    again = published.plan(tmp_path, tmp_path / "elsewhere", "cremad", split="authors")
    assert again.manifest != data.manifest


# --- what may be wrong, in every dataset -----------------------------------------------------------------------------


def some(data) -> list:
    """Five clips of different classes, with files of their own."""
    return list({clip.label: clip for clip in data.dataset.clips(data.raw)}.values())[:5]


@pytest.mark.parametrize("kind", FOLDERS)
def test_files_that_are_missing_broken_or_unlisted_are_counted_and_named(copy, kind, capsys):
    folder, data = copy(kind, max_quarantine=0.3)
    missing, broken, empty, pointer, good = some(data)
    files = {clip.id: folder / next(iter(clip.files.values())) for clip in some(data)}
    files[missing.id].unlink()
    clips.cut(files[broken.id])
    files[empty.id].write_bytes(b"")
    files[pointer.id].write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    stray = files[good.id].with_name(f"stray{files[good.id].suffix}")
    shutil.copy(files[good.id], stray)
    data = Plan("params.yaml").named(kind)[0]

    manifest.make(data)
    bad = pd.read_parquet(data.manifest / "quarantine.parquet").set_index("id")
    assert set(bad.index) == {missing.id, broken.id, empty.id, pointer.id}
    assert bad.reason[missing.id] == "missing file" and bad.reason[empty.id] == "empty file"
    assert re.match("truncated|cannot be opened", bad.reason[broken.id])
    assert bad.reason[pointer.id].startswith("Git LFS pointer in place of the file: run `git lfs pull`")
    table = pd.read_parquet(data.manifest / "manifest.parquet")
    listed = [clip.id for clip in data.dataset.clips(data.raw)]
    assert sorted([*table.id, *bad.index]) == sorted(listed)  # nothing is lost

    capsys.readouterr()
    assert cli.main(["check", kind]) == 0
    report = capsys.readouterr().out
    for clip in (missing, broken, empty, pointer):
        assert f"{bad.reason[clip.id]}: 1 clips\n            {bad.file[clip.id]} (" in report
    assert f"unlisted  1 files that no list names, not used: {stray.relative_to(folder)}" in report
    assert f"ready     {len(table)} clips, 4 quarantined" in report


@pytest.mark.parametrize("kind", ["cremad", "ucf101"])
def test_too_many_broken_files_fail_the_check_as_they_do_the_run(copy, kind, capsys):
    folder, data = copy(kind, max_quarantine=0.005)
    for clip in some(data):
        (folder / next(iter(clip.files.values()))).unlink()
    message = rf"{kind}: 5 of \d+ clips .* are quarantined, more than datasets\.{kind}\.max_quarantine = 0\.5% allows"
    with pytest.raises(UserError, match=message):
        manifest.make(Plan("params.yaml").named(kind)[0])
    assert cli.main(["check", kind]) == 2
    assert re.search(message, capsys.readouterr().err)


# a list of each dataset, and how a row becomes one with an unknown label
LISTS = {
    "cremad": ("lists/train.csv", lambda cells: [cells[0], "JOY"], r"train\.csv:1: expected a class, but got 'JOY'"),
    "kinetics_sounds": (
        "lists/my_train.txt",
        lambda cells: [*cells[:2], "31"],
        r"my_train\.txt:1: expected a class number from 0 to 30, but got '31'",
    ),
    "vggsound": (
        "vggsound.csv",
        lambda cells: [*cells[:2], "sound one", cells[3]],
        r"vggsound\.csv: expected 309 classes, but got 310; the rarest is 'sound one', 1 times, first in .*csv:1;",
    ),
    "ave": (
        "lists/trainSet.txt",
        lambda cells: ["Event x", *cells[1:]],
        r"trainSet\.txt: expected 28 classes, but got 29; the rarest is 'Event x', 1 times, .* .*trainSet\.txt:1;",
    ),
    "ucf101": (
        "ucfTrainTestlist/trainlist01.txt",
        lambda cells: ["Action999/" + cells[0].split("/")[1], cells[1]],
        r"trainlist01\.txt:1: expected a class, but got 'Action999'; did you mean 'Action\d+'\?",
    ),
    "food101": (
        "texts/train_titles.csv",
        lambda cells: [*cells[:2], "dihs_000"],
        r"train_titles\.csv: expected 101 classes, but got 102; the rarest is 'dihs_000', 1 times",
    ),
}
SEPARATORS = {"ave": "&", "ucf101": " "}


def lines_of(file, kind) -> list[list[str]]:
    import csv

    with file.open(newline="", encoding="utf-8") as handle:
        return list(csv.reader(handle, delimiter=SEPARATORS.get(kind, ",")))


@pytest.mark.parametrize("kind", LISTS)
def test_lists_as_other_systems_save_them_say_the_same(copy, kind):
    folder, data = copy(kind)
    expected = list(ready(data).dataset.clips(data.raw))
    file = folder / LISTS[kind][0]
    lines = lines_of(file, kind)
    published.rows(file, [*lines, lines[0]], SEPARATORS.get(kind, ","))
    text = file.read_text(encoding="utf-8").replace("\n", "\r\n") if kind != "food101" else file.read_text("utf-8")
    file.write_text("\ufeff" + text + "\r\n", encoding="utf-8", newline="")
    again = Plan("params.yaml").named(kind)[0]
    assert list(ready(again).dataset.clips(again.raw)) == expected


# In AVE a video may occur twice, as published, so nothing there is a contradiction.
@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (kind, what)
        for kind in LISTS
        for what in ("unknown label", "no list", "other separator", "short row", "contradiction")
        if (kind, what) != ("ave", "contradiction")
    ],
)
def test_wrong_lists_are_named_by_file_and_line(copy, kind, what, capsys):
    folder, _ = copy(kind)
    name, relabelled, message = LISTS[kind]
    file, separator = folder / name, SEPARATORS.get(kind, ",")
    lines = [[cell.replace("\n", " ") for cell in cells] for cells in lines_of(file, kind)]
    match what:
        case "unknown label":
            published.rows(file, [relabelled(lines[0]), *lines[1:]], separator)
        case "no list":
            file.unlink()
            message = rf"{file.name}: expected a list, but got no file"
        case "other separator":
            file.write_text("\n".join("|".join(re.sub("[,; ]", "", cell) for cell in cells) for cells in lines))
            message = rf"{file.name}:1: expected \d values .* separated by .*, but got 1"
        case "short row":
            published.rows(file, [*lines[:2], lines[2][:1], *lines[3:]], separator)
            message = rf"{file.name}:3: expected \d values .*, but got 1"
        case "contradiction":
            same = 2 if kind == "vggsound" else 1  # what names a clip
            published.rows(file, [*lines, [*lines[0][:same], *lines[-1][same:]]], separator)
            message = rf"{file.name}:\d+: expected each clip once, but got .* with other values in .*{file.name}:1;"
    assert cli.main(["fetch" if kind in CONVERTED else "manifest"]) == 2
    assert re.search(message, capsys.readouterr().err)


# --- each dataset's own ----------------------------------------------------------------------------------------------


def test_cremad_by_speakers_has_no_actor_on_two_sides(copy):
    _, data = copy("cremad", split="speakers")
    table = pd.DataFrame(data.dataset.clips(data.raw))
    assert len(table) == 60
    assert set(table.group[table.split == "test"]) == {"1005"}
    assert not set(table.group[table.split == "test"]) & set(table.group[table.split == "train"])


def test_cremad_with_the_published_val(copy):
    folder, data = copy("cremad", split="relearning")
    train = lines_of(folder / "lists/train.csv", "cremad")
    published.rows(folder / "lists/relearning_train.csv", train[8:])
    published.rows(folder / "lists/relearning_val.csv", train[:8])
    data = Plan("params.yaml").named("cremad")[0]
    manifest.make(data)
    table = pd.read_parquet(data.manifest / "manifest.parquet")
    assert table.split.value_counts().to_dict() == {"train": 40, "val": 8, "test": 12}
    assert set(table.id[table.split == "val"]) == {cells[0] for cells in train[:8]}


@pytest.mark.parametrize("split", [1, 2, 3])
def test_ucf101_has_three_splits_that_keep_groups_whole(copy, split):
    _, data = copy("ucf101", split=split)
    table = pd.DataFrame(data.dataset.clips(data.raw))
    assert set(table.group[table.split == "test"].str[-3:]) == {f"g{split:02d}"}
    assert not set(table.group[table.split == "test"]) & set(table.group[table.split == "train"])


def test_ave_keeps_a_video_that_stands_twice(copy):
    _, data = copy("ave")
    table = pd.DataFrame(data.dataset.clips(data.raw))
    twice = table[table.group == table.group.iloc[0]]
    assert list(twice.id) == ["tr000abcdef", "tr000abcdef.2"]
    assert twice["files"].map(str).nunique() == 1


def test_colours_give_the_class_away_in_training_only():
    gray = np.full((4000, 28, 28), 255, np.uint8)
    labels = np.arange(4000) % 10
    rng = np.random.default_rng(0)
    ink = {split: made(gray, labels, split, 0.03, rng)[:, 0, 0] / 255 for split in ("train", "test")}
    nearest = {split: np.abs(ink[split][:, None] - MEANS).sum(2).argmin(1) for split in ink}
    assert (nearest["train"] == labels).mean() > 0.8
    assert (nearest["test"] == labels).mean() == pytest.approx(0.1, abs=0.03)
    inner = made(gray, labels, "train", 0.03, rng)[labels == 1][:, 0, 0, 1] / 255  # the mean is 2/3: seldom clipped
    assert inner.mean() == pytest.approx(2 / 3, abs=0.03) and inner.std() == pytest.approx(0.03**0.5, rel=0.1)
    half = made(gray // 2, labels, "train", 0.0, rng)
    assert np.abs(half[:, 0, 0] / 127 - MEANS[labels]).max() < 0.01
    assert not made(np.zeros_like(gray), labels, "train", 0.03, rng).any()


def test_the_published_colours_are_read_without_being_run(copy, tmp_path):
    folder, _ = copy("cg_mnist")
    rng, content = np.random.default_rng(0), {}
    for split, count in (("train", 60), ("test", 30)):
        content[f"{split}_image"] = rng.integers(256, size=(count, 28, 28, 3)).astype(float)
        content[f"{split}_label"] = np.arange(count) % 10
    np.save(folder / "mnist_10color_jitter_var_0.030.npy", content, allow_pickle=True)
    _, data = copy("cg_mnist", colors="published")
    fetch.fetch(data)
    import cv2

    clip = next(iter(data.dataset.clips(data.raw)))
    image = cv2.imread(str(data.raw / clip.files["colored"]))[..., ::-1]
    assert np.array_equal(image, content["train_image"][0].astype(np.uint8))
    content["train_label"] = content["train_label"][::-1]
    np.save(folder / "mnist_10color_jitter_var_0.030.npy", content, allow_pickle=True)
    with pytest.raises(UserError, match="expected the train images in MNIST's order, but got other labels"):
        fetch.fetch(Plan("params.yaml").named("cg_mnist")[0])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data[:-100], r"train-images-idx3-ubyte\.gz: expected gzip, but got"),
        (lambda data: b"", r"train-images-idx3-ubyte\.gz: expected an IDX file of bytes \(N, 28, 28\), whole"),
        (lambda data: b"<html>", r"expected gzip, but got Not a gzipped file"),
    ],
)
def test_mnist_files_that_are_broken(copy, edit, message):
    folder, _ = copy("cg_mnist")
    file = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(edit(file.read_bytes()))
    with pytest.raises(UserError, match=message):
        fetch.fetch(Plan("params.yaml").named("cg_mnist")[0])
    file.unlink()
    with pytest.raises(UserError, match="expected a file of MNIST, but got no file; fetch the files again"):
        fetch.fetch(Plan("params.yaml").named("cg_mnist")[0])


def test_features_are_those_of_the_pickle(copy, caplog):
    folder, data = copy("cmu_mosei")
    fetch.fetch(data)
    from pipeline_src.datasets import pickles

    content = pickles.read(folder / "mosei_senti_data.pkl")
    clips_ = list(data.dataset.clips(data.raw))
    assert [clip.label for clip in clips_[:3]] == ["negative", "positive", "negative"]
    assert [clip.group for clip in clips_[:4]] == ["-train0"] * 3 + ["-train1"]
    for m, key in (("audio", "audio"), ("visual", "vision"), ("text", "text")):
        array = np.load(data.raw / clips_[25].files[m])
        assert array.dtype == np.float32 and array.shape == content["valid"][key][1].shape
        assert np.allclose(array, content["valid"][key][1])
    assert "1 values of audio are not finite" in caplog.text


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("valid"), r"mosi_data\.pkl: expected train, valid, test, but got train, test"),
        (lambda c: c["train"].pop("vision"), r"train: expected .*, but got audio, text, labels, id"),
        (lambda c: c["test"].update(labels=np.full((8, 1), 7.0)), r"test: expected labels from -3 to 3, but got 7\.0"),
        (
            lambda c: c["test"].update(labels=np.full((8, 1), np.nan)),
            r"test: expected labels from -3 to 3, but got nan",
        ),
        (lambda c: c["test"].update(text=np.zeros((7, 6, 7))), r"test: expected text as floats \(8, T, D\)"),
        (lambda c: c["test"].update(text=["a"] * 8), r"expected text as floats \(8, T, D\), but got list"),
    ],
)
def test_pickles_that_are_not_as_published(copy, edit, message):
    import pickle

    folder, _ = copy("cmu_mosi")
    file = folder / "mosi_data.pkl"
    content = pickle.loads(file.read_bytes())  # made here, two lines above
    edit(content)
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=message):
        fetch.fetch(Plan("params.yaml").named("cmu_mosi")[0])


def test_sentiment_can_be_the_number_itself(copy):
    _, data = copy("cmu_mosi", task="regression")
    assert data.dataset.classes == () and data.dataset.task == "regression"
    fetch.fetch(data)
    manifest.make(data)
    table = pd.read_parquet(data.manifest / "manifest.parquet")
    assert set(table.label) == {-0.5, 1.5} and (table.split == "val").sum() == 8


@pytest.mark.parametrize(
    ("name", "video"),
    [
        ("abc[3]", "abc"),
        (b"-3g5yACwYnA[0]", "-3g5yACwYnA"),
        ("abc_d_12", "abc_d"),
        (["abc", "1.0", "2.0"], "abc"),
        (np.array([["abc[1]"]], dtype=object), "abc"),
    ],
)
def test_the_video_of_a_clip(name, video):
    assert video_of(name) == video


def test_food101_keeps_its_pictures_where_they_are_and_its_titles_whole(copy, tmp_path):
    folder, data = copy("food101")
    fetch.fetch(data)
    clip = next(iter(data.dataset.clips(data.raw)))
    assert (data.raw / clip.files["image"]).resolve() == folder / "images/train/dish_000/dish_000_train0.jpg"
    assert (data.raw / clip.files["text"]).read_text("utf-8") == 'Dish 0, "the best" | crème\nand more'
    (folder / "texts/train_titles.csv").write_text("../../../x.jpg,title,dish_000\n")
    for number in range(1, 101):
        with (folder / "texts/train_titles.csv").open("a") as handle:
            handle.write(f"x{number}.jpg,title,dish_{number:03d}\n")
    with pytest.raises(
        UserError, match=r"train_titles\.csv:1: expected the name of a picture and a class, but got '\.\./"
    ):
        fetch.fetch(Plan("params.yaml").named("food101")[0])


def test_pictures_and_titles_of_food101_that_are_missing_or_broken(copy, capsys):
    folder, _ = copy("food101", max_quarantine=0.1)
    pictures = sorted((folder / "images/test").rglob("*.jpg"))
    pictures[0].unlink()
    clips.cut(pictures[1])
    shutil.copy(pictures[2], pictures[2].with_name("stray.jpg"))
    lines = lines_of(folder / "texts/train_titles.csv", "food101")
    published.rows(folder / "texts/train_titles.csv", [[lines[0][0], "", lines[0][2]], *lines[1:]])
    data = ready(Plan("params.yaml").named("food101")[0])
    manifest.make(data)
    bad = pd.read_parquet(data.manifest / "quarantine.parquet").set_index("id")
    assert set(bad.index) == {pictures[0].stem, pictures[1].stem, lines[0][0].removesuffix(".jpg")}
    assert bad.reason[pictures[0].stem] == "missing file"
    assert bad.modality.to_dict()[lines[0][0].removesuffix(".jpg")] == "text"
    capsys.readouterr()
    assert cli.main(["check"]) == 0
    assert "unlisted  1 files that no list names, not used: images/test/dish_001/stray.jpg" in capsys.readouterr().out


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", published.MADE)
def test_every_published_data_set_says_where_it_comes_from(kind):
    about = datasets[kind]
    for what in ("title", "homepage", "licence", "citation", "layout"):
        assert getattr(about, what).strip(), what
    for item in about.downloads:
        assert item.url.startswith("https://") and re.fullmatch("[0-9a-f]{64}", item.sha256) and item.bytes > 0
    assert len(datasets[kind].modalities) >= 2


@pytest.mark.parametrize("kind", CONVERTED)
def test_check_of_what_the_fetch_stage_makes(copy, kind, capsys):
    _, data = copy(kind)
    assert cli.main(["check", kind]) == 2
    assert f"they are not made yet; run `python -m pipeline_src fetch {kind}`" in capsys.readouterr().err
    assert cli.main(["fetch", str(data.raw_index)]) == 0
    assert cli.main(["check", kind]) == 0
    total = sum(EXPECTED[kind][0].values())
    assert f"ready     {total} clips, 0 quarantined" in capsys.readouterr().out


def test_check_counts_by_split_and_class(copy, capsys):
    _, data = copy("cremad")
    manifest.make(data)
    table = pd.read_parquet(data.manifest / "manifest.parquet")
    assert cli.main(["check", "cremad"]) == 0
    report = capsys.readouterr().out
    for label in ("all", *data.dataset.classes):
        rows = table if label == "all" else table[table.label == label]
        counts = [str(int((rows.split == split).sum())) for split in ("train", "val", "test")]
        assert re.search(rf"^  {label} +{' +'.join(counts)}$", report, re.MULTILINE), label
    assert "lists     " in report  # these are not the published ones
    assert re.search(r"cache     0\.00 GB, \d+ GB free in ", report)


def test_fetch_of_the_whole_study_names_what_is_the_users(copy, capsys):
    folder, _ = copy("cremad")
    assert cli.main(["fetch"]) == 0
    assert f"cremad: read where it is, in {folder}; `fetch cremad` says what belongs there" in capsys.readouterr().out


def test_check_of_a_data_set_that_the_study_has_not(copy, capsys):
    copy("cremad")
    assert cli.main(["check", "cremat"]) == 2
    said = capsys.readouterr().err
    assert "expected a dataset of params.yaml or a published one, but got 'cremat'; did you mean 'cremad'?" in said


def test_check_when_the_disk_is_too_small(copy, capsys, monkeypatch):
    copy("cremad")
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    assert cli.main(["check"]) == 2
    assert re.search(
        r"cremad: expected [\d,]+ free bytes in .* for the cache, but got 1; make room", capsys.readouterr().err
    )


def test_check_of_a_class_without_training_clips(copy, capsys):
    folder, _ = copy("cremad", max_quarantine=0.9)
    for file in (folder / "AudioWAV").glob("*_SAD_*"):
        file.unlink()
    assert cli.main(["check"]) == 2
    assert "expected training clips of every class, but got none of SAD" in capsys.readouterr().err


def test_check_works_for_the_embedded_data_set(tmp_path, monkeypatch, capsys):
    from tests.workflow import small

    monkeypatch.chdir(tmp_path)
    small.write_params(tmp_path, {"datasets": {"av_digits": {"max_quarantine": 0.1}}})
    assert cli.main(["check"]) == 2
    assert "but they are not made yet" in capsys.readouterr().err
    assert cli.main(["fetch", "av_digits"]) == 0
    assert cli.main(["check", "av_digits"]) == 0
    assert "ready     84 clips, 0 quarantined" in capsys.readouterr().out
    data = Plan("params.yaml").named("av_digits")[0]
    next((data.raw / "media").iterdir()).unlink()
    assert cli.main(["check", "av_digits"]) == 0
    report = capsys.readouterr().out
    assert "changed   1 files are not as they were fetched: media/" in report
    assert "missing file: 1 clips" in report


def test_fetch_unpacks_what_was_put_there_and_says_what_else_to_put(copy, capsys):
    folder, _ = copy("ucf101")
    shutil.make_archive(str(folder / "UCF101TrainTestSplits-RecognitionTask"), "zip", folder, "ucfTrainTestlist")
    shutil.rmtree(folder / "ucfTrainTestlist")
    (folder / "UCF101.rar").touch()
    assert cli.main(["fetch", "ucf101"]) == 0
    out = capsys.readouterr()
    assert "UCF101.rar: unpack it yourself" in out.err
    assert "UCF101TrainTestSplits-RecognitionTask.zip: unpacked, 7 new files" in out.err
    assert f"{folder}/" in out.out and "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi" in out.out
    assert cli.main(["check", "ucf101"]) == 0
    capsys.readouterr()
    assert cli.main(["fetch", "ucf101"]) == 0
    assert "unpacked" not in capsys.readouterr().err  # once


def test_fetch_gets_the_lists_from_a_mirror(copy, tmp_path, capsys, monkeypatch):
    """The whole command against a local server in the place of the authors'."""
    import functools
    import http.server
    import threading

    from pipeline_src.core import files
    from pipeline_src.datasets.base import github

    folder, _ = copy("cremad")
    served = tmp_path / "served/raw.githubusercontent.com/o/r/c"
    shutil.move(folder / "lists", served)
    items = tuple(
        github("o/r", "c", f.name, f"lists/{f.name}", files.sha256(f), f.stat().st_size)
        for f in sorted(served.iterdir())
    )
    monkeypatch.setattr(datasets["cremad"], "downloads", items)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        copy("cremad", mirror=f"http://127.0.0.1:{server.server_port}")
        assert cli.main(["fetch", "cremad"]) == 0
        server.shutdown()
        thread.join()
    assert "lists/train.csv: fetched, checksum right" in capsys.readouterr().err
    assert cli.main(["check", "cremad"]) == 0
    assert "not as published" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["cremad", "cmu_mosi", "food101", "cg_mnist"])
def test_from_published_files_to_an_epoch(copy, kind, tmp_path):
    """One dataset of each kind of modalities: manifest, features, cache, one epoch."""
    from pipeline_src.features.build import extract, pack

    copy(kind)
    values = yaml.safe_load((tmp_path / "params.yaml").read_text())
    values["training"] |= {"batch_size": 32, "device": "cpu"}
    values["study"]["unimodal"] = False
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    data = ready(Plan("params.yaml").named(kind)[0])
    manifest.make(data)
    extract(data, 0)
    pack(data)
    record = Plan("params.yaml").runs[0].record
    assert cli.main(["train", str(record)]) == 0
    assert record.exists()
