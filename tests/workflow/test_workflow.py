"""The real thing, small: raw video files to tables through Snakemake, again, changed, broken and killed."""

import json
import os
import re
import shutil
import signal
import time
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.workflow.small import ROOT, jobs, kill, snakemake, start, write_params

DONE = "Nothing to be done"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with a finished small study; tests that change anything work on a copy."""
    folder = tmp_path_factory.mktemp("study")
    write_params(folder)
    snakemake(folder)
    return folder


@pytest.fixture
def study(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "study")


def records(folder: Path) -> dict[str, dict]:
    return {
        str(f.relative_to(folder)): json.loads(f.read_text())
        for f in sorted(folder.glob("results/runs/**/record.json"))
    }


def test_results(finished):
    metrics = pd.read_parquet(finished / "results/studies/params/metrics.parquet")
    columns = ["dataset", "recipe", "fusion", "method", "seed", "split", "modality", "metric", "value"]
    assert list(metrics.columns) == columns
    assert not metrics.duplicated(columns[:-1]).any()
    test = metrics[(metrics.split == "test") & (metrics.metric == "accuracy")]
    assert len(test) == 8  # two unimodal models, one joint and the ensemble, two seeds
    for kind in ("csv", "md", "tex"):
        assert (finished / f"results/studies/params/tables/accuracy.{kind}").stat().st_size > 100
    assert "audio-only" in (finished / "results/studies/params/report.html").read_text()
    assert len(records(finished)) == 6


def test_a_stored_prediction_gives_the_reported_accuracy(finished):
    metrics = pd.read_parquet(finished / "results/studies/params/metrics.parquet")
    for file in finished.glob("results/runs/**/predictions.parquet"):
        stored = pd.read_parquet(file)
        names = json.loads((file.parent / "metrics.json").read_text())["names"]
        same = (metrics[list(names)] == pd.Series(names)).all(axis=1) & (metrics.split == "test")
        fused = metrics[same & (metrics.modality == "fused") & (metrics.metric == "accuracy")].value.item()
        test = stored[stored.split == "test"]
        assert (stored.predicted == stored.fused.map(lambda z: z.argmax())).all()
        assert (test.fused.map(lambda z: z.argmax()) == test.label).mean() == pytest.approx(fused)
        assert len(test) == 24 and set(stored.split) == {"val", "test"}


def test_splits_share_no_writer_and_no_voice(finished):
    manifest = pd.read_parquet(next(finished.glob("data/manifest/*/manifest.parquet")))
    clips = pd.read_csv(next(finished.glob("data/raw/*/clips.csv"))).set_index("id")
    manifest["voice"] = clips.voice[manifest.id].to_numpy()
    for column in ("group", "voice"):
        sets = [set(part[column]) for _, part in manifest.groupby("split")]
        assert len(sets) == 3
        assert not set.intersection(*sets) and sum(map(len, sets)) == manifest[column].nunique()


def test_every_rule_leaves_a_log_and_a_benchmark(finished):
    for rule in ("fetch", "manifest", "extract", "cache", "train", "aggregate"):
        assert any(finished.glob(f"logs/{rule}/**/*.log")), rule
        benchmarks = list(finished.glob(f"logs/{rule}/**/*.tsv"))
        assert benchmarks and all(pd.read_csv(f, sep="\t").s.gt(0).all() for f in benchmarks), rule
    assert "val" in next(finished.glob("logs/train/**/*.log")).read_text()


def test_nothing_to_do_whatever_the_file_times_and_without_snakemakes_memory(study):
    assert DONE in snakemake(study, "-n")
    now = time.time()
    for i, file in enumerate(sorted(study.rglob("*"))):
        os.utime(file, (now - i, now - i))
    shutil.rmtree(study / ".snakemake")
    assert DONE in snakemake(study, "-n")


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ({"resources": {"train": {"mem_mb": 5000}}}, {}),
        ({"reporting": {"confidence": 0.9}}, {"aggregate": 1}),
        ({"evaluation": {"probe_c": 0.1}}, {"train": 6, "aggregate": 1}),
        ({"model": {"encoders": {"visual": {"width": 5}}}}, {"train": 4, "aggregate": 1}),
        ({"study": {"fusions": ["concat", "sum"]}}, {"train": 2, "aggregate": 1}),
        (
            {"recipes": {"av-digits-2": {"audio": {"bins": 32}}}},
            {"extract": 2, "cache": 1, "train": 6, "aggregate": 1},
        ),
    ],
)
def test_a_changed_value_reruns_what_depends_on_it(study, change, rules):
    write_params(study, change)
    output = snakemake(study, "-n")
    found = {} if DONE in output else {rule: n for rule, n in jobs(output).items() if rule != "all"}
    assert found == rules


def test_changed_and_changed_back_the_tables_follow(study):
    accuracy = study / "results/studies/params/tables/accuracy.csv"
    before = accuracy.read_bytes()
    write_params(study, {"reporting": {"confidence": 0.8}})
    snakemake(study)
    assert accuracy.read_bytes() != before
    write_params(study)
    assert set(jobs(snakemake(study))) == {"aggregate", "all"}
    assert accuracy.read_bytes() == before


def test_a_cell_trained_again_predicts_the_same_bit_for_bit(study):
    before = {f: f.read_bytes() for f in study.glob("results/runs/**/predictions.parquet")}
    assert len(before) == 6
    shutil.rmtree(study / "results")
    snakemake(study)
    assert all(f.read_bytes() == content for f, content in before.items())


def begun(process, folder: Path, finished: int) -> None:
    """Wait until so many runs are finished and another one, not yet done, has a checkpoint."""

    def under_way() -> bool:
        kept = folder.glob("results/runs/**/checkpoint.safetensors")
        return any(not (file.parent / "record.json").exists() for file in kept)

    deadline = time.time() + 300
    while len(records(folder)) < finished or not under_way():
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.05)


def test_asked_to_stop_and_killed_it_goes_on_and_keeps_what_was_finished(tmp_path):
    # One job at a time, so that one seed is done, and nothing else, when the other is killed.
    write_params(tmp_path, {"training": {"epochs": 20}, "study": {"unimodal": False, "seeds": [0, 1]}})
    process = start(tmp_path, "--cores", "1")
    begun(process, tmp_path, finished=0)
    os.killpg(process.pid, signal.SIGTERM)  # also to the shell and to tee
    process.communicate()
    (log,) = tmp_path.glob("logs/train/**/*.log")
    assert re.search(
        r"stopped by SIGTERM after epoch \d+ of 20, step \d+; goes on when started again\n$", log.read_text()
    )
    (attempt,) = tmp_path.glob("results/runs/**/attempt.json")
    assert json.loads(attempt.read_text())["status"] == "interrupted"
    process = start(tmp_path, "--cores", "1")
    begun(process, tmp_path, finished=1)
    kill(process)
    finished = records(tmp_path)
    assert len(finished) == 1
    output = snakemake(tmp_path)
    assert len(records(tmp_path)) == 2
    assert finished.items() <= records(tmp_path).items(), "a finished run was trained again"
    assert "goes on after epoch" in output
    assert DONE in snakemake(tmp_path, "-n")


def break_clips(study: Path) -> dict[str, str]:
    """Spoil raw files in five ways; {clip: part of the reason that must be given}."""
    files = sorted(study.glob("data/raw/*/media/*.mp4"))
    whole = files[1].read_bytes()
    files[0].write_bytes(b"")
    files[1].write_bytes(whole[: len(whole) // 2])
    files[2].write_bytes(b"no film at all" * 50)
    files[3].unlink()
    reasons = ["empty", "", "cannot be opened", "missing"]
    return {file.stem: reason for file, reason in zip(files, reasons, strict=False)}


def test_broken_files_are_quarantined_by_name_and_reported(study):
    broken = break_clips(study)
    write_params(study, {"datasets": {"av_digits": {"max_quarantine": 0.1}}})
    snakemake(study)
    cache = max(study.glob("data/cache/*/*/cache.json"), key=lambda f: f.stat().st_mtime)
    quarantine = pd.read_parquet(cache.parent / "quarantine.parquet").set_index("id")
    assert set(quarantine.index) == set(broken)
    for clip, reason in broken.items():
        assert quarantine.reason[clip] and reason in quarantine.reason[clip]
    report = (study / "results/studies/params/report.html").read_text()
    assert all(clip in report for clip in broken)
    assert sum(json.loads(cache.read_text())["splits"].values()) == 84 - len(broken)


def test_too_many_broken_files_stop_the_run_and_say_so(study):
    break_clips(study)
    output = snakemake(study, succeeds=False)
    assert re.search(r"error: av_digits: \d of 84 clips \(\d\.\d%\) are quarantined, more than", output)
    assert "Traceback" not in output
    assert len(list(study.glob("data/manifest/*/quarantine.parquet"))) == 2  # that of before, and the one that says why
    assert len(list(study.glob("data/manifest/*/manifest.parquet"))) == 1


def test_training_is_a_line_on_the_study_and_an_error_of_a_run_is_said(study, monkeypatch):
    monkeypatch.setenv("COUNTERPOISE_LOG", "")  # as if it were not set
    write_params(study, {"study": {"unimodal": False, "seeds": [0]}})
    shutil.rmtree(study / "results")
    shutil.rmtree(study / "logs")
    cache = next(study.glob("data/cache/*/*/cache.json"))
    whole = cache.read_bytes()
    cache.write_bytes(whole[:-20])
    output = snakemake(study, succeeds=False)
    (log,) = study.glob("logs/train/**/*.log")
    assert "error: data/cache/" in log.read_text() and log.read_text().splitlines()[-1] in output
    assert "study params  0 of 1 runs done" in output
    cache.write_bytes(whole)
    output = snakemake(study)
    assert "study params  1 of 1 runs done" in output
    assert "epoch 2 of 2" in log.read_text() and "epoch" not in output and "Select jobs" not in output


def test_a_mistake_in_the_params_is_said_before_the_first_job(tmp_path):
    write_params(tmp_path, {"training": {"optimiser": "sgd"}})
    output = snakemake(tmp_path, succeeds=False)
    assert re.search(r"params.yaml:\d+: training.optimiser: unknown key; did you mean 'optimizer'\?", output)
    assert "Traceback" not in output
    assert not (tmp_path / "data").exists()


def test_another_resources_file_is_named_on_the_command_line(tmp_path):
    write_params(tmp_path)
    (tmp_path / "mine.yaml").write_text("cells_per_gpu: many\n")
    output = snakemake(tmp_path, "-n", "--config", "resources=mine.yaml", succeeds=False)
    assert "mine.yaml:1: cells_per_gpu: expected" in output
    output = snakemake(tmp_path, "-n", "--config", "param=mine.yaml", succeeds=False)
    assert "--config param: unknown; expected params=FILE or resources=FILE" in output


def test_only_registered_names_are_wildcards(study):
    run = next(study.glob("results/runs/*/*/concat/joint-*/seed0/*/metrics.json")).relative_to(study)
    for wrong in ("conat/joint", "concat/jiont"):
        output = snakemake(study, "-n", str(run).replace("concat/joint", wrong), succeeds=False)
        assert "MissingRuleException" in output


def test_snakemakes_own_report(study):
    snakemake(study, "--report", "report.zip")
    with zipfile.ZipFile(study / "report.zip") as report:
        names = {Path(name).name for name in report.namelist()}
        page = next(report.read(name) for name in report.namelist() if name.count("/") == 1 and name.endswith("html"))
    assert {file.name for file in (study / "results/studies/params/figures").glob("*.svg")} | {"report.html"} <= names
    assert {"cost-av_digits.svg", "learning-av_digits-concat.svg"} <= names
    assert b"The figure learning of av_digits-concat." in page, "its caption"


def test_a_grid_of_thousands_of_runs_is_planned(tmp_path):
    copies = {f"digits{i}": {} for i in range(7)}
    write_params(tmp_path)
    values = yaml.safe_load((tmp_path / "params.yaml").read_text())
    values["datasets"] = {name: values["datasets"]["av_digits"] | {"seed": i} for i, name in enumerate(copies)}
    values["study"] |= {"datasets": list(copies), "fusions": ["concat", "sum"], "seeds": list(range(100))}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    found = jobs(snakemake(tmp_path, "-n"))
    assert sum(n for rule, n in found.items() if rule.startswith("train")) == 7 * 4 * 100


def test_rules_only_declare():
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        rules = re.split(r"^ *rule\b", file.read_text(), flags=re.MULTILINE)[1:]
        assert rules, file
        for rule in rules:
            for directive in ("log", "threads", "resources", "conda", "shell"):
                assert re.search(rf"^ +{directive}:", rule, flags=re.MULTILINE), (file.name, directive)
            usage = "--usage={{params.usage:q}}" in rule  # by the job, as a copy may do the work
            assert usage != bool(re.search(r"^ +benchmark:", rule, flags=re.MULTILINE)), file.name
            assert re.search(r"\*\*asked\.\w+\.job\(", rule), file.name
            assert re.search(r"python -m pipeline_src \w+ --params", rule)
            assert not re.search(r"^ +(run|script):", rule, flags=re.MULTILINE)
