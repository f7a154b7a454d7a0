"""Shards in storage: the same batches as from this disk, whatever the network does; nothing unverified is trusted."""

import fcntl
import multiprocessing
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pytest
import torch

from benchmarks import clips
from benchmarks.s3 import Server, serving
from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.features import Room, build, storage, units
from pipeline_src.features.read import Cache
from pipeline_src.training.loader import Loader
from tests.features.test_cache import CLIPS, Fake, arrays, built, data  # noqa: F401

CPU = torch.device("cpu")
SPLITS = {"train": 57, "val": 8, "test": 6}
MODALITIES = {  # a row is read by itself, or with others, or is smaller than what is mapped
    "picture": ("frames", (1, 3, 200, 500), "uint8"),
    "sound": ("spectrogram", (100, 300), "float16"),
    "words": ("sequence", (6, 5), "float32"),
}
TOTAL = sum(SPLITS.values()) * (300_000 + 60_000 + 120)


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Cache:
    """A cache on this disk, of two record batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "BATCH_BYTES", 14 << 20)
        cache = clips.write(tmp_path_factory.mktemp("local") / "cache", SPLITS, MODALITIES)
    assert len(cache._parts) == 2
    return cache


@pytest.fixture(scope="module")
def served(local, tmp_path_factory):
    """(the server, its folder) of the same cache with its shard in storage."""
    with pytest.MonkeyPatch.context() as patch, serving() as server:
        patch.setenv("AWS_ACCESS_KEY_ID", "dummy-key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "dummy-secret")
        folder = tmp_path_factory.mktemp("stored") / "cache"
        shutil.copytree(local.folder, folder)
        storage.put(folder / "shard-0.arrow", server.address("bucket/pre/fix"), "name", "shard-0")
        yield server, folder


@pytest.fixture
def server(served, monkeypatch) -> Server:
    """The server, without faults; a request that failed is soon made again."""
    server, _ = served
    monkeypatch.setattr(storage, "FIRST", 0.001)
    server.faults.clear()
    server.always, server.delay = "", 0.0
    server.read.clear()
    return server


@pytest.fixture
def folder(served) -> Path:
    return served[1]


def epoch(cache: Cache, seed: int = 0, split: str = "train", batch: int = 8) -> list[dict[str, bytes]]:
    """What a loader gives in a random order."""
    loader = Loader(cache, split, list(MODALITIES), CPU, resident=False)
    order = torch.randperm(len(loader), generator=torch.Generator().manual_seed(seed))
    return [{m: x.numpy().tobytes() for m, x in part.inputs.items()} for part in loader.batches(batch, order)]


def fetched(server: Server) -> int:
    return sum(size for _, _, size in server.read)


def test_an_object_is_the_shard_and_the_listing_has_everything_else(local, folder, server):
    shard, listing = local.folder / "shard-0.arrow", folder / "shard-0.arrow"
    (name,) = [name for name in server.objects if name.endswith(".arrow")]
    assert name == f"bucket/pre/fix/name/shard-0-{files.sha256(shard)[:16]}.arrow"
    assert server.objects[name] == shard.read_bytes()
    about = storage.listed(listing)
    assert about.sha256 == files.sha256(shard) and about.bytes == shard.stat().st_size
    assert about.every == {"picture": 1, "sound": 4, "words": 2184}
    assert listing.stat().st_size < 20_000 + 3 * 32 * sum(SPLITS.values())
    assert storage.listed(shard) is None
    with pa.memory_map(str(listing)) as mapped:
        assert pa.ipc.open_file(mapped).schema.field("picture").type == pa.binary(32)
    assert Cache(folder).clips.equals(local.clips)
    assert not server.read  # all of it is in the listing


@pytest.mark.parametrize("gb", [None, 0, 1e-2, 1])
def test_batches_are_those_of_this_disk_bit_for_bit(local, folder, server, tmp_path, gb):
    cache = Cache(folder, None if gb is None else Room(str(tmp_path / "room"), int(gb * 1e9)))
    for seed in range(2):
        assert epoch(cache, seed) == epoch(local, seed)
    assert epoch(cache, split="val") == epoch(local, split="val")
    rows = np.random.default_rng(0).integers(0, sum(SPLITS.values()), 40)  # with repeats, not announced
    for m in MODALITIES:
        assert cache.gather(m, rows).tobytes() == local.gather(m, rows).tobytes()
    loader = Loader(cache, "train", list(MODALITIES), CPU, resident=True)
    for m, values in loader.resident.items():
        assert values.numpy().tobytes() == local.gather(m, local.rows("train")).tobytes()


def test_what_fits_is_fetched_once_and_what_does_not_in_each_epoch(folder, server, tmp_path):
    cache = Cache(folder, Room(str(tmp_path / "room"), 10**9))
    epoch(cache, 0)
    first = fetched(server)
    assert 0.75 * TOTAL < first < TOTAL  # every unit once
    epoch(cache, 1)
    assert fetched(server) == first
    server.read.clear()
    limit = 6_000_000
    cache = Cache(folder, Room(str(tmp_path / "small"), limit))
    epoch(cache, 0)
    server.read.clear()
    taken = [0]
    for seed in range(1, 3):
        epoch(cache, seed)
        taken.append(fetched(server))
    # What has come first stays: each epoch reads the same bytes of it from disk, about the part of it that fits.
    assert taken[2] - taken[1] >= taken[1] - taken[0] >= (first - limit)
    (kept,) = (tmp_path / "small").glob("*-*")
    assert 0.9 * limit < int((kept / "bytes").read_text()) <= limit
    assert (kept / "rows").stat().st_blocks * 512 < limit + 100 * 4096  # a block of the disk at the edges


@pytest.mark.parametrize("fault", ["500", "503", "close", "slow", "truncate", "wrong"])
def test_a_fault_of_the_network_changes_nothing(local, folder, server, fault):
    server.faults.extend([fault] * 12)
    assert epoch(Cache(folder)) == epoch(local)
    assert not server.faults


def test_an_answer_that_does_not_come_is_asked_for_again(local, folder, server):
    server.faults.append("stall")
    started = time.monotonic()
    assert epoch(Cache(folder)) == epoch(local)
    assert time.monotonic() - started < 7.5  # the answer comes after 8


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("500", "expected an answer of storage in 1 tries, but got"),
        ("wrong", "not those that were stored"),
        ("403", "check the credentials"),
    ],
)
def test_what_does_not_pass_names_the_object_and_what_to_do(folder, server, monkeypatch, fault, said):
    monkeypatch.setattr(storage, "TRIES", 1 if fault == "500" else 3)  # of which each takes pyarrow 6 seconds
    server.always = fault
    with pytest.raises(UserError) as caught:
        epoch(Cache(folder))
    assert str(caught.value).startswith("s3://bucket/pre/fix/name/shard-0-") and said in str(caught.value)
    assert "\n" not in str(caught.value) and "dummy" not in str(caught.value) and "127.0.0.1" not in str(caught.value)


def test_requests_are_made_again_with_growing_pauses_and_not_for_ever(monkeypatch):
    pauses, place = [], storage.Storage("s3://bucket")

    class Clock:
        def wait(self, seconds: float) -> bool:
            pauses.append(seconds)
            return False

    def fails(*, after: int = 10**9) -> str:
        if len(pauses) < after:
            raise OSError("no answer")
        return "answer"

    assert place.tried("key", lambda: fails(after=3), Clock()) == "answer"
    assert all(storage.FIRST / 2 * 2**n <= pause <= storage.FIRST * 2**n for n, pause in enumerate(pauses))
    pauses.clear()
    with pytest.raises(
        UserError, match="s3://bucket/key: expected an answer of storage in 8 tries, but got: no answer"
    ):
        place.tried("key", fails, Clock())
    assert len(pauses) == storage.TRIES - 1 and max(pauses) <= storage.LONGEST


def failing(said: str) -> SimpleNamespace:
    """pyarrow's file systems, of which there is none at any address."""

    def from_uri(_: str) -> None:
        raise OSError(said)

    return SimpleNamespace(from_uri=from_uri)


def test_storage_whose_bucket_is_not_found_is_named(monkeypatch):
    monkeypatch.setattr(storage, "TRIES", 2)
    monkeypatch.setattr(storage, "FIRST", 0.001)
    monkeypatch.setattr(pafs, "FileSystem", failing("When resolving region for bucket 'b': no network"))
    place = storage.Storage("s3://b/prefix")
    for ask in (place.size, place.remove, lambda key: place.write(key, Path(__file__))):
        with pytest.raises(
            UserError, match=r"^s3://b/prefix/key: expected an answer of storage in 2 tries, but got: When"
        ):
            ask("key")


def test_credentials_are_not_in_messages(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abc/123+x")

    def fails() -> None:
        raise OSError("the signature of abc/123+x is wrong: ACCESS_DENIED")

    with pytest.raises(UserError) as caught:
        storage.Storage("s3://bucket").tried("key", fails)
    assert "of *** is wrong" in str(caught.value) and "abc" not in str(caught.value)


def test_an_object_that_is_gone_is_named(folder, server):
    (name,) = [name for name in server.objects if name.endswith(".arrow")]
    held = server.objects.pop(name)
    try:
        with pytest.raises(UserError, match=rf"s3://{name}: expected an object in storage, but got none; delete"):
            epoch(Cache(folder))
        with pytest.raises(UserError, match="but got none"):
            storage.verify(storage.listed(folder / "shard-0.arrow"))
    finally:
        server.objects[name] = held


def test_what_lies_on_this_disk_is_verified_once_by_each_process(local, folder, server, tmp_path):
    room = Room(str(tmp_path / "room"), 10**9)
    epoch(Cache(folder, room))
    server.read.clear()
    (rows,) = (tmp_path / "room").rglob("rows")
    with rows.open("r+b") as opened:  # a crash of the machine, or a bad disk
        opened.seek(1_000_000)
        opened.write(bytes(1000))
    cache = Cache(folder, room)
    assert epoch(cache) == epoch(local)
    assert [size for *_, size in server.read] == [300_000]
    assert epoch(Cache(folder, room)) == epoch(local) and len(server.read) == 1


def killed(folder: Path, room: Room) -> None:
    """Fills the room, and is killed half way through writing a unit."""
    write, count = os.pwrite, [0]

    def half(descriptor: int, held: memoryview, place: int) -> int:
        count[0] += 1
        if count[0] < 20:
            return write(descriptor, held, place)
        write(descriptor, held[: len(held) // 2], place)
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    os.pwrite = half
    epoch(Cache(folder, room))


def test_a_killed_job_leaves_nothing_that_is_trusted_and_jobs_share_the_folder(local, folder, server, tmp_path):
    room = Room(str(tmp_path / "room"), 10**9)
    job = multiprocessing.get_context("spawn").Process(target=killed, args=(folder, room))
    job.start()
    job.join()
    (count,) = (tmp_path / "room").rglob("bytes")
    written = int(count.read_text())
    assert job.exitcode == -signal.SIGKILL
    (held,) = (tmp_path / "room").rglob("held")
    assert 0 < sum(held.read_bytes()) < 20
    with ThreadPoolExecutor() as pool:  # two jobs at the same time
        jobs = [pool.submit(epoch, Cache(folder, room), seed) for seed in range(2)]
        assert [job.result() for job in jobs] == [epoch(local, seed) for seed in range(2)]
    assert written > 0 and int(count.read_text()) == sum(size for *_, size in set(server.read))  # each unit once
    server.read.clear()
    assert epoch(Cache(folder, room)) == epoch(local) and not server.read


def test_a_cache_that_no_job_uses_gives_way(folder, server, tmp_path, monkeypatch):
    room = Room(str(tmp_path / "room"), 5_000_000)
    base = tmp_path / "room"
    for name in ("idle", "busy"):
        (base / name).mkdir(parents=True)
        (base / name / "used").touch()
        (base / name / "bytes").write_text("2000000")
    with (base / "busy" / "used").open("rb") as used:
        fcntl.flock(used, fcntl.LOCK_SH)
        epoch(Cache(folder, room))
    assert not (base / "idle").exists() and (base / "busy").exists()
    (ours,) = base.glob("*-*")
    assert 2_500_000 < int((ours / "bytes").read_text()) <= 3_000_000


def test_files_of_the_local_copy_suit_nfs_and_macos(folder, server, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)  # macOS has none
    cache = Cache(folder, Room(str(tmp_path / "room"), 10**9))
    kept = cache.units.kept
    (held,) = (tmp_path / "room").rglob("held")
    assert held.stat().st_size == len(kept.held) <= held.stat().st_blocks * 512  # in full, as it is mapped
    assert kept._used.readable() and kept._used.writable()  # NFS gives locks of both kinds to nothing else
    again = Cache(folder, Room(str(tmp_path / "room"), 10**9))
    assert again.units and held.stat().st_size == len(kept.held)


def test_a_disk_that_cannot_be_written_is_no_error(local, folder, server, tmp_path, monkeypatch, caplog):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert epoch(Cache(folder, Room(str(tmp_path / "room"), 10**9))) == epoch(local)
    assert caplog.text.count("No space left on device") == 1


def test_the_folder_may_name_a_variable_of_the_job(monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch/7")
    assert Room("$SCRATCH/rows", 1).path == Path("/scratch/7/rows")
    with pytest.raises(UserError, match=r"local_copy\.folder: expected variables that this machine sets"):
        _ = Room("$SCRATCH_OF_NOBODY/rows", 1).path


@pytest.mark.parametrize("where", ["s3", "file"])
def test_extraction_leaves_listings_and_shards_move_there_and_back(data, arrays, server, tmp_path, where):  # noqa: F811
    base = server.address("bucket/study") if where == "s3" else f"file://{tmp_path}/storage"
    here = built(data)
    params = data.dataset.params.model_copy(update={"storage": base})
    there = replace(data, dataset=Fake(params), cache=tmp_path / "cache-0123456789" / "there")
    remote = built(there)
    assert remote.info == here.info and remote.clips.equals(here.clips)
    for m, values in arrays.items():
        assert remote.gather(m, np.arange(CLIPS)).tobytes() == values.tobytes()
    for stem, other in zip(there.shards, data.shards, strict=True):
        listing, shard = stem.with_suffix(".arrow"), other.with_suffix(".arrow")
        about = storage.listed(listing)
        assert about.sha256 == files.sha256(shard) and about.key.startswith("cache-0123456789/there/shard-000")
        assert storage.verify(about) == shard.stat().st_size
        assert storage.move(listing, "", there.objects, stem.name, "")
        assert listing.read_bytes() == shard.read_bytes()
        assert not storage.move(listing, "", there.objects, stem.name, "")
        before = len(server.objects)
        assert storage.move(listing, base, there.objects, stem.name, "")
        assert storage.listed(listing) == about and len(server.objects) == before  # it was there already
    assert not [file for file in there.cache.iterdir() if file.name.startswith(".")]
    assert Cache(there.cache).gather("picture", np.arange(CLIPS)).tobytes() == arrays["picture"].tobytes()


def test_a_shard_that_came_to_harm_in_storage_is_named_and_replaced(data, server):  # noqa: F811
    params = data.dataset.params.model_copy(update={"storage": server.address("bucket/harm")})
    data = replace(data, dataset=Fake(params))
    build.extract(data, 0)
    (name,) = [name for name in server.objects if name.startswith("bucket/harm/") and name.endswith(".arrow")]
    held = server.objects[name]
    server.objects[name] = held[:-1] + b"x"
    for i in (1, 2):
        build.extract(data, i)
    with pytest.raises(UserError, match=rf"s3://{name}: expected the object as it was stored, but got other bytes"):
        build.pack(data)
    build.extract(data, 0)
    assert server.objects[name] == held
    build.pack(data)


def test_storage_that_refuses_says_so_before_clips_are_decoded(data, monkeypatch):  # noqa: F811
    params = data.dataset.params.model_copy(update={"storage": "s3://closed"})
    monkeypatch.setattr(pafs, "FileSystem", failing("ACCESS_DENIED"))
    monkeypatch.setattr(build, "_decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UserError, match="check the credentials"):
        build.extract(replace(data, dataset=Fake(params)), 0)


def test_an_epoch_that_is_left_keeps_nothing(local, folder, server):
    cache = Cache(folder)
    loader = Loader(cache, "train", list(MODALITIES), CPU, resident=False)
    server.delay = 0.05
    batches, other = loader.batches(4), Loader(cache, "val", list(MODALITIES), CPU, resident=False).batches(4)
    next(batches), next(other)  # two passes at a time share what both ask for
    assert cache.units._flights
    batches.close()
    assert [part.index.tolist() for part in other] == [[4, 5, 6, 7]]
    assert not cache.units._flights
    server.delay = 0.0
    assert epoch(cache) == epoch(local)


def test_no_more_is_in_memory_than_a_set_size(folder, server, monkeypatch):
    monkeypatch.setattr(units, "AHEAD", 2_000_000)
    cache, most = Cache(folder), [0]
    get = units.Units._get

    def watched(self, *arguments):
        most[0] = max(most[0], sum(flight.size for flight in self._flights.values()))
        return get(self, *arguments)

    monkeypatch.setattr(units.Units, "_get", watched)
    epoch(cache)
    assert 1_500_000 < most[0] <= 2_000_000 + 1_000_000  # the last one may pass the limit
