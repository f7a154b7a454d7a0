"""The measurement of many rows goes through, and would notice what it is there to notice."""

import pytest

from benchmarks import rows, scale
from benchmarks.rows import Cost
from pipeline_src.core.errors import UserError
from pipeline_src.datasets import manifest
from pipeline_src.study.plan import Plan


def test_a_study_of_many_rows_is_planned_and_its_clips_are_listed(tmp_path, monkeypatch):
    study = tmp_path / "120"
    rows.lay_out(study, 120)
    assert rows.spent(study, "plan").memory > 10
    monkeypatch.chdir(study)
    (data,) = Plan().data
    listed = manifest.listed_clips(data)
    assert len(listed) == 120 and len(set(listed.groups)) == 60
    assert all((data.raw / path).exists() for path in listed.files["audio"])
    (data.raw / listed.files["audio"][0]).write_text("changed")
    assert Plan(fresh=False).data[0].manifest == data.manifest, (
        "a job that reads no raw files does not look at all of them"
    )
    assert Plan().data[0].manifest != data.manifest
    with pytest.raises(UserError, match=r"^manifest: ended with 2: .*val_fraction: 0\.05 cuts the .* into 20 folds"):
        rows.spent(study, "manifest")
    rows.lay_out(tmp_path / "240", 240)
    monkeypatch.chdir(tmp_path / "240")
    assert Plan().data[0].manifest != data.manifest, "one process reads the studies of both sizes"


@pytest.mark.parametrize(
    ("large", "what"),
    [(Cost(20.0, 300.0), None), (Cost(20.0, 4100.0), "of: plan$"), (Cost(25.0, 300.0), "of: plan$")],
)
def test_what_takes_too_much_or_grows_too_fast_fails(tmp_path, monkeypatch, capsys, large, what):
    costs = {100: Cost(2.0, 200.0), 1000: large}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rows, "opening", lambda: None)
    monkeypatch.setattr(rows, "commands", lambda folder, count: [("plan", costs[count])])
    if what is None:
        rows.measure(1000)
    else:
        with pytest.raises(UserError, match=what):
            rows.measure(1000)
    assert f"| plan | 2.0 | {large.cpu} |" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_files_are_opened_by_one_process_and_by_several(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scale, "DISTINCT", 1)
    monkeypatch.setattr(rows, "ROUNDS", 1)
    rows.opening(clips=20, processes=2)
    assert "files a second of one core; by 2 processes" in capsys.readouterr().out
