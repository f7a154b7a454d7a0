"""The measurement of scale goes through, and would notice what it is there to notice."""

import pytest

from benchmarks import scale
from pipeline_src.core.errors import UserError


def test_it_measures_extraction_restart_and_streaming(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scale, "DISTINCT", 2)
    monkeypatch.setattr(scale, "LIMIT", 16 << 30)  # what PyTorch asks for depends on the machine
    scale.measure(80, seconds=1.0, shards=2)
    output = capsys.readouterr().out
    rows = [line.split() for line in output.splitlines() if line.strip()[:1].isdigit()][1:]
    assert [row[:2] for row in rows] == [["20", "2"], ["80", "2"]], "as many jobs for more clips"
    assert all(float(value) > 0 for row in rows for value in row)
    assert "the same content" in output and "1 others untouched, 0 files left over" in output
    assert "clips/s streamed" in output and "Kinetics-Sounds, 17,396 clips" in output
    assert not list(tmp_path.iterdir())


def test_a_stage_that_fails_is_named_with_its_last_line(tmp_path):
    (tmp_path / "params.yaml").write_text("study: 1\n")
    with pytest.raises(UserError, match=r"extract: ended with 2: .*params\.yaml:1: "):
        scale._run(tmp_path, "extract")


def test_a_limit_of_memory_holds(tmp_path, monkeypatch):
    """Else training within one would show nothing."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="ended with"):
        scale._run(tmp_path, "recipes", limit=16 << 20)
    assert scale._run(tmp_path, "recipes").own > 5
