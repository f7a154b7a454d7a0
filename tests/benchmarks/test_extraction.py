from benchmarks import extraction as bench


def test_the_benchmark_prints_every_kind_and_recipe(monkeypatch, capsys):
    for name, value in {"ROUNDS": 1, "CLIPS": 1, "SECONDS": 1, "RATE": 5, "HEIGHT": 48, "WIDTH": 64}.items():
        monkeypatch.setattr(bench, name, value)
    bench.extract()
    printed = capsys.readouterr().out
    assert all(printed.count(kind) == 2 for kind in bench.KINDS)
    assert "ogm-ge-2022-cremad " in printed and "247" in printed
