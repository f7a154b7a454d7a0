"""Observers in params.yaml: which runs they are part of, what their addresses hold, and what is refused."""

from pathlib import Path

import pytest
import yaml

from pipeline_src.core import fingerprint
from pipeline_src.core.errors import UserError
from pipeline_src.study.plan import Plan
from pipeline_src.study.yaml import Loader

SHIPPED = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A function: sections of the shipped file to replace -> its plan, of joint training and one method."""
    monkeypatch.chdir(tmp_path)

    def of(**sections: dict) -> Plan:
        values = yaml.load(SHIPPED.read_text(), Loader) | sections
        values["study"] |= {"methods": ["joint", "ogm"], "fusions": ["concat"], "seeds": [0]}
        Path("params.yaml").write_text(yaml.safe_dump(values))
        return Plan()

    return of


def said(plan, **sections) -> list[str]:
    with pytest.raises(UserError) as error:
        plan(**sections)
    return [line.partition(": ")[2] for line in str(error.value).split("\n")]


def test_none_is_the_default_and_enters_no_address(plan):
    assert all(not cell.spec.observers and "observers" not in cell.spec.address() for cell in plan().cells)


def test_an_observer_is_part_of_the_runs_that_it_can_observe(plan):
    of = {cell.method: set(cell.spec.observers) for cell in plan(observers={"gradients": {}, "scores": None}).cells}
    alone, joined = {"scores"}, {"gradients", "scores"}
    assert of == {"audio-only": alone, "visual-only": alone, "joint": joined, "ogm": joined}


def test_the_address_holds_what_the_record_does(plan):
    before, same = plan(), plan(observers={})
    watched, more = plan(observers={"gradients": {}}), plan(observers={"gradients": {"samples": 100}})

    def fps(plan: Plan) -> dict[str, str]:
        return {cell.method: cell.fp for cell in plan.cells}

    assert fps(before) == fps(same)
    for name, fp in fps(before).items():
        assert (fps(watched)[name] == fp) == name.endswith("-only")  # models of one modality are not observed by it
    assert fps(watched)["joint"] != fps(more)["joint"]
    assert watched.index != before.index
    assert more.cells[-1].spec.record()["observers"] == {"gradients": {"every": 1, "samples": 100}}


def test_an_observers_code_counts_in_the_runs_that_it_observes_alone(plan, monkeypatch):
    observed = {"probe": {"every": 5}}
    bare, watched = ({cell.fp for cell in one.cells} for one in (plan(observers={}), plan(observers=observed)))
    read = fingerprint._module

    def edited(module: str) -> tuple:
        digest, imports = read(module)
        return (digest + "'" if module == "pipeline_src.observers.probe" else digest), imports

    monkeypatch.setattr(fingerprint, "_module", edited)
    assert {cell.fp for cell in plan(observers={}).cells} == bare
    assert not {cell.fp for cell in plan(observers=observed).cells} & watched


def test_trials_and_tuned_runs_are_not_observed(plan):
    tuning = {"trials": 2, "seeds": [100], "spaces": {"all": {"training.lr": [0.01, 0.02]}}}
    cells = plan(tuning=tuning, observers={"scores": {}}).cells
    assert {(bool(cell.role), bool(cell.spec.observers)) for cell in cells} == {(False, True), (True, False)}


@pytest.mark.parametrize(
    ("block", "line"),
    [
        ({"score": {}}, "observers.score: expected a registered observer, but got 'score'; did you mean 'scores'? "),
        ({"scores": {"every": 0}}, "observers.scores.every: expected greater than or equal to 1, but got 0"),
        ({"scores": {"every": 21}}, "observers.scores.every: expected at most training.epochs = 20, but got 21"),
        ({"probe": {"samples": "all"}}, "observers.probe.samples: expected a valid integer, but got"),
        ({"purity": {"start": 1}}, "observers.purity.start: unknown key; did you mean 'starts'?"),
        ({"scores": 3}, "observers.scores: expected a block of keys, but got 3"),
    ],
)
def test_mistakes_are_one_line(plan, block, line):
    (got,) = said(plan, observers=block)
    assert got.startswith(line), got


def test_an_observer_that_no_run_of_the_study_can_have_is_refused(plan, monkeypatch):
    from pipeline_src.observers.base import observers

    monkeypatch.setattr(observers["purity"], "refuses", classmethod(lambda cls, params, setting: "expected classes"))
    assert said(plan, observers={"purity": {}}) == ["observers.purity: expected classes"]
