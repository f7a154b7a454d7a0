import subprocess
import sys

import numpy as np
import pytest

from pipeline_src.media.base import MediaError
from pipeline_src.media.tokens import Tokens, TokensParams, bucket


def extractor(length=6, buckets=1000):
    return Tokens(TokensParams(kind="tokens", length=length, buckets=buckets))


def text(folder, words, encoding="utf-8"):
    (folder / "a.txt").write_text(words, encoding=encoding)
    return folder / "a.txt"


def test_words_become_their_numbers(tmp_path):
    tokens = extractor()
    found = tokens.extract(text(tmp_path, "Apple pie, APPLE — crème-brûlée!"))
    assert found.shape == tokens.shape == (6,) and found.dtype == tokens.dtype == np.int32
    words = ["apple", "pie", "apple", "crème", "brûlée"]
    assert found.tolist() == [1 + bucket(word, 1000) for word in words] + [0]
    assert found.max() < tokens.vocabulary == 1001
    assert extractor(length=2).extract(tmp_path / "a.txt").tolist() == found[:2].tolist()
    assert tokens.probe(tmp_path / "a.txt") == 0
    np.testing.assert_array_equal(extractor().extract(text(tmp_path, "apple pie", "utf-8-sig"))[:2], found[:2])


def test_numbers_are_the_same_in_every_process():
    code = "from pipeline_src.media.tokens import bucket; print(bucket('pie', 10**6))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(found) == bucket("pie", 10**6)


def test_numbers_are_spread_evenly():
    counts = np.bincount([bucket(f"word{i}", 50) for i in range(20_000)], minlength=50)
    assert counts.min() > 300 and counts.max() < 500  # 400 on average, deviation 20


def test_broken_files(tmp_path):
    reasons = {"missing.txt": "missing file", "empty.txt": "empty file", "blank.txt": "no words"}
    (tmp_path / "empty.txt").touch()
    (tmp_path / "blank.txt").write_text(" \n --- !")
    (tmp_path / "latin.txt").write_bytes("crème".encode("latin-1"))
    for name, reason in (reasons | {"latin.txt": "not UTF-8: .* at byte 2"}).items():
        with pytest.raises(MediaError, match=reason):
            extractor().extract(tmp_path / name)
