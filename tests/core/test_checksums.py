"""No bit of a sealed file is left out, and what was verified is read once per machine."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline_src.core import checksums, files
from pipeline_src.core.errors import UserError

FIX = "delete it"


def json_file(folder):
    files.write_sealed(folder / "a.json", {"one": 1, "two": [0.5, "text"]})
    return folder / "a.json"


def table_file(folder):
    files.write_table(folder / "a.parquet", pa.table({"x": list(range(20)), "s": [str(i) for i in range(20)]}))
    return folder / "a.parquet"


def arrow_file(folder):
    schema = pa.schema([("x", pa.int64())], metadata={"checksum": checksums.SEAL})
    with pa.ipc.new_file(str(folder / "a.arrow"), schema) as writer:
        writer.write_batch(pa.record_batch([pa.array(range(50))], schema=schema))
    checksums.seal(folder / "a.arrow")
    return folder / "a.arrow"


@pytest.mark.parametrize("make", [json_file, table_file, arrow_file])
def test_every_bit_counts(make, tmp_path):
    file = make(tmp_path)
    checksums.verify(file, FIX)
    content = file.read_bytes()
    bits = np.random.default_rng(0).permutation(8 * len(content))[:1500]
    for bit in bits:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << (bit % 8)
        file.write_bytes(changed)
        with pytest.raises(UserError, match=r"a damaged file .*; delete it"):
            checksums.verify(file, FIX)
    for length in range(0, len(content), 37):
        file.write_bytes(content[:length])
        with pytest.raises(UserError, match="damaged"):
            checksums.verify(file, FIX)
    file.write_bytes(content + b"\n")
    with pytest.raises(UserError, match="damaged"):
        checksums.verify(file, FIX)


def test_what_was_sealed_comes_back(tmp_path):
    assert files.read_sealed(json_file(tmp_path), FIX) == {"one": 1, "two": [0.5, "text"]}
    assert files.read_table(table_file(tmp_path), FIX).x.tolist() == list(range(20))
    with pa.memory_map(str(arrow_file(tmp_path))) as mapped:
        assert pa.ipc.open_file(mapped).read_all()["x"].to_pylist() == list(range(50))


def test_a_file_that_is_not_there_or_has_no_checksum(tmp_path):
    with pytest.raises(UserError, match="gone: expected a file, but got none; delete it"):
        checksums.verify(tmp_path / "gone", FIX)
    files.write_json(tmp_path / "plain.json", {"one": 1})
    with pytest.raises(UserError, match="damaged"):
        files.read_sealed(tmp_path / "plain.json", FIX)
    with pytest.raises(ValueError, match="first or last"):
        checksums.seal(tmp_path / "plain.json")


def test_a_large_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    files.write_sealed(tmp_path / "large.json", {"text": "x" * checksums.REMEMBERED})
    digests = []
    monkeypatch.setattr(
        checksums, "_digest", lambda *given, digest=checksums._digest: digests.append(1) or digest(*given)
    )
    file = tmp_path / "large.json"
    for _ in range(3):
        checksums.verify(file, FIX)
    assert len(digests) == 1
    checksums.verify(file, FIX, fresh=True)
    assert len(digests) == 2
    content = file.read_bytes()
    file.write_bytes(content[:-9] + b"y" + content[-8:])
    with pytest.raises(UserError, match="damaged"):
        checksums.verify(file, FIX)
    assert checksums.sha256(file, FIX) == checksums.sha256(file, FIX, fresh=True) == files.sha256(file)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_this_user_may_not_read(tmp_path):
    file = json_file(tmp_path)
    file.chmod(0)
    with pytest.raises(UserError, match="expected a file that this user may read, but got Permission denied"):
        checksums.verify(file, FIX)


def test_what_the_system_refuses_is_one_line(tmp_path):
    for error, said in (
        (PermissionError(13, "Permission denied"), "this user may read"),
        (OSError(5, "Input/output error"), "can be read, but got Input/output error; delete it"),
    ):
        told = str(checksums.unreadable(tmp_path / "a", FIX, error))
        assert said in told and "\n" not in told
