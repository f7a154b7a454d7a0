import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_src.core.errors import UserError
from pipeline_src.methods.base import FAMILIES, methods
from pipeline_src.models.base import encoders, fusion_facts, fusions
from pipeline_src.study.explain import explain, hooks, idea, models, overview


@pytest.mark.parametrize("name", list(methods))
def test_every_method_is_explained_from_its_own_file(name):
    said = explain(name)
    for key, field in methods[name].Params.model_fields.items():
        assert f"    {key}: " in said
        assert " ".join((field.description or "").split())[:40].split("  ")[0].split()[0] in said
    for quantity in methods[name].quantities:
        assert f"    {quantity.name}" in said
        assert quantity.caption in " ".join(said.split())
    for hook in hooks(methods[name]):
        assert f"    {hook}" in said


def test_two_methods_of_a_file_have_words_of_their_own():
    mslr, mses = explain("mslr"), explain("mses")
    assert "Yao and Mihalcea" in mslr and "rho_m =" in mslr and "Fujimori" not in mslr
    assert "Fujimori" in mses and "v_m(e) =" in mses and "rho_m" not in mses


def test_ogm_ge():
    said = explain("ogm_ge")
    assert "1 - tanh(alpha rho_m)" in said
    assert "arXiv:2203.15332" in said
    assert "alpha: float, default 0.8, at least 0" in said
    assert "What the authors' code does otherwise" in said
    assert "after_backward" in said and "on_features" not in said


def test_hooks_are_those_that_differ_in_the_order_of_the_loop():
    assert hooks(methods["joint"]) == []
    assert hooks(methods["ogm_ge"]) == ["before_epoch", "after_backward"]
    assert "Plain joint training (baseline)." in explain("joint")


def test_all_in_a_line_each_by_family():
    names = list(methods)
    said = {line.split()[0]: line.split(maxsplit=1)[1] for line in overview().splitlines() if line.startswith("  ")}
    assert sorted(said) == sorted(names)
    assert len(set(said.values())) == len(said), "each has words of its own"
    for part in overview().split("\n\n"):
        family, *lines = part.splitlines()
        assert {methods[line.split()[0]].family for line in lines} == {family.partition(":")[0]}


@pytest.mark.parametrize("name", list(methods))
def test_every_method_has_a_family_and_a_sentence(name):
    assert methods[name].family in FAMILIES and methods[name].family != "other"
    assert methods[name].__doc__, f"{name}: the class's first line is its idea"
    assert idea(methods[name])[-1] in ".)"
    assert f"Family: {methods[name].family}" in explain(name)


def test_a_method_that_is_left_out_says_why():
    with pytest.raises(UserError, match=r"^pdmp \(arXiv:2604\.05773\) is left out until the constants .* published$"):
        explain("pdmp")


def test_an_unknown_name_gets_the_closest():
    with pytest.raises(UserError, match="did you mean 'ogm_ge'") as error:
        explain("ogmge", Path(__file__).parents[2] / "params.yaml")
    known = str(error.value).partition("(known: ")[2].rstrip(")").split(", ")
    assert len(known) == len(set(known)), "one name stands once, whatever the params file adds"


def test_it_costs_no_torch():
    code = "import sys; from pipeline_src.cli import main; main(['explain', 'pmr']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("name", list(fusions))
def test_every_fusion_is_explained_with_what_it_asks(name):
    said, facts = " ".join(explain(name).split()), fusion_facts(name)
    assert said.startswith(f"{name}: ") and " = " in said, "an equation"
    assert ("the last" in said.split("Encoders: ")[1].split("Methods")[0]) is bool(facts.taps)
    assert "ogm" not in said.split("Methods that refuse it:")[-1].split("File:")[0].split(": expected")[0]


def test_a_fusion_names_the_methods_that_refuse_it():
    said = explain("mmtm")
    assert "amco, reconboost: expected a fusion that is a sum over modalities, but got 'mmtm'" in said
    assert "it writes the states at the last 3 taps" in said and "of steps, of one width, 2 or more" in explain("mbt")


@pytest.mark.parametrize("kind", list(encoders))
def test_every_encoder_is_explained_with_its_parameters(kind):
    said = explain(kind)
    assert f"Reads: {', '.join(encoders[kind].layouts)}." in said
    for key, field in encoders[kind].Params.model_fields.items():
        assert f"    {key}: " in said
        assert field.description in (None, "") or field.description.split()[0] in said


def test_all_models_in_a_line_each():
    names = {line.split()[0] for line in models().splitlines() if line.startswith("  ")}
    assert names == {*fusions, *encoders}


def test_a_task_says_its_metrics_and_who_refuses_it():
    text = explain("regression")
    assert text.startswith("regression: Regression: a number per sample")
    assert "The mean absolute error. (a number; lower is better)" in text
    assert "expected task classification or segments, as it needs classes, but got regression" in " ".join(text.split())
    assert "Every method takes it." in explain("classification")


def test_no_two_fusions_are_explained_alike():
    lines = [line.split(None, 1)[1] for line in models().partition("\n\n")[0].splitlines()[1:]]
    assert len(lines) == len(list(fusions)) == len(set(lines))
