"""The benchmark of storage measures each way of reading."""

import re

from benchmarks import storage as bench


def test_it_prints_a_rate_for_each_way_of_reading(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "DELAYS", (0.2,))
    monkeypatch.setattr(bench, "ROUNDS", 1)
    bench.measure(40)
    lines = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()[2:]]
    rates = {way: float(rate) for _, way, rate, *_ in lines}
    assert [way for way in rates if "local" in way] == ["half of it in the local copy", "all of it in the local copy"]
    assert rates["one request at a time"] <= 5  # 0.2 s for each clip
    assert min(rates["24 requests"], rates["all of it in the local copy"]) > 5
    assert not list(tmp_path.iterdir())
