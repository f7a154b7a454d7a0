"""The benchmark of planning compares the same jobs, and would notice a dry run that fails."""

import pytest

from benchmarks import planning
from pipeline_src.core.errors import UserError
from tests.workflow.small import jobs, snakemake, write_params


def test_the_bare_snakefile_has_the_jobs_of_the_study(tmp_path, monkeypatch):
    ours, bare = tmp_path / "ours", tmp_path / "bare"
    ours.mkdir()
    monkeypatch.setenv("COUNTERPOISE_RESOURCES", str(ours / "resources.yaml"))
    write_params(ours, {"study": {"methods": ["joint", "umt"]}})
    runs, count = planning.write_bare(ours, bare)
    here = jobs(snakemake(ours, "--dry-run"))
    cost = planning.dry_run(bare / "Snakefile", bare)
    there = jobs((bare / "output").read_text())
    trained = there.pop("evaluate")  # the train job's output is the evaluation's
    assert {**there, "train": trained} == here
    assert runs == here["train"] and count == sum(here.values())
    assert cost.cpu > 0.1 and cost.memory > 50


def test_a_dry_run_that_fails_is_no_measurement(tmp_path):
    (tmp_path / "Snakefile").write_text("rule all:\n    input:\n        'missing'\n")
    with pytest.raises(UserError, match="expected a dry run, but it ended with 1"):
        planning.dry_run(tmp_path / "Snakefile", tmp_path)
