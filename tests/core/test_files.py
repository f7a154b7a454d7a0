"""Outputs are whole or not there, disks that cannot be written are said, and folders of raw media know what changed."""

import errno
import os
import platform
import resource
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import contextmanager

import pandas as pd
import pytest

from pipeline_src.core import files
from pipeline_src.core.errors import UserError


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
    files.write_sealed(folder / files.FILES, files.scan(folder, tmp_path / "seen.json"))
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
from contextlib import contextmanager
from pathlib import Path
from pipeline_src.core import files
with files.whole(Path({str(tmp_path / "out")!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert len(names(tmp_path)) == 1
    assert not (tmp_path / "out").exists()
    files.write_text(tmp_path / "out", "whole")
    assert names(tmp_path) == ["out"]


@contextmanager
def small_files():
    """No file of this process may be longer than 1,000 bytes: the system refuses, as it does on a full disk.

    For a block, not for a test: pytest's own output may go to a file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_cannot_be_written_is_an_error_that_keeps_the_old_one(tmp_path):
    target = tmp_path / "out"
    files.write_text(target, "old")
    found = r"out: expected to be able to write it, found: File too large \([\d,]+ MB free"
    with pytest.raises(UserError, match=found), small_files():
        files.write_text(target, "new" * 1000)
    assert target.read_text() == "old" and names(tmp_path) == ["out"]
    files.write_text(target, "new" * 10)
    assert target.read_text() == "new" * 10


def test_text_is_added_whole_or_not_at_all(tmp_path):
    target = tmp_path / "rows"
    for row in ("a" * 400, "b" * 400):
        files.append_text(target, row)
    with pytest.raises(UserError, match=r"rows: .*File too large"), small_files():
        files.append_text(target, "c" * 400)
    assert target.read_text() == "a" * 400 + "b" * 400


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_what_the_system_refuses_is_said_with_the_mend(tmp_path, code):
    with pytest.raises(UserError) as said, files.whole(tmp_path / "out") as temporary:
        raise OSError(code, os.strerror(code), str(temporary))
    assert os.strerror(code) in str(said.value)
    assert str(tmp_path / "out") in str(said.value) and "start again" in str(said.value)
    assert names(tmp_path) == []


def test_an_error_of_another_file_stays_what_it_is(tmp_path):
    with pytest.raises(PermissionError, match="input"), files.whole(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "input", str(tmp_path / "input"))


def test_a_file_in_the_place_of_a_folder_is_said(tmp_path):
    (tmp_path / "results").touch()
    with pytest.raises(UserError, match=r"results/runs/a\.json: .*move the file that stands where a folder should"):
        files.write_text(tmp_path / "results" / "runs" / "a.json", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_a_full_disk(tmp_path):
    """A real one, of 64 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        files.write_text(disk / "out", "old")
        (disk / "other").write_bytes(bytes(40_000))
        with pytest.raises(
            UserError, match=r"No space left on device \(0 MB free there\); free some space, then start"
        ):
            files.write_text(disk / "out", "new" * 10_000)
        assert (disk / "out").read_text() == "old" and names(disk) == ["other", "out"]
        (disk / "other").unlink()
        files.write_text(disk / "out", "new" * 10_000)
        assert len((disk / "out").read_text()) == 30_000
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_file_that_shows_late_is_waited_for(tmp_path):
    late = tmp_path / "shard" / "late"

    def show():
        while not waits.wait(0.01):
            pass
        late.parent.mkdir()
        late.touch()

    waits, shows = threading.Event(), threading.Thread(target=show)
    shows.start()
    assert not late.exists()
    waits.set()
    assert files.awaited(late, 120) == late and late.exists()
    shows.join()


def test_a_file_that_never_shows_is_waited_for_in_jobs_of_a_scheduler_only(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(files, "LATE", 0.5)
    monkeypatch.setattr(files.time, "sleep", waited.append)
    for name in files.SCHEDULERS:
        monkeypatch.delenv(name, raising=False)
    assert not files.awaited(tmp_path / "never").exists()
    assert not waited
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert not files.awaited(tmp_path / "never").exists()
    assert waited


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


def test_a_folder_of_millions_of_files_takes_little_memory(tmp_path):
    raw, count = tmp_path / "raw", 2000
    raw.mkdir()
    for i in range(count):
        (raw / f"clip{i:08d}.mp4").touch()
    files.content(raw, tmp_path / "seen.json")
    tracemalloc.start()
    files.content(raw, tmp_path / "seen.json")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 600 * count, f"{peak / count:.0f} bytes a file; an entry of the folder alone, with its state, is more"


def test_the_last_content_is_that_of_the_last_look(raw, tmp_path, monkeypatch):
    index = tmp_path / "index.json"
    before = files.last_content(raw, index)
    assert before == files.content(raw, tmp_path / "fresh.json"), "looked at, as it never was"
    (raw / "list.csv").write_text("changed")
    with monkeypatch.context() as patch:
        patch.setattr(files, "_walked", lambda *_: pytest.fail("looked into again"))
        assert files.last_content(raw, index) == before
    after = files.content(raw, index)
    assert after != before and files.last_content(raw, index) == after
    index.with_suffix(files.LAST).write_text("no hash")
    assert files.last_content(raw, index) == after


@pytest.mark.parametrize(("rows", "count"), [(0, 1), (1, 3), (10, 3), (23, 1), (23, 5), (23, 40)])
def test_the_parts_of_a_table_are_the_table(tmp_path, monkeypatch, rows, count):
    monkeypatch.setattr(files, "GROUP", 4)
    table = pd.DataFrame(
        {"id": [f"c{i}" for i in range(rows)], "label": [[i, i] for i in range(rows)], "x": range(rows)}
    )
    files.write_table(tmp_path / "table.parquet", table)
    parts = [files.read_part(tmp_path / "table.parquet", "", i, count) for i in range(count)]
    assert [len(part) for part in parts] == [rows * (i + 1) // count - rows * i // count for i in range(count)]
    whole = files.read_table(tmp_path / "table.parquet", "")
    assert [row for part in parts for row in part.id] == list(whole.id)
    assert [list(row) for part in parts for row in part.label] == [list(row) for row in whole.label]


def test_a_memory_of_another_form_is_forgotten(raw, tmp_path):
    seen = tmp_path / "other.json"
    before = files.content(raw, seen)
    files.write_sealed(seen, {"list.csv": [1, 2, "digest"]})
    assert files.remembered(seen) == {}
    assert files.content(raw, seen) == before
    assert files.remembered(seen)["list.csv"].endswith(files.sha256(raw / "list.csv"))


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
