"""Methods under names of their own: what they are in the plan, and every mistake in one line."""

import json

import jsonschema
import pytest
import yaml

from pipeline_src import cli
from pipeline_src.core.errors import UserError
from pipeline_src.study.plan import Plan
from pipeline_src.study.schema import SCHEMAS
from pipeline_src.study.yaml import Loader
from tests.study.test_config import VALID

METHODS = """\
methods:
  pmr: {alpha: 2.0}
  pmr_01: {kind: pmr, share: 0.01}
"""
STUDY = VALID.replace("methods: [joint]", "methods: [joint, pmr, pmr_01]").replace("methods: {}\n", METHODS)


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A function: text of a params file -> its plan."""
    monkeypatch.chdir(tmp_path)

    def of(text: str) -> Plan:
        (tmp_path / "p.yaml").write_text(text)
        return Plan("p.yaml")

    return of


def cells(plan: Plan) -> dict:
    return {cell.method: cell for cell in plan.cells if cell.fusion == "concat"}


def test_a_name_of_its_own_has_its_own_row_and_parameters(plan):
    made = cells(plan(STUDY))
    assert list(made) == ["joint", "pmr", "pmr_01"]
    assert [cell.spec.method for cell in made.values()] == ["joint", "pmr", "pmr"]
    assert [(made[name].spec.params.alpha, made[name].spec.params.share) for name in ("pmr", "pmr_01")] == [
        (2.0, 0.1),
        (1.0, 0.01),
    ]
    assert made["pmr_01"].folder.name.startswith("pmr_01-") and made["pmr_01"].fp != made["pmr"].fp
    assert made["pmr_01"].names["method"] == "pmr_01"


def test_the_address_holds_kind_and_settings_but_no_name(plan):
    named = cells(plan(STUDY))["pmr_01"]
    plain = cells(
        plan(
            STUDY.replace("pmr_01: {kind: pmr, share", "pmr: {share")
            .replace("  pmr: {alpha: 2.0}\n", "")
            .replace("pmr, pmr_01", "pmr")
        )
    )["pmr"]
    assert plain.spec == named.spec and plain.fp == named.fp
    assert plain.folder != named.folder  # the name is part of the path, as a dataset's is


def test_a_registered_method_may_say_its_kind(plan):
    with_kind = plan(STUDY.replace("pmr: {alpha", "pmr: {kind: pmr, alpha"))
    assert cells(with_kind)["pmr"].fp == cells(plan(STUDY))["pmr"].fp


MISTAKES = {
    "a registered name of another kind": (
        "pmr: {alpha: 2.0}",
        "ogm: {kind: pmr, alpha: 2.0}",
        "methods.ogm.kind: expected 'ogm', as the block has the name of this registered method, but got 'pmr'; rename",
    ),
    "no such kind": (
        "kind: pmr",
        "kind: prm",
        "methods.pmr_01.kind: expected a registered method, but got 'prm'",
    ),
    "a kind that is no name": ("kind: pmr", "kind: 3", "methods.pmr_01.kind: expected the name of a registered method"),
    "no kind": ("kind: pmr, ", "", "methods.pmr_01: expected a registered method, or a block with `kind`"),
    "a parameter of another method": ("share: 0.01", "q_base: 0.5", "methods.pmr_01.q_base: unknown key"),
    "a value out of range": (
        "share: 0.01",
        "share: 2.0",
        "methods.pmr_01.share: expected less than or equal to 1",
    ),
    "settings twice": (
        "kind: pmr, share: 0.01",
        "kind: pmr, alpha: 2.0",
        "methods.pmr_01: expected settings that no other method of the study has, but got those of 'pmr'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(plan, mistake):
    old, new, message = MISTAKES[mistake]
    text = STUDY.replace(old, new)
    if mistake.startswith("a registered name"):
        text = text.replace("[joint, pmr, pmr_01]", "[joint, pmr_01]")
    assert STUDY.count(old) == 1
    with pytest.raises(UserError) as raised:
        plan(text)
    (line,) = str(raised.value).split("\n")
    assert line.split(": ", 1)[1].startswith(message), line


@pytest.mark.parametrize("name", ["pmr-tuned", "ensemble", "all", "pmr-only"])
def test_a_name_that_tables_give_to_other_rows_is_refused(plan, name):
    with pytest.raises(UserError, match=r"expected another name, as tables have this one"):
        plan(STUDY.replace("pmr_01", name))


def test_a_name_of_the_study_that_no_block_has_is_refused_once(plan):
    with pytest.raises(UserError) as raised:
        plan(STUDY.replace("[joint, pmr, pmr_01]", "[joint, pmr, pmr_10, pmr_01]"))
    (line,) = str(raised.value).split("\n")
    assert "study.methods.2: expected a registered method, but got 'pmr_10'; did you mean 'pmr_01'?" in line


def test_a_refusal_names_the_block(plan):
    with pytest.raises(UserError, match=r"methods\.pmr_01: expected .* but got"):
        plan(STUDY.replace("share: 0.01", "first_epoch: 12"))


def test_a_space_of_tuning_can_have_the_name(plan):
    spaces = "{joint: {training.lr: [0.1, 0.2]}, pmr: {alpha: [1.0, 3.0]}, pmr_01: {momentum: [0.5, 0.9]}}"
    tuning = f"tuning: {{trials: 2, seeds: [7], spaces: {spaces}}}\n"
    made = plan(STUDY + tuning)
    trials = [cell for cell in made.cells if (cell.method, cell.role, cell.fusion) == ("pmr_01", "trial", "sum")]
    assert [cell.spec.params.momentum for cell in trials] == [0.5, 0.9]
    assert {cell.spec.params.share for cell in trials} == {0.01}
    with pytest.raises(UserError, match=r"tuning\.spaces\.pmr_10: expected all, unimodal or a registered method"):
        plan(STUDY + tuning.replace("pmr_01", "pmr_10"))


def test_explain_knows_the_name_by_the_params_file(plan, tmp_path, monkeypatch, capsys):
    plan(STUDY)
    assert cli.main(["explain", "pmr_01", "--params=p.yaml"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("pmr_01: pmr with share: 0.01 (p.yaml).\n\npmr: Speeds the slower modality up")
    assert cli.main(["explain", "pmr_02", "--params=p.yaml"]) == 2
    assert (
        "expected a registered method, fusion, encoder or task, but got 'pmr_02'; did you mean"
        in capsys.readouterr().err
    )


def test_the_schema_knows_named_methods():
    schema = json.loads(SCHEMAS["params"].read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert validator.is_valid(yaml.load(STUDY, Loader))
    for wrong in (STUDY.replace("kind: pmr", "kind: prm"), STUDY.replace("share: 0.01", "shares: 0.01")):
        assert not validator.is_valid(yaml.load(wrong, Loader))
