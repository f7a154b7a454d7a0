"""AVE by event: what a clip is cut from, and what becomes of a video that a list has twice."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pipeline_src.core.errors import UserError
from pipeline_src.datasets import manifest
from pipeline_src.features import build
from pipeline_src.features.read import tensors
from pipeline_src.study.plan import Plan
from tests.datasets import published
from tests.media import clips

TWICE = "tr000abcdef"  # from 0 to 10 s, and from 3 to 5 s


@pytest.fixture
def ave(tmp_path, monkeypatch):
    """A function: changes of its block -> the small copy's folder and its entry in the plan."""
    monkeypatch.chdir(tmp_path)
    block = published.ave(tmp_path / "ave")

    def of(**changes):
        return tmp_path / "ave", published.plan(tmp_path, tmp_path / "ave", **block | changes)

    return of


def test_every_row_is_the_whole_video_by_default(ave):
    _, data = ave()
    listed = list(data.dataset.clips(data.raw))
    assert {clip.span for clip in listed} == {None}
    assert [clip.id for clip in listed if clip.group == TWICE] == [TWICE, f"{TWICE}.2"]


def test_every_row_is_its_event(ave):
    _, data = ave(span="event")
    spans = pd.Series([clip.span for clip in data.dataset.clips(data.raw)])
    assert spans.value_counts().to_dict() == {(0.0, 10.0): len(spans) - 1, (3.0, 5.0): 1}


def test_the_second_row_of_a_video_can_be_dropped(ave):
    _, kept = ave(span="event")
    _, data = ave(span="event", repeats="drop")
    listed = list(data.dataset.clips(data.raw))
    assert len(listed) == len(list(kept.dataset.clips(kept.raw))) - 1
    assert [clip.span for clip in listed if clip.group == TWICE] == [(0.0, 10.0)]
    assert data.dataset.sizes == {"train": 3_312, "val": 401, "test": 402}


def test_the_cache_holds_the_events(ave, tmp_path):
    folder, data = ave(span="event")
    video = clips.write(tmp_path / "long.mp4", clips.greys(12), fps=2, wave=clips.noise(6, 16_000), rate=16_000)
    shutil.copy(video, folder / f"AVE/{TWICE}.mp4")
    _, data = ave(span="event")
    manifest.make(data)
    listed = pd.read_parquet(data.manifest / "manifest.parquet").set_index("id")
    assert (listed.start[f"{TWICE}.2"], listed.end[f"{TWICE}.2"]) == (3.0, 5.0)
    build.extract(data, 0)
    levels = {}
    for part in tensors(data.shards[0].with_suffix(".arrow")):
        for name, visual in zip(part["id"], part["visual"], strict=True):
            levels[name] = ((visual.mean((1, 2, 3)) - 20) / 16).round().tolist()
    assert levels[TWICE] == [3, 9]  # the centres of both halves of 0 to 6 s, two frames a second
    assert levels[f"{TWICE}.2"] == [7, 9]  # of 3 to 5 s


def test_a_manifest_without_parts_has_no_columns_for_them(ave):
    _, data = ave()
    manifest.make(data)
    assert not {"start", "end"} & set(pd.read_parquet(data.manifest / "manifest.parquet").columns)


def test_an_event_that_does_not_end_after_it_starts_is_named_by_its_line(ave):
    folder, data = ave(span="event")
    file = folder / "lists/valSet.txt"
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([first.replace("&0&10", "&5&5"), *rest]))
    with pytest.raises(UserError, match=r"valSet\.txt:1: expected a start and a later end .*, but got '5' and '5'"):
        list(data.dataset.clips(data.raw))


def test_parts_of_files_need_an_extractor_that_reads_them(ave):
    ave(span="event")
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["recipes"]["small"]["visual"] = published.EXTRACTORS["flow"]
    Path("params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError) as raised:
        Plan("params.yaml")
    (line,) = str(raised.value).split("\n")
    expected = "expected an extractor that reads a part of a file (fbank, frames, log_psd, log_stft), but got 'flow'"
    assert line.endswith(f"datasets.ave.recipe: {expected} for 'visual'")
