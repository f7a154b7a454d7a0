"""A study whose shards lie in storage: addresses, status, verify, prune, and shards that move."""

import shutil
from pathlib import Path

import pytest

from benchmarks import clips
from benchmarks.s3 import serving
from pipeline_src.cli import main
from pipeline_src.core.errors import UserError
from pipeline_src.features import storage
from pipeline_src.features.read import Cache
from pipeline_src.study.plan import Plan
from pipeline_src.study.prune import prune
from pipeline_src.study.status import status
from pipeline_src.study.verify import verify

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "dummy-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "dummy-secret")
    with serving() as server:
        yield server


@pytest.fixture
def local(tmp_path_factory) -> Cache:
    folder = tmp_path_factory.mktemp("local") / "cache"
    return clips.write(folder, {"train": 60}, {"visual": ("frames", (1, 3, 100, 100), "uint8")})


def test_status_verify_and_prune_know_of_shards_in_storage(local, server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    plan = Plan()
    assert "storage" not in status(plan)
    cache, stale = plan.data[0].cache, Path("data/cache/av_digits/av-digits-2-0123456789")
    for folder in (cache, stale):
        folder.mkdir(parents=True)
        shutil.copy(local.folder / "shard-0.arrow", folder / "shard-0000-of-0002.arrow")
        storage.put(
            folder / "shard-0000-of-0002.arrow", server.address("bucket/all"), folder.name, "shard-0000-of-0002"
        )
    ours, other = (storage.listed(folder / "shard-0000-of-0002.arrow") for folder in (cache, stale))
    said = status(plan)
    assert f"shards of av_digits in storage: 1 of 2, {ours.bytes / 1e6:,.1f} MB (s3://bucket/all)" in said
    assert "rows of them on this machine: 0.0 of 100.0 GB (data/local)" in said

    server.read.clear()
    assert "no damage" in verify(plan) and sum(size for *_, size in server.read) == ours.bytes
    held = server.objects[f"bucket/all/{ours.key}"]
    server.objects[f"bucket/all/{ours.key}"] = held[:500_000] + b"x" + held[500_001:]
    with pytest.raises(UserError, match=rf"s3://bucket/all/{ours.key}: expected the object as it was stored"):
        verify(plan)

    for yes, objects, left in ((False, True, True), (True, False, True), (True, True, False)):
        prune(["params.yaml"], yes, objects)
        assert other.address in capsys.readouterr().out
        assert stale.exists() == (f"bucket/all/{other.key}" in server.objects) == left
    assert cache.exists() and f"bucket/all/{ours.key}" in server.objects


def test_where_shards_lie_moves_no_address_and_credentials_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text()

    def planned(address: str) -> Plan:
        Path("params.yaml").write_text(text.replace("    shards: 2\n", f'    shards: 2\n    storage: "{address}"\n'))
        return Plan()

    assert planned("s3://bucket/prefix").data[0].storage == "s3://bucket/prefix"
    assert planned("s3://bucket/prefix").index == planned("gs://other").index == planned("").index
    for secret in ("s3://me:hush@bucket/prefix", "s3://bucket/prefix?secret_key=hush", "abfs://in/a?se=1&sig=hush"):
        with pytest.raises(UserError, match="address without credentials") as caught:
            planned(secret)
        assert "hush" not in str(caught.value)
    for wrong in ("bucket/prefix", "ftp://server/folder", "s3://", "s3:///prefix", "s3://?region=x", "file://folder"):
        with pytest.raises(UserError, match="expected an address such as s3://bucket/prefix"):
            planned(wrong)
    for right in ("file:///mnt/shards", "hdfs://name:8020/shards", "s3://b?endpoint_override=h:9000&scheme=http"):
        assert planned(right).data[0].storage == right


def test_store_moves_the_shards_of_a_study(local, server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text()
    there = text.replace("    shards: 2\n", f'    shards: 2\n    storage: "{server.address("bucket/moved")}"\n')
    Path("params.yaml").write_text(there)
    (data,) = Plan().data
    shard, held = data.shards[1].with_suffix(".arrow"), (local.folder / "shard-0.arrow").read_bytes()
    shard.parent.mkdir(parents=True)
    shard.write_bytes(held)
    assert main(["store"]) == 0
    assert "av_digits: 1 of 2 shards moved to s3://bucket/moved" in capsys.readouterr().out
    assert storage.listed(shard).key.startswith(f"av_digits/{data.cache.name}/shard-0001-of-0002-")
    Path("params.yaml").write_text(text)
    assert main(["store"]) == 0
    assert "1 of 2 shards moved to data/cache" in capsys.readouterr().out
    assert shard.read_bytes() == held
