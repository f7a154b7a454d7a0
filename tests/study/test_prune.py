"""What `prune` lists and removes: stale addresses, and nothing else."""

import shutil
from pathlib import Path

import pytest
import yaml

from pipeline_src.core.errors import UserError
from pipeline_src.study.plan import Plan
from pipeline_src.study.prune import prune, stale, studies

SHIPPED = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(SHIPPED, tmp_path)
    return Plan()


def make(*folders: Path | str) -> list[Path]:
    for folder in map(Path, folders):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "file").write_bytes(b"x" * 2**20)
    return [Path(folder) for folder in folders]


def test_nothing_is_stale_where_nothing_is(plan):
    assert stale(plan) == []


def test_stale_addresses_are_listed_then_removed_and_all_else_stays(plan, capsys):
    data, run = plan.data[0], plan.runs[0]
    old = "0123456789"
    named = make(data.raw, data.manifest, data.cache, *(r.evaluation for r in plan.runs))
    unaddressed = make(
        "data/raw/my-videos",
        "data/raw/my-videos-0123",
        "data/cache/av_digits/notes",
        "results/runs/notes",
        "results/tables",
        f"data/raw/.hidden-{old}",
        f"data/raw/my-videos-{old}x",
        f"data/raw/.av_digits-{old}.tmp-1",  # what a running job writes
        f"results/runs/av_digits/av-digits-1/sum/joint-{old}/.seed0.tmp-1",
    )
    outdated = make(
        f"data/raw/av_digits-{old}",
        f"data/manifest/gone-{old}",
        f"data/cache/gone/recipe-2-{old}",
        f"results/runs/av_digits/av-digits-1/sum/joint-{old}/seed0",
        run.cell.folder / "seed77",
        run.folder / f"evaluation-{old}",
    )
    assert sorted(stale(plan)) == sorted(outdated)

    prune(["params.yaml"], yes=False)
    considered, *said = capsys.readouterr().out.splitlines()
    assert considered == "kept, as named by one of 1 studies: params.yaml"
    assert sorted(line.split()[-1] for line in said[:-1]) == sorted(map(str, outdated))
    assert all(line.split()[:2] == ["1.0", "MB"] for line in said[:-1])
    assert said[-1].split()[:2] == ["6.0", "MB"] and "--yes" in said[-1]
    assert all(path.exists() for path in outdated)

    prune(["params.yaml"], yes=True)
    assert "6.0 MB  removed" in capsys.readouterr().out
    assert not any(path.exists() for path in outdated)
    assert all((path / "file").exists() for path in named + unaddressed)
    assert stale(plan) == []


def test_the_runs_of_another_study_stay_if_it_is_named(plan):
    values = yaml.safe_load(SHIPPED.read_text())
    values["training"]["lr"] = 0.5
    Path("other.yaml").write_text(yaml.safe_dump(values))
    other = Plan("other.yaml")
    make(*(run.evaluation for run in (*plan.runs, *other.runs)))
    assert set(stale(plan)) == {run.folder for run in other.runs}
    assert stale(plan, other) == []


def test_studies_beside_in_experiments_and_of_finished_tables_are_considered(plan, tmp_path, capsys):
    for folder in ("experiments", "far", "recipes"):
        Path(folder).mkdir()
    text = SHIPPED.read_text()
    for file in ("b.yaml", "experiments/c.yml", "far/d.yaml", "far/unknown.yaml"):
        Path(file).write_text(text)
    Path("recipes/e.yaml").write_text("modalities: {}")
    Path("dvc.yaml").write_text("stages: {}")
    Path("results/studies/x/tables").mkdir(parents=True)
    Path("results/studies/x/tables/index-incomplete.json").write_text('{"params": "far/d.yaml"}')
    Path("results/studies/y/tables").mkdir(parents=True)
    Path("results/studies/y/tables/index-0123456789.json").write_text("{")
    assert [str(one.file) for one in studies()] == ["b.yaml", "params.yaml", "experiments/c.yml", "far/d.yaml"]
    prune(["params.yaml"], yes=False)
    assert "4 studies: params.yaml, b.yaml, experiments/c.yml, far/d.yaml" in capsys.readouterr().out


def test_nothing_is_removed_while_a_study_cannot_be_read(plan):
    (outdated,) = make("data/raw/av_digits-0123456789")
    Path("broken.yaml").write_text(SHIPPED.read_text().replace("epochs: 20", "epoch: 20"))
    with pytest.raises(
        UserError, match=r"broken.yaml: not pruned, as what this study names is not known; fix or move it"
    ):
        prune(["params.yaml"], yes=True)
    assert outdated.exists()


def test_what_was_made_from_a_folder_that_is_not_there_now_stays(plan, monkeypatch, capsys):
    (data,) = plan.data
    monkeypatch.setattr(type(data.dataset), "folder", property(lambda self: Path("/not/mounted")))
    made = make("data/cache/av_digits/av-digits-1-0123456789", "data/manifest/av_digits-0123456789")
    (other,) = make("data/manifest/other-0123456789")
    prune(["params.yaml"], yes=True)
    assert all(path.exists() for path in made) and not other.exists()
    assert "kept, as its folder is not there: everything of av_digits" in capsys.readouterr().out
