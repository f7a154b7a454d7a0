"""Outputs are whole or not there, and folders of raw media know what changed in them."""

import os
import platform
import shutil
import subprocess
import sys
import time

import pytest

from pipeline_src import files


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def raw(tmp_path):
    """A folder as the fetch stage leaves it."""
    folder = tmp_path / "raw"
    (folder / "media").mkdir(parents=True)
    for name in ("media/a.mp4", "media/b.mp4", "list.csv"):
        (folder / name).write_text(name)
    files.write_json(folder / files.FILES, files.scan(folder, tmp_path / "seen.json"))
    return folder


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_whole(tmp_path):
    target = tmp_path / "new" / "out.json"
    with files.whole(target) as temporary:
        temporary.write_text("half")
        assert names(target.parent) == [temporary.name]
    assert target.read_text() == "half"
    assert names(target.parent) == ["out.json"]


def test_folder_replaces_the_old_one(tmp_path):
    target = tmp_path / "out"
    for round_ in ("old", "new"):
        with files.whole(target) as temporary:
            temporary.mkdir()
            (temporary / round_).touch()
    assert names(target) == ["new"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_error_leaves_nothing_new_and_the_old_target(tmp_path, kind, error):
    target = tmp_path / "out"
    for old in (False, True):
        if old and kind == "file":
            target.write_text("old")
        elif old:
            (target / "old").mkdir(parents=True)
        with pytest.raises(error), files.whole(target) as temporary:
            if kind == "file":
                temporary.write_text("half")
            else:
                (temporary / "half").mkdir(parents=True)
            raise error
        assert names(tmp_path) == (["out"] if old else [])
    assert target.read_text() == "old" if kind == "file" else names(target) == ["old"]


def test_block_that_makes_nothing_does_not_cost_the_old_folder(tmp_path):
    (tmp_path / "out" / "old").mkdir(parents=True)
    with pytest.raises(FileNotFoundError), files.whole(tmp_path / "out"):
        pass
    assert names(tmp_path / "out") == ["old"]


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path):
    live = tmp_path / f".out.tmp-{platform.node()}-{os.getppid()}"
    other = tmp_path / f".out2.tmp-{platform.node()}-{dead_pid()}"  # of another target
    (tmp_path / f".out.tmp-{platform.node()}-{dead_pid()}" / "half").mkdir(parents=True)
    live.write_text("half")
    other.write_text("half")
    with files.whole(tmp_path / "out") as temporary:
        temporary.write_text("whole")
    assert names(tmp_path) == sorted([live.name, other.name, "out"])


def test_killed_while_writing(tmp_path):
    """A process that cannot clean up after itself leaves no target, and the next one cleans up."""
    code = f"""
import os, signal
from pathlib import Path
from pipeline_src import files
with files.whole(Path({str(tmp_path / "out")!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert len(names(tmp_path)) == 1
    assert not (tmp_path / "out").exists()
    files.write_text(tmp_path / "out", "whole")
    assert names(tmp_path) == ["out"]


def test_untouched_and_merely_touched_files_are_no_change(raw):
    assert files.changes(raw, raw.parent / "seen.json") == {}
    os.utime(raw / "list.csv", ns=(1, 1))
    assert files.changes(raw, raw.parent / "seen.json") == {}


def test_a_copy_with_other_file_times_is_no_change_and_looked_into_once(raw, tmp_path, monkeypatch):
    copy, seen = shutil.copytree(raw, tmp_path / "copy", copy_function=shutil.copyfile), tmp_path / "other.json"
    assert (copy / files.FILES).read_bytes() == (raw / files.FILES).read_bytes()
    assert files.changes(copy, seen) == {}
    monkeypatch.setattr(files, "sha256", lambda file: pytest.fail(f"{file} was read again"))
    assert files.changes(copy, seen) == {}


def test_changes_finds_changed_removed_and_new_files(raw):
    (raw / "media/a.mp4").write_text("MEDIA/a.mp4")  # as long as before
    (raw / "media/b.mp4").unlink()
    (raw / "media/c.mp4").touch()
    changed = files.changes(raw, raw.parent / "seen.json")
    assert set(changed) == {"media/a.mp4", "media/b.mp4", "media/c.mp4"}
    assert changed["media/a.mp4"] == files.sha256(raw / "media/a.mp4")
    assert changed["media/b.mp4"] is None


def test_content_is_of_names_and_bytes(raw, tmp_path):
    index = tmp_path / "index.json"
    before = files.content(raw, index)
    os.utime(raw / "list.csv", ns=(1, 1))
    assert files.content(raw, index) == before == files.content(raw, tmp_path / "fresh.json")
    (raw / "list.csv").rename(raw / "lists.csv")
    renamed = files.content(raw, index)
    (raw / "lists.csv").write_text("other")
    assert len({before, renamed, files.content(raw, index)}) == 3


def test_content_looks_into_a_file_once(raw, tmp_path, monkeypatch):
    index = tmp_path / "index.json"
    looked, sha256 = [], files.sha256
    monkeypatch.setattr(files, "sha256", lambda file: looked.append(file.name) or sha256(file))
    first = files.content(raw, index)
    assert sorted(looked) == ["a.mp4", "b.mp4", "list.csv"]
    written = index.stat().st_mtime_ns
    time.sleep(0.01)
    assert files.content(raw, index) == first
    assert len(looked) == 3 and index.stat().st_mtime_ns == written
    (raw / "list.csv").write_text("changed")
    files.content(raw, index)
    assert looked[3:] == ["list.csv"]


def test_protected_files_of_an_unfinished_job_become_ones_own(tmp_path, monkeypatch):
    cached, linked, own, lost = (tmp_path / name for name in ("cached", "linked", "own", "lost"))
    cached.write_text("cached")
    linked.hardlink_to(cached)
    own.write_text("own")
    monkeypatch.setattr(os, "access", lambda path, mode: path != linked or linked.stat().st_nlink == 1)
    files.unprotect([linked, own])
    assert linked.stat().st_nlink == 2, "a finished job's files stay links"
    files.unprotect([str(linked), own, lost])
    linked.write_text("written")
    assert cached.read_text() == "cached"
    assert names(tmp_path) == ["cached", "linked", "own"]
