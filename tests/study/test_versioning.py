"""DVC records a stage only if all that it made is there and watched."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline_src.core.errors import UserError
from pipeline_src.study.plan import Plan
from pipeline_src.study.versioning import PARTS, check

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A plan of which every output is there, empty but for those that the plan reads."""
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    plan = Plan()
    for stages in PARTS.values():
        for path in (path for stage in stages for job in plan.jobs(stage) for path in job):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
    return plan


@pytest.mark.parametrize("stage", PARTS)
def test_whole_stages_pass(plan, stage):
    check(plan, stage)


@pytest.mark.parametrize(
    ("stage", "pattern"),
    [
        ("data", "data/manifest/*/quarantine.parquet"),
        ("features", "data/cache/*/*/shard-0001-of-0002.arrow"),
        ("features", "data/cache/*/*/shard-0000-of-0002.quarantine.parquet"),
        ("runs", "results/runs/*/*/concat/pmr-*/seed12/weights.safetensors"),
        ("runs", "results/runs/*/*/concat/pmr-*/seed12/metrics.jsonl"),
        ("runs", "results/runs/*/*/concat/pmr-*/seed12/evaluation-*/predictions.parquet"),
    ],
)
def test_a_lost_file_is_named(plan, stage, pattern):
    (file,) = Path().glob(pattern)
    file.unlink()
    with pytest.raises(UserError, match=rf"^{file}: expected a file, but got none \(1 in all\)"):
        check(plan, stage)
    for other in set(PARTS) - {stage}:
        check(plan, other)


@pytest.mark.parametrize(("line", "seen"), [("", False), ("- own/weights.safetensors", True), ("- own", True)])
def test_weights_of_the_users_own_are_watched(plan, line, seen):
    named = SimpleNamespace(weights="own/weights.safetensors")
    plan.params.model.encoders["audio"] = named
    text = Path("dvc.yaml").read_text()
    Path("dvc.yaml").write_text(text.replace("- data/cache\n    params", f"- data/cache\n      {line}\n    params", 1))
    if seen:
        check(plan, "runs")
    else:
        with pytest.raises(
            UserError, match=r"^dvc.yaml: stages.runs.deps: expected own/weights.safetensors, which model"
        ):
            check(plan, "runs")


def test_a_folder_of_published_files_is_watched_also_where_fetch_reads_it(plan, monkeypatch):
    (data,) = plan.data.values()
    monkeypatch.setattr(type(data.dataset), "folder", property(lambda self: Path("media/mine")))
    assert data.fetched
    with pytest.raises(UserError, match=r"^dvc.yaml: stages.data.deps: expected media/mine, which datasets.av_digits"):
        check(plan, "data")
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("    deps:", "    deps:\n      - media", 1))
    check(plan, "data")
