"""Equal tuning in the plan: trials are ordinary runs, a tuned run's address holds the search and not its outcome."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline_src.core import files
from pipeline_src.core.stages import STAGES
from pipeline_src.methods.base import Requirement, methods
from pipeline_src.study import estimate
from pipeline_src.study.choice import resolved
from pipeline_src.study.outputs import TRIAL, TUNED, Run
from pipeline_src.study.plan import Plan
from pipeline_src.study.runs import ATTEMPT, write_record
from pipeline_src.study.status import status
from pipeline_src.study.yaml import Loader

SHIPPED = Path(__file__).parents[2] / "params.yaml"
SPACES = {"all": {"training.lr": {"log": [0.003, 0.1]}}, "pmr": {"alpha": [1.0, 2.0]}}
TUNING = {"trials": 4, "seeds": [100, 101], "spaces": SPACES}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A function: the section `tuning` (None: no tuning), and changes of the study -> its plan."""
    monkeypatch.chdir(tmp_path)

    def of(tuning: dict | None = TUNING, training: dict | None = None, **study) -> Plan:
        values = yaml.load(SHIPPED.read_text(), Loader)
        values["study"] |= {
            "methods": ["joint", "pmr"],
            "fusions": ["concat"],
            "seeds": [0, 1],
            "unimodal": True,
        } | study
        values["training"] |= training or {}
        if tuning is not None:
            values["tuning"] = tuning
        Path("params.yaml").write_text(yaml.safe_dump(values))
        return Plan()

    return of


def of_role(plan: Plan, role: str) -> list[Run]:
    return [run for run in plan.runs if run.cell.role == role]


def records(runs: list[Run]) -> set[Path]:
    return {run.record for run in runs}


def tuned(plan: Plan, label: str = "pmr-tuned") -> Run:
    return next(run for run in plan.runs if (run.cell.method, run.seed) == (label, 0))


def finish(run: Run, score: float | None, **more) -> None:
    """Write the record of a run that is done."""
    record = {
        **run.names,
        "fingerprint": run.cell.fp,
        "status": "diverged" if score is None else "complete",
        "selected": {"epoch": 0, "val_accuracy": 0.0 if score is None else score},
        **{key: {} for key in ("parameters", "cache", "machine", "versions")},
        "seconds": 1.0,
        **more,
    }
    write_record(run.folder, record)


def test_every_configuration_has_the_same_trials_and_a_tuned_cell(plan):
    made = plan()
    trials = of_role(made, TRIAL)
    assert len(trials) == 4 * 4 * 2 and {run.seed for run in trials} == {100, 101}
    labels = ["audio-only", "visual-only", "joint", "pmr"]
    assert [cell.method for cell in made.cells if cell.role == TUNED] == [f"{label}-tuned" for label in labels]
    assert {run.seed for run in of_role(made, TUNED)} == {0, 1}
    assert [cell.method for cell in made.rows] == labels
    for label in labels:
        assert sum(run.cell.method == label for run in trials) == 4 * 2
    assert len({run.record for run in made.runs}) == len(made.runs)


def test_status_and_estimate_count_the_runs_of_tuning(plan):
    made = plan()
    assert status(made).startswith("params.yaml: 48 runs (4 models x 2 seeds, and 40 of equal tuning)\n")
    (cost,) = estimate.estimate(made)
    (without,) = estimate.estimate(plan(None))
    assert (cost.runs, without.runs) == (48, 8)
    assert cost.flop == pytest.approx(6 * without.flop)


def test_a_study_keeps_every_address_when_it_is_tuned(plan):
    before, after = plan(None), plan()
    assert records(of_role(after, "")) == records(before.runs)
    for stage in STAGES[:4]:
        assert [path for path, _ in before.places(stage)] == [path for path, _ in after.places(stage)]
    assert [cell.place for cell in before.rows] == [cell.place for cell in after.rows]


def test_a_trial_is_the_run_of_a_study_with_its_values(plan):
    trial = of_role(plan(), TRIAL)[-1]
    values, own = trial.cell.spec.training.lr, trial.cell.spec.params.alpha
    assert own in (1.0, 2.0)
    other = yaml.load(SHIPPED.read_text(), Loader)
    other["study"] |= {"methods": ["joint", "pmr"], "fusions": ["concat"], "seeds": [100, 101]}
    other["training"]["lr"], other["methods"] = values, {**other["methods"], "pmr": {"alpha": own}}
    Path("other.yaml").write_text(yaml.safe_dump(other))
    assert trial.record in records(Plan("other.yaml").runs)


def test_a_trial_with_the_values_of_the_study_is_no_run_of_its_seeds(plan):
    """One cell, by its address, but with seeds of its own: nothing is trained twice and nothing is lost."""
    lr = plan(None).params.training.lr
    made = plan({**TUNING, "trials": 2, "spaces": {"all": {"training.lr": [lr, 2 * lr]}}})
    same = [run for run in made.runs if run.cell.method == "joint" and run.cell.spec.training.lr == lr]
    assert len({run.folder.parent for run in same}) == 1
    assert sorted(run.seed for run in same) == [0, 1, 100, 101]


def test_a_tuned_run_reads_its_trials_and_no_others(plan):
    made = plan()
    run = tuned(made)
    inputs = made.inputs("evaluate", str(run.metrics))
    trials = [trial for trial in of_role(made, TRIAL) if trial.cell.method == "pmr"]
    assert set(inputs) - set(run.cell.data.files) == {trial.metrics for trial in trials}
    assert len(trials) == 8
    trial = of_role(made, TRIAL)[0]
    assert made.inputs("evaluate", str(trial.metrics)) == trial.cell.data.files


@pytest.mark.parametrize(
    "change",
    [
        {"trials": 3},
        {"seeds": [100, 102]},
        {"seed": 1},
        {"spaces": SPACES | {"all": {"training.lr": {"log": [0.003, 0.2]}}}},
        {"spaces": SPACES | {"pmr": {"alpha": [1.0, 4.0]}}},
    ],
)
def test_the_search_moves_a_tuned_run_and_no_other(plan, change):
    before, after = plan(), plan({**TUNING, **change})
    assert tuned(before).record != tuned(after).record
    assert records(of_role(before, "")) == records(of_role(after, ""))
    alone = change.get("spaces", {}).get("all") == SPACES["all"]  # only the space of PMR has changed
    assert (tuned(before, "joint-tuned").record == tuned(after, "joint-tuned").record) == alone


def test_what_trials_share_moves_them_and_what_they_replace_moves_nothing(plan):
    before = plan()
    assert tuned(before).record != tuned(plan(training={"weight_decay": 0.5})).record
    after = plan(training={"lr": 0.5})  # every trial has another learning rate
    assert tuned(before).record == tuned(after).record
    assert records(of_role(before, TRIAL)) == records(of_role(after, TRIAL))
    assert not records(of_role(before, "")) & records(of_role(after, ""))


def test_the_outcome_moves_nothing_and_is_what_is_trained(plan):
    made = plan()
    run, before = tuned(made), [run.record for run in made.runs]
    for i, runs in enumerate(run.cell.search.runs):
        for trial in runs:
            finish(trial, 0.9 if i == 2 else 0.5)
    assert [run.record for run in plan().runs] == before
    chosen = resolved(run)
    assert chosen.record == run.record and chosen.metrics == run.metrics
    assert chosen.cell.spec == run.cell.search.runs[2][0].cell.spec != run.cell.spec
    assert chosen.cell.outcome["chosen"] == 2 and chosen.cell.outcome["values"] == run.cell.search.points[2]
    assert chosen.cell.spec.training.lr == run.cell.search.points[2]["training.lr"]
    # All seeds train with the same; another run is as it was.
    assert resolved(replace(run, seed=1)).cell.spec == chosen.cell.spec
    assert resolved(before_tuning := of_role(made, "")[0]) is before_tuning


def test_a_run_that_has_begun_keeps_its_choice(plan):
    run = tuned(plan())
    for runs in run.cell.search.runs:
        for trial in runs:
            finish(trial, 0.5)
    outcome = resolved(run).cell.outcome
    assert outcome["chosen"] == 0
    finish(run, 0.8, tuning=outcome)
    for trial in run.cell.search.runs[1]:
        trial.record.unlink()
        finish(trial, 0.99)  # as after training again, on another machine
    assert resolved(run).cell.outcome["chosen"] == 0
    run.record.unlink()
    files.write_json(run.folder / ATTEMPT, {"status": "interrupted", "tuning": outcome})
    assert resolved(run).cell.outcome["chosen"] == 0  # its checkpoint is of this choice
    (run.folder / ATTEMPT).unlink()
    assert resolved(run).cell.outcome["chosen"] == 1


def test_trials_require_the_runs_of_their_seeds(plan, monkeypatch):
    needs = {"teacher": Requirement("audio")}
    monkeypatch.setattr(methods["pmr"], "requires", classmethod(lambda cls, params, setting: needs))
    made = plan(methods=["pmr"], unimodal=False)
    assert [cell.method for cell in made.rows] == ["audio-only", "pmr"]
    trial = next(run for run in of_role(made, TRIAL) if run.cell.method == "pmr")
    (teacher,) = trial.requires.values()
    assert teacher in made.runs and (teacher.cell.method, teacher.seed, teacher.cell.role) == ("audio-only", 100, TRIAL)
    run = tuned(made)
    (teacher,) = run.requires.values()
    assert teacher in made.runs and (teacher.cell.method, teacher.seed, teacher.cell.role) == ("audio-only", 0, "")
    assert teacher.metrics in made.inputs("evaluate", str(run.metrics))


def test_where_the_data_vary_trials_read_those_of_their_seeds(plan, monkeypatch):
    needs = {"teacher": Requirement("audio")}
    monkeypatch.setattr(methods["pmr"], "requires", classmethod(lambda cls, params, setting: needs))
    made = plan(methods=["pmr"], unimodal=False, vary=["split"])
    assert [data.seeds for data in made.data] == [(0,), (1,), (100,), (101,)]
    assert [cell.seeds for cell in made.cells if cell.role == TUNED] == [(0,), (1,)]
    first, second = (run for run in made.runs if run.cell.role == TUNED)
    assert first.cell.search.address() == second.cell.search.address() and first.cell.fp != second.cell.fp
    for runs in first.cell.search.runs:
        assert [run.seed for run in runs] == [100, 101]
        assert {run.seed: run.cell.data.seeds for run in runs} == {100: (100,), 101: (101,)}
    for trial in of_role(made, TRIAL):
        if trial.cell.method == "pmr":
            finish(trial, 0.5)
    assert [cell.method for cell in made.rows] == ["audio-only", "pmr"]
    specs = [resolved(run).cell.spec for run in (first, second)]
    assert [spec.requires for spec in specs] == [run.cell.spec.requires for run in (first, second)]
    assert specs[0].requires != specs[1].requires and replace(specs[0], requires=specs[1].requires) == specs[1]
