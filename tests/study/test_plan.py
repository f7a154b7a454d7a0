"""Changing one value reruns only what depends on it, and nothing that does not."""

import time
from pathlib import Path

import pytest
import yaml

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.core.stages import STAGES
from pipeline_src.study.outputs import Run
from pipeline_src.study.plan import Plan
from pipeline_src.study.resources import RESOURCES
from pipeline_src.study.yaml import Loader

SHIPPED = Path(__file__).parents[2] / "params.yaml"

# A change in a stage also changes all that follows.
DATA = {"fetch", "manifest", "extract", "cache", "train", "evaluate", "aggregate"}
MANIFEST = DATA - {"fetch"}
CACHE = MANIFEST - {"manifest"}
TRAIN = CACHE - {"extract", "cache"}
EVALUATE = TRAIN - {"train"}
NOTHING = set()


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A function: changes {place: value} of the shipped file, cut to one method -> its plan, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(RESOURCES, "resources.yaml")

    def of(changes: dict | None = None) -> Plan:
        values = yaml.load(SHIPPED.read_text(), Loader)
        values["resources"] = yaml.safe_load(SHIPPED.with_name("workflow").joinpath("resources.yaml").read_text())
        values["study"] |= {"methods": ["joint"], "fusions": ["concat", "sum"], "seeds": [0, 1], "unimodal": True}
        for place, value in (changes or {}).items():
            block, *path = values, *place.split("/")
            for part in path[:-1]:
                block = block[part]
            assert path[-1] in block or place.startswith(("methods/", "resources/")), place
            block[path[-1]] = value
        Path("resources.yaml").write_text(yaml.safe_dump(values.pop("resources")))
        Path("params.yaml").write_text(yaml.safe_dump(values))
        return Plan()

    return of


def addresses(plan: Plan) -> dict[str, set[str]]:
    return {stage: {str(path) for path, _ in plan.places(stage)} for stage in STAGES}


@pytest.mark.parametrize(
    ("place", "value", "moved"),
    [
        ("datasets/av_digits/snr_db", [-3.0, 3.0], DATA),
        ("datasets/av_digits/clips", 200, DATA),
        ("datasets/av_digits/seed", 7, DATA),
        ("datasets/av_digits/val_fraction", 0.25, MANIFEST),
        ("datasets/av_digits/split_seed", 7, MANIFEST),
        ("datasets/av_digits/shards", 3, {"extract", "cache"}),
        ("datasets/av_digits/max_quarantine", 0.5, {"aggregate"}),
        ("recipes/av-digits-2/audio/bins", 48, CACHE),
        ("recipes/av-digits-2/visual/size", 48, CACHE),
        ("model/encoders/visual/width", 8, TRAIN),
        ("training/lr", 0.5, TRAIN),
        ("training/epochs", 3, TRAIN),
        ("training/batch_size", 8, TRAIN),
        ("training/normalize", "none", TRAIN),
        ("training/precision", "bf16", TRAIN),
        ("training/compile", "kernels", TRAIN),
        ("training/select", "last", TRAIN),
        ("training/augmentation/audio", {"roll": 3}, TRAIN),
        ("training/device", "cpu", NOTHING),
        ("training/gpus", 4, NOTHING),
        ("training/resident_fraction", 0.0, NOTHING),
        ("evaluation/probe_c", 0.5, EVALUATE),
        ("evaluation/probe_iterations", 7, EVALUATE),
        ("reporting/confidence", 0.9, {"aggregate"}),
        ("resources/cells_per_gpu", 2, NOTHING),
        ("resources/train/threads", 2, NOTHING),
        ("resources/extract/mem_mb", 1, NOTHING),
        ("methods/joint", {}, NOTHING),
    ],
)
def test_one_value_moves_only_what_depends_on_it(plan, place, value, moved):
    before, after = addresses(plan()), addresses(plan({place: value}))
    assert {stage for stage in STAGES if before[stage] != after[stage]} == moved
    for stage in {"train", "evaluate"} & moved - {"cache"}:
        kept = before[stage] & after[stage]
        only_one_modality = "encoders" in place or "augmentation" in place
        assert bool(kept) == only_one_modality  # the runs of the other modality alone


def test_runs_of_one_modality_do_not_depend_on_the_others_network(plan):
    before, after = addresses(plan()), addresses(plan({"model/encoders/visual/width": 8}))
    alone = {path for path in before["train"] if "/audio-only-" in path}
    assert len(alone) == 2
    assert before["train"] & after["train"] == alone


@pytest.mark.parametrize(
    ("place", "value"),
    [("study/seeds", [0, 1, 2]), ("study/methods", ["joint", "ogm"]), ("study/fusions", ["concat", "gated", "sum"])],
)
def test_growing_the_study_leaves_what_is_there(plan, place, value):
    before, after = addresses(plan()), addresses(plan({place: value}))
    for stage in ("fetch", "manifest", "extract", "cache"):
        assert before[stage] == after[stage]
    for stage in ("train", "evaluate"):
        assert before[stage] < after[stage]
    assert before["aggregate"] != after["aggregate"]


def test_shards_cut_the_same_data(plan):
    two, three = plan().datasets["av_digits"], plan({"datasets/av_digits/shards": 3}).datasets["av_digits"]
    assert (len(two.shards), len(three.shards)) == (2, 3)
    assert two.cache != three.cache and two.cache_fp == three.cache_fp


def test_block_under_another_name_is_another_data_set_of_the_same_kind(plan):
    values = yaml.load(SHIPPED.read_text(), Loader)
    loud = values["datasets"]["av_digits"] | {"snr_db": [20.0, 20.0]}
    both = plan({"datasets": {**values["datasets"], "loud": loud}, "study/datasets": ["av_digits", "loud"]})
    assert addresses(both)["train"] > addresses(plan())["train"]
    assert {path.parts[2] for path, _ in both.places("train")} == {"av_digits", "loud"}


def test_every_address_leads_back(plan):
    plan = plan()
    for stage in STAGES:
        places = list(plan.places(stage))
        assert len({path for path, _ in places}) == len(places) > 0
        assert all(plan.at(stage, str(path)) == what for path, what in places)
    assert len(plan.runs) == (2 + 2) * 2
    assert isinstance(plan.at("evaluate", str(plan.runs[-1].metrics)), Run)
    assert plan.at("evaluate", str(plan.runs[-1].metrics)) is plan.runs[-1]


@pytest.mark.parametrize("stage", STAGES)
def test_stale_path_says_what_to_do(plan, stage):
    old = str(next(iter(plan().places(stage)))[0])
    now = plan({"datasets/av_digits/seed": 7})
    new = str(next(iter(now.places(stage)))[0])
    with pytest.raises(UserError, match=r"run snakemake again$") as raised:
        now.at(stage, old)
    assert str(raised.value).startswith(f"{old}: not what params.yaml asks of `{stage}` now (that would be {new})")


def test_path_of_nothing(plan):
    with pytest.raises(UserError, match=r"^results/nothing: not what params.yaml asks of `train` now; "):
        plan().at("train", "results/nothing")


@pytest.fixture
def fetched(plan):
    """The raw folder of the dataset, as the fetch stage leaves it."""
    raw = plan().datasets["av_digits"].raw
    (raw / "media").mkdir(parents=True)
    for name in ("a", "b"):
        (raw / "media" / name).write_text(name)
    files.write_sealed(raw / files.FILES, files.scan(raw, Path("data/seen/fetch.json")))
    return raw


def test_fetching_moves_nothing(plan, fetched):
    after = addresses(plan())
    (fetched / files.FILES).unlink()
    assert addresses(plan()) == after


@pytest.mark.parametrize("edit", ["change", "remove", "add"])
def test_touched_raw_file_moves_all_but_the_raw_folder_and_mending_it_moves_all_back(plan, fetched, edit):
    before = addresses(plan())
    file = fetched / "media" / ("c" if edit == "add" else "a")
    file.unlink() if edit == "remove" else file.write_text("other")
    after = addresses(plan())
    assert {stage for stage in STAGES if before[stage] != after[stage]} == MANIFEST
    for stage in MANIFEST:
        assert not before[stage] & after[stage]
    file.unlink(missing_ok=True)
    if edit != "add":
        file.write_text("a")
    assert addresses(plan()) == before


def test_data_set_of_the_users_own_folder(plan, tmp_path, monkeypatch):
    from pipeline_src.datasets.base import Dataset, datasets

    own = tmp_path / "own"
    monkeypatch.setattr(datasets["av_digits"], "folder", own)
    monkeypatch.setattr(datasets["av_digits"], "fetch", Dataset.fetch)
    absent = addresses(plan())  # a study can be planned without the data
    own.mkdir()
    (own / "a").write_text("a")
    before = addresses(plan())
    assert not before["fetch"]
    assert {stage for stage in STAGES if before[stage] != absent[stage]} == MANIFEST
    assert addresses(plan()) == before
    (own / "a").write_text("b")
    after = addresses(plan())
    assert {stage for stage in STAGES if before[stage] != after[stage]} == MANIFEST
    assert [path.name for path in own.iterdir()] == ["a"]  # nothing is written into the user's folder


def test_data_set_that_the_fetch_stage_makes_from_the_users_folder(plan, tmp_path, monkeypatch):
    from pipeline_src.datasets.base import datasets

    own = tmp_path / "own"
    own.mkdir()
    (own / "a").write_text("a")
    monkeypatch.setattr(datasets["av_digits"], "folder", own)
    before = addresses(plan())
    assert before["fetch"]
    (own / "a.zip").touch()  # archives come and go
    assert addresses(plan()) == before
    (own / "a").write_text("b")
    after = addresses(plan())
    assert {stage for stage in STAGES if before[stage] != after[stage]} == DATA


def test_grid_of_thousands_is_planned_in_seconds(plan):
    block = yaml.load(SHIPPED.read_text(), Loader)["datasets"]["av_digits"]
    names = [f"digits-{i}" for i in range(7)]
    changes = {
        "datasets": {name: {**block, "kind": "av_digits", "seed": i} for i, name in enumerate(names)},
        "study/datasets": names,
        "study/methods": ["joint", "ogm"],
        "study/seeds": list(range(100)),
    }
    started = time.perf_counter()
    large = plan(changes)
    places = addresses(large)
    assert large.index
    last = large.runs[-1]
    assert large.at("evaluate", str(last.metrics)) is last
    taken = time.perf_counter() - started
    assert len(places["train"]) == len(places["evaluate"]) == 7 * (2 + 2 * 2) * 100
    assert taken < 10, f"{taken:.1f} s"
