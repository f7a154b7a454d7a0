"""From run folders to MLflow runs, in a sqlite file and through a real server."""

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.study.plan import Plan
from pipeline_src.tracking import follow, store, view
from pipeline_src.tracking.mirror import NEW, SAME, UPDATED, Mirror
from tests.tracking.study import begin, finish, planned, points, results, row, stored


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('database')}/mlflow.db"


@pytest.fixture(params=["database", "server"])
def kept(request, folder):
    """(plan, URI of the store, mirror); the experiment is the test's own."""
    name = request.node.name.replace("[", " ").replace("]", "")
    plan = planned({"tracking": {"experiment": name}})
    uri = request.getfixturevalue(request.param)
    return plan, uri, Mirror(store.Store(uri, name))


def dump(uri: str, experiment: str) -> list:
    """All that MLflow has of an experiment, but when it was last asked."""
    found = []
    for run in stored(uri, experiment, every=True):
        every = {name: points(uri, run, name) for name in run.data.metrics}
        found.append([run.info.run_id, run.info.status, run.info.end_time, run.data.params, run.data.tags, every])
    return sorted(found, key=lambda one: one[0])


def test_a_finished_run_is_mirrored_whole_and_once(kept):
    plan, uri, mirror = kept
    for run in plan.runs:
        finish(run, [row(0), row(1), row(2)])
    results(plan)
    assert [mirror.push(view.read(run)) for run in plan.runs] == [NEW, NEW]
    assert mirror.summary(plan) == NEW
    experiment = plan.params.tracking.experiment
    first = dump(uri, experiment)
    assert [mirror.push(view.read(run)) for run in plan.runs] == [SAME, SAME]
    assert mirror.summary(plan) == SAME
    assert dump(uri, experiment) == first

    reported = pd.read_parquet(plan.results / "metrics.parquet").query("split == 'test'")
    found = {run.info.run_name: run for run in stored(uri, experiment)}
    assert set(found) == {run.label for run in plan.runs}
    for run in plan.runs:
        one = found[run.label]
        for entry in reported[reported.method == run.cell.method].itertuples():
            own = "" if entry.modality == "fused" else f"_{entry.modality}"
            assert one.data.metrics[f"test/{entry.metric}{own}"] == round(entry.value, 5)
        assert points(uri, one, "val/accuracy") == [(1, 0.5), (2, 0.51), (3, 0.52)]
        assert one.data.params["training.lr"] == str(run.cell.spec.training.lr)
        assert one.data.params["encoders.audio.kind"] == "resnet"
        assert one.data.params["method"] == one.data.tags["method"] == run.cell.method
        group = f"av_digits/concat/{run.cell.method}-{run.cell.fp}"
        assert one.data.tags["group"] == group and one.data.tags["seed"] == "0"
        assert one.data.tags["data"] == "ab" * 32 and one.data.tags["code"] == run.cell.code
        assert one.info.status == "FINISHED" and one.info.end_time - one.info.start_time == 5 * 60 * 1000
        (data,) = one.inputs.dataset_inputs
        assert data.dataset.name == "av_digits, av-digits-2" and data.dataset.digest == ("ab" * 32)[:36]
        assert json.loads(data.dataset.profile)["test"] == 24 and "257" in data.dataset.schema
    (summary,) = [run for run in stored(uri, experiment, every=True) if run.data.tags["kind"] == "summary"]
    assert "| method | accuracy |" in summary.data.tags["mlflow.note.content"]


def test_the_artifacts_are_the_runs_files(kept, tmp_path):
    plan, uri, mirror = kept
    run = plan.runs[1]
    finish(run, [row(0), row(1)])
    results(plan)
    mirror.push(view.read(run))
    mirror.summary(plan)
    one = stored(uri, plan.params.tracking.experiment)[0]
    if uri.startswith("sqlite"):  # beside the database, where `make ui` serves them from
        base = mirror.store.file.parent / store.ARTIFACTS / one.info.artifact_uri.removeprefix("mlflow-artifacts:/")
        assert str(tmp_path) not in one.info.artifact_uri
    else:
        base = Path(MlflowClient(uri).download_artifacts(one.info.run_id, "", str(tmp_path)))
    assert {file.name for file in base.iterdir() if file.is_file()} >= {
        "record.json",
        "metrics.json",
        "predictions.parquet",
    }
    assert (base / "predictions.parquet").read_bytes() == (run.evaluation / "predictions.parquet").read_bytes()


def test_a_run_that_is_killed_and_resumed_is_one_run_with_every_point_once(kept):
    plan, uri, mirror = kept
    run, experiment = plan.runs[0], plan.params.tracking.experiment

    def look():
        (one,) = stored(uri, experiment, every=True)
        return one.info.status, [step for step, _ in points(uri, one, "train/loss")]

    begin(run, [], covered=0)
    assert mirror.push(view.read(run)) == NEW and look() == ("RUNNING", [])
    begin(run, [row(0), row(1), row(2)], covered=2)
    assert mirror.push(view.read(run)) == UPDATED and look() == ("RUNNING", [1, 2])
    assert mirror.push(view.stopped(view.read(run))) == UPDATED and look() == ("KILLED", [1, 2])
    begin(run, [row(0), row(1)], started="2025-01-02T10:00:00+00:00")  # it goes on, a day later
    assert mirror.push(view.read(run)) == UPDATED and look() == ("RUNNING", [1, 2])
    begin(run, [row(0), row(1), row(2, loss=0.123)], started="2025-01-02T10:00:00+00:00")
    assert mirror.push(view.read(run)) == UPDATED and look() == ("RUNNING", [1, 2, 3])
    assert mirror.push(view.read(run)) == SAME
    finish(run, [row(0), row(1), row(2, loss=0.123), row(3)])
    assert mirror.push(view.read(run)) == UPDATED and look() == ("FINISHED", [1, 2, 3, 4])
    assert points(uri, stored(uri, experiment)[0], "train/loss")[2] == (3, 0.123)


def test_two_that_know_nothing_of_each_other_store_a_point_once(kept):
    plan, uri, mirror = kept
    run = plan.runs[0]
    begin(run, [row(0)])
    mirror.push(view.read(run))
    stale = mirror.at(run.folder.as_posix())
    begin(run, [row(0), row(1), row(2)])
    found = view.read(run)
    mirror._log(stale[0].info.run_id, {}, {}, _every(found, stale[0]))
    mirror._missing = _every  # as if we had looked before the other wrote
    mirror.push(found, stale)
    (one,) = stored(uri, plan.params.tracking.experiment)
    assert [step for step, _ in points(uri, one, "val/accuracy")] == [1, 2, 3]


def _every(view, run):
    from mlflow.entities import Metric

    start = run.info.start_time
    return [[Metric(n, v, start + int(1000 * clock), e) for n, v in m.items()] for e, clock, m in view.epochs]


def test_trained_again_from_scratch_the_earlier_run_is_superseded(kept):
    plan, uri, mirror = kept
    run, experiment = plan.runs[0], plan.params.tracking.experiment
    finish(run, [row(0), row(1)])
    mirror.push(view.read(run))
    (first,) = stored(uri, experiment)
    again = "2025-02-01T10:00:00+00:00"
    begin(run, [row(0, attempt=1, loss=5.0)], started=again)
    run.record.unlink()
    assert mirror.push(view.read(run)) == NEW
    assert mirror.push(view.read(run)) == SAME
    (current,) = stored(uri, experiment)
    assert current.info.run_id != first.info.run_id and points(uri, current, "train/loss") == [(1, 5.0)]
    (old,) = [one for one in stored(uri, experiment, every=True) if one.info.run_id == first.info.run_id]
    assert old.data.tags["kind"] == "superseded" and old.data.metrics == first.data.metrics


def test_doubles_made_at_once_on_two_hosts_converge_to_one(kept):
    plan, uri, mirror = kept
    run, experiment = plan.runs[0], plan.params.tracking.experiment
    finish(run, [row(0), row(1)])
    found = view.read(run)
    for _ in range(2):  # what another host does between our look and our making one
        mirror._create(found, {**found.tags, "attempt": found.attempt})
    assert len(stored(uri, experiment)) == 2
    mirror.push(found)
    (one,) = stored(uri, experiment)
    assert [step for step, _ in points(uri, one, "train/loss")] == [1, 2] and one.info.status == "FINISHED"
    assert mirror.push(view.read(run)) == SAME


def test_values_that_are_not_finite(kept):
    plan, uri, mirror = kept
    run = plan.runs[0]
    begin(run, [row(0, loss=math.nan), row(1, loss=math.inf), row(2)])
    mirror.push(view.read(run))
    assert mirror.push(view.read(run)) == SAME
    (one,) = stored(uri, plan.params.tracking.experiment)
    nan, inf, number = (value for _, value in sorted(points(uri, one, "train/loss"), key=lambda point: point[0]))
    assert math.isnan(nan) and inf > 1e300 and number == row(2)["loss"]


def test_evaluated_anew_the_new_value_is_the_latest(kept):
    plan, uri, mirror = kept
    run = plan.runs[0]
    finish(run, [row(0)])
    mirror.push(view.read(run))
    values = files.read_json(run.metrics)
    values["metrics"][0]["value"] = 0.123
    files.write_sealed(run.metrics, values)
    assert mirror.push(view.read(run)) == UPDATED and mirror.push(view.read(run)) == SAME
    assert stored(uri, plan.params.tracking.experiment)[0].data.metrics["test/accuracy"] == 0.123


def test_thousands_of_points_in_few_calls(kept):
    plan, uri, mirror = kept
    run, calls = plan.runs[0], []
    begin(run, [row(i) for i in range(400)])
    log = mirror.client.log_batch
    mirror.client.log_batch = lambda *a, **k: (calls.append(len(k.get("metrics", ()))), log(*a, **k))
    mirror.push(view.read(run))
    assert max(calls) <= 1000 and len(calls) <= 8 and sum(calls) == 400 * 8
    (one,) = stored(uri, plan.params.tracking.experiment)
    assert len(points(uri, one, "train/loss")) == 400


def test_a_deleted_experiment_is_said(kept):
    plan, uri, mirror = kept
    mirror.client.delete_experiment(mirror.store.experiment)
    with pytest.raises(UserError, match="but it is deleted; restore it"):
        store.Store(uri, plan.params.tracking.experiment)


def test_a_folder_can_be_moved(folder):
    """The database names no place but in MLflow's own, unused experiment."""
    plan = planned()
    finish(plan.runs[0], [row(0)])
    Mirror(store.Store(f"sqlite:///{folder}/mlflow.db", "counterpoise")).push(view.read(plan.runs[0]))
    with closing(sqlite3.connect("mlflow.db")) as database:
        text = [line for line in database.iterdump() if str(folder) in line]
    assert all("'Default'" in line for line in text)


def tagged(uri, experiment, study):
    """Labels and addresses of the runs that a study's view shows."""
    runs = stored(uri, experiment)
    return {run.data.tags["address"] for run in runs if run.data.tags.get(f"study.{study}") == "yes"}


def test_a_run_has_the_tag_of_every_study_that_names_it_and_of_no_other(kept):
    plan, uri, mirror = kept
    experiment = plan.params.tracking.experiment
    for run in plan.runs:
        finish(run, [row(0)])
    follow.sync(plan, plan.runs, mirror.store)
    both = {run.folder.as_posix() for run in plan.runs}
    assert tagged(uri, experiment, "params") == both
    assert follow.sync(plan, plan.runs, mirror.store) == {SAME: 2}

    Path("params.yaml").rename("other.yaml")
    other = Plan("other.yaml")
    follow.sync(other, other.runs, mirror.store)
    assert tagged(uri, experiment, "other") == tagged(uri, experiment, "params") == both

    joint = plan.runs[0]
    mine = stored(uri, experiment)[0]
    mirror.client.set_tag(mine.info.run_id, "mine", "kept")
    changed = planned({"tracking": {"experiment": experiment}, "methods": {"ogm_ge": {"alpha": 0.123}}})
    follow.sync(changed, changed.runs[:1], mirror.store)
    assert tagged(uri, experiment, "params") == both, "a part of the study tells nothing of the rest"
    follow.sync(changed, changed.runs, mirror.store)
    assert tagged(uri, experiment, "params") == {joint.folder.as_posix()}, "of ogm_ge nothing new is there"
    assert tagged(uri, experiment, "other") == both
    assert mirror.client.get_run(mine.info.run_id).data.tags["mine"] == "kept"


def test_the_gain_comes_when_joint_training_does(kept):
    plan, uri, mirror = kept
    (joint, ogm), experiment = plan.runs, plan.params.tracking.experiment
    finish(ogm, [row(0)])
    follow.sync(plan, plan.runs, mirror.store)
    assert "test/accuracy_gain" not in stored(uri, experiment)[0].data.metrics
    finish(joint, [row(0)])
    assert follow.sync(plan, plan.runs, mirror.store) == {NEW: 1, UPDATED: 1}
    found = {run.data.tags["method"]: run.data.metrics for run in stored(uri, experiment)}
    assert found["ogm_ge"]["test/accuracy_gain"] == pytest.approx(0.01)
    assert "test/accuracy_gain" not in found["joint"]
    assert follow.sync(plan, plan.runs, mirror.store) == {SAME: 2}


def test_the_experiment_opens_at_its_runs_unless_somebody_chose_otherwise(kept):
    _, uri, mirror = kept
    client, name = mirror.client, mirror.store.name
    assert client.get_experiment(mirror.store.experiment).tags[store.KIND] == "custom_model_development"
    client.set_experiment_tag(mirror.store.experiment, store.KIND, "genai_development")
    store.Store(uri, name)
    assert client.get_experiment(mirror.store.experiment).tags[store.KIND] == "genai_development"
