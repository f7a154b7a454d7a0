"""The manifest: what is wrong with the list is an error, what is wrong with a file goes to the quarantine table."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.datasets import manifest
from pipeline_src.datasets.base import Clip, Dataset, DatasetParams
from pipeline_src.media.base import Extractor, ExtractorParams, MediaError
from pipeline_src.study.outputs import Data


class Fake(Dataset):
    modalities = ("sound", "picture")
    classes = ("cat", "dog")

    def clips(self, folder):
        return self.listed


class Seconds(Extractor):
    """Takes files that hold their duration as text."""

    def probe(self, file: Path) -> float:
        if not file.exists():
            raise MediaError("no such file")
        try:
            return float(file.read_text())
        except ValueError:
            raise MediaError(f"no duration in {file.read_text()!r}") from None


def clip(i: int, label: str = "cat", split: str = "train", group: str | None = None, **changes) -> Clip:
    one = Clip(f"c{i}", label, split, group or f"g{i}", {m: Path(f"{m}/c{i}") for m in Fake.modalities})
    return one._replace(**changes)


@pytest.fixture
def data(tmp_path):
    """A function: a list of clips -> the plan's entry of their dataset, with a good file for each."""

    def of(clips: list[Clip], **params) -> Data:
        values = {"val_fraction": 0.2, "split_seed": 0, "max_quarantine": 0.5, "shards": 1, **params}
        dataset = Fake(DatasetParams(kind="fake", recipe="r", **values))
        dataset.listed = clips
        raw = tmp_path / "raw"
        raw.mkdir(exist_ok=True)
        for one in clips:
            for m, file in one.files.items():
                (raw / m).mkdir(parents=True, exist_ok=True)
                if not Path(file).is_absolute() and ".." not in Path(file).parts:
                    (raw / file).write_text("1.5" if m == "sound" else "2.0")
        extractors = {m: Seconds(ExtractorParams(kind="seconds")) for m in Fake.modalities}
        places = {name: tmp_path / name for name in ("manifest", "cache", "seen")}
        return Data("fake", "r", dataset, extractors, raw, fetched=True, cache_fp="f" * 10, **places)

    return of


def many(train: int = 60, test: int = 10, per_group: int = 3) -> list[Clip]:
    clips = [clip(i, Fake.classes[i % 2], group=f"g{i // per_group}") for i in range(train)]
    return clips + [clip(train + i, Fake.classes[i % 2], "test", f"t{i}") for i in range(test)]


def test_columns(data):
    data = data(many())
    manifest.make(data, processes=2)
    table = pd.read_parquet(data.manifest / "manifest.parquet")
    columns = ["id", "sound", "picture", "label", "split", "group", "duration", "checksum"]
    assert list(table.columns) == columns
    first = table.iloc[0]
    assert list(first[["id", "sound", "picture", "label", "group", "duration"]]) == [
        *("c0", "sound/c0", "picture/c0", "cat", "g0", 2.0)
    ]
    assert first.checksum.split() == [files.sha256(data.raw / m / "c0") for m in ("sound", "picture")]
    assert list(table.id) == [c.id for c in data.dataset.listed]  # in the order of the lists, whatever the processes
    assert set(table.split) == {"train", "val", "test"}
    empty = pd.read_parquet(data.manifest / "quarantine.parquet")
    assert list(empty.columns) == ["id", "modality", "file", "reason", "stage"] and empty.empty


def test_file_that_modalities_share_is_hashed_once(data):
    shared = [c._replace(files=dict.fromkeys(Fake.modalities, Path(f"sound/{c.id}"))) for c in many()]
    data = data(shared)
    manifest.make(data)
    table = pd.read_parquet(data.manifest / "manifest.parquet")
    assert set(table.checksum.str.len()) == {64}


BOTH = {"sound": Path("sound/x"), "picture": Path("picture/x")}
BAD_LISTS = {
    "no clips": ([], "expected clips, but got none"),
    "doubled id": ([clip(1), clip(2), clip(1)], r"ids that occur twice in the lists: c1 \(1 of 3 clips\)"),
    "id that leaves": ([clip(1, id="../x")], r"ids that cannot name a file: '\.\./x'"),
    "id with a folder": ([clip(1, id="a/b")], r"ids that cannot name a file: 'a/b'"),
    "hidden id": ([clip(1, id=".x")], r"ids that cannot name a file: '\.x'"),
    "empty id": ([clip(1, id="")], r"ids that cannot name a file: ''"),
    "id with a line end": ([clip(1, id="x\n")], r"ids that cannot name a file: 'x\\n'"),
    "absolute path": (
        [clip(1, files=BOTH | {"sound": Path("/etc/passwd")})],
        r"paths that leave the dataset's folder: c1 \(/etc/passwd\)",
    ),
    "path that leaves": (
        [clip(1, files=BOTH | {"picture": Path("picture/../../x")})],
        r"paths that leave the dataset's folder: c1 \(picture/\.\./\.\./x\)",
    ),
    "unknown label": (
        [clip(1), clip(2, "dgo")],
        r"expected labels that are classes, but got dgo \(of c2\); did you mean 'dog'\? \(known: cat, dog\)",
    ),
    "val alone": ([clip(1, split="val"), clip(2, split="test")], "of both splits .*, but got none of train"),
    "unknown split": ([clip(1, split="Train")], r"splits other than train, val, test: c1 \(Train\)"),
    "missing modality": ([clip(1, files={"sound": Path("x")})], "clips without a file for each of sound, picture: c1"),
    "no test clips": (
        [clip(1), clip(2)],
        "expected clips of both splits in the dataset's lists, but got none of test",
    ),
    "many at once": ([clip(i, split="dev") for i in range(9)], r"c4 \(dev\) and 4 more \(9 of 9 clips\)"),
}


@pytest.mark.parametrize("kind", BAD_LISTS)
def test_bad_list_is_an_error_that_names_the_clip(data, kind):
    clips, what = BAD_LISTS[kind]
    data = data(clips)
    with pytest.raises(UserError, match=what) as raised:
        manifest.make(data)
    assert str(raised.value).startswith("fake: ")
    assert not data.manifest.exists()


def test_unreadable_files_go_to_the_quarantine_with_their_reason(data):
    data = data(many(), max_quarantine=0.05)
    (data.raw / "picture/c3").write_text("broken")
    (data.raw / "sound/c5").unlink()
    (data.raw / "picture/c5").unlink()
    manifest.make(data)
    table = pd.read_parquet(data.manifest / "manifest.parquet")
    bad = pd.read_parquet(data.manifest / "quarantine.parquet")
    assert bad.to_numpy().tolist() == [
        ["c3", "picture", "picture/c3", "no duration in 'broken'", "manifest"],
        ["c5", "sound", "sound/c5", "no such file", "manifest"],
    ]
    assert sorted([*table.id, *bad.id]) == sorted(c.id for c in data.dataset.listed)


def test_too_many_unreadable_files_stop_the_run_and_leave_their_list(data):
    data = data(many(), max_quarantine=0.05)
    for i in range(4):
        (data.raw / f"sound/c{i}").write_text("broken" if i else "")
    what = (
        r"fake: 4 of 70 clips \(5\.7%\) are quarantined, more than datasets\.fake\.max_quarantine = 5\.0% allows: "
        r"3 x no duration in 'broken', 1 x no duration in ''; first sound/c0"
    )
    with pytest.raises(UserError, match=what):
        manifest.make(data)
    assert [path.name for path in data.manifest.iterdir()] == ["quarantine.parquet"]
    assert len(pd.read_parquet(data.manifest / "quarantine.parquet")) == 4


def test_all_files_unreadable_stop_the_run_whatever_the_share(data):
    data = data(many(4, 1), max_quarantine=0.99)
    for i in range(5):
        (data.raw / f"sound/c{i}").unlink()
    with pytest.raises(UserError, match=r"5 of 5 clips \(100\.0%\) are quarantined"):
        manifest.make(data)


def table(clips: list[Clip]) -> pd.DataFrame:
    return pd.DataFrame([c._asdict() for c in clips])


@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.4, 0.45])
def test_val_is_stratified_by_group_near_the_share_and_from_train_alone(share):
    rng = np.random.default_rng(0)
    clips = many(600, 100, per_group=5)
    order = rng.permutation(len(clips))
    before = table([clips[i] for i in order])
    after = before.assign(split=manifest.cut_val(before, share, seed=0))
    train = before.split == "train"
    assert list(after.split[~train]) == ["test"] * 100
    val = after[after.split == "val"]
    assert not set(val.group) & set(after.group[after.split == "train"])
    nearest = min((1 / n for n in range(2, 20)), key=lambda whole: abs(whole - share))
    assert len(val) / train.sum() == pytest.approx(nearest, abs=0.02)
    assert Counter(val.label)["cat"] / len(val) == pytest.approx(0.5, abs=0.05)


def test_val_cut_is_a_matter_of_its_seed_alone():
    clips = table(many(120))
    one, same, other = (manifest.cut_val(clips, 0.2, seed) for seed in (0, 0, 1))
    assert list(one) == list(same) != list(other)


def test_what_the_plan_has_hashed_is_not_read_again(data):
    data = data(many())
    digests = files.scan(data.raw, data.seen)
    entries = files.remembered(data.seen)
    entries["sound/c0"] = entries["sound/c0"].rpartition(" ")[0] + " remembered"
    entries["sound/c1"] = entries["sound/c1"].partition(" ")[0] + " 0 stale"
    files.write_sealed(data.seen, entries)
    manifest.make(data)
    table = pd.read_parquet(data.manifest / "manifest.parquet").set_index("id")
    assert table.checksum["c0"].split()[0] == "remembered"
    assert table.checksum["c1"].split()[0] == digests["sound/c1"]


def test_published_val_is_kept(data):
    clips = [one._replace(split="val") if i < 8 else one for i, one in enumerate(many())]
    data = data(clips, val_fraction=0.4)
    manifest.make(data)
    table = pd.read_parquet(data.manifest / "manifest.parquet")
    assert list(table.split) == [one.split for one in clips]


def test_pointers_of_git_lfs_are_named_as_such(data):
    data = data(many())
    (data.raw / "sound/c3").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    manifest.make(data)
    bad = pd.read_parquet(data.manifest / "quarantine.parquet")
    assert bad.reason.item() == "Git LFS pointer in place of the file: run `git lfs pull` in the repository"


def test_no_folder_is_one_clear_error(data, tmp_path):
    import shutil

    data = data(many())
    shutil.rmtree(data.raw)
    with pytest.raises(
        UserError, match=r"^fake: expected its files in .*/raw, but there is no such folder; .* fetch fake` downloads"
    ):
        manifest.make(data)


def test_too_few_groups_for_the_share():
    clips = table(many(60, per_group=20))
    message = r"val_fraction: 0\.1 cuts the 60 .* into 10 folds: expected at least 10 groups, but got 3"
    with pytest.raises(UserError, match=message):
        manifest.cut_val(clips, 0.1, seed=0)
    assert set(manifest.cut_val(clips, 0.3, seed=0)) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("clips", "what"), [(many(8, 2, 1), "of a label, but got 4"), (many(0, 4), "groups, but got 0")]
)
def test_too_few_clips_for_the_share(clips, what):
    with pytest.raises(UserError, match=what):
        manifest.cut_val(table(clips), 0.15, seed=0)
