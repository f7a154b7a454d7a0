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
    (data,) = plan.data
    monkeypatch.setattr(type(data.dataset), "folder", property(lambda self: Path("media/mine")))
    assert data.fetched
    with pytest.raises(UserError, match=r"^dvc.yaml: stages.data.deps: expected media/mine, which datasets.av_digits"):
        check(plan, "data")
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("    deps:", "    deps:\n      - media", 1))
    check(plan, "data")


REMOTES = {
    "an address with a password": "url = https://me:hunter2@example.org/store",
    "a password": "url = https://example.org/store\n    password = hunter2",
    "a key": "url = s3://bucket/store\n    secret_access_key = hunter2",
    "a token": "url = azure://store\n    sas_token = hunter2",
    "words with a key in them": "url = azure://store\n    connection_string = AccountKey=hunter2",
}


@pytest.mark.parametrize("name", REMOTES)
def test_a_password_in_the_file_of_remotes_that_git_records_is_refused_and_not_shown(plan, name):
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text(f"[core]\n    remote = storage\n['remote \"storage\"']\n    {REMOTES[name]}\n")
    with pytest.raises(
        UserError, match=r"^\.dvc/config: expected no password.* of storage; .*--local storage"
    ) as error:
        check(plan, "data")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("url", ["/mnt/store", "s3://bucket/store", "ssh://me@host:22/store", "../store"])
def test_a_remote_without_a_password_is_none_of_our_business(plan, url):
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text(f"['remote \"storage\"']\n    url = {url}\n    ask_password = true\n")
    check(plan, "data")
