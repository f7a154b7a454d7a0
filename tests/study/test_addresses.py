"""Addresses hold what determines a result and nothing else: each field of each section, each module of the package."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline_src.core import fingerprint
from pipeline_src.core.params import Section
from pipeline_src.core.stages import STAGES
from pipeline_src.corruptions.base import corruptions
from pipeline_src.datasets.base import datasets
from pipeline_src.media.base import extractors
from pipeline_src.methods.base import Setting, methods
from pipeline_src.models.base import encoders
from pipeline_src.observers.base import observers
from pipeline_src.study.params import Params
from pipeline_src.study.plan import Plan
from pipeline_src.study.resources import Resources
from pipeline_src.study.yaml import Loader
from pipeline_src.training.params import Augmentation, Training

ROOT = Path(__file__).parents[2]
REGISTRIES = (datasets, extractors, encoders, methods, observers, corruptions)
DATA = {stage: set(STAGES[i:]) for i, stage in enumerate(STAGES)} | {None: set()}
# `shards` cuts the same content into other files: nothing after the cache moves.
EXCEPT = {"datasets.av_digits.shards": {"extract", "cache"}}

# What enters no address, or another than its section does. Whoever adds to this list says why in the field's place.
MARKED = {
    "DatasetParams": {
        "recipe": None,
        "val_fraction": "manifest",
        "split_seed": "manifest",
        "max_quarantine": "aggregate",
        "shards": "extract",
        "storage": None,  # the same bytes, wherever they lie
    },
    "FolderParams": {"folder": None, "mirror": None},
    "ExtractorParams": {"kind": "manifest"},
    "ResNetParams": {"weights": None},  # its content counts
    "Model": {"init": "train"},
    "SavedParams": {"folder": None},  # the same
    "TokenizerParams": {"file": None},  # its sha256 counts
    "Training": {
        "augmentation": None,
        "device": None,
        "gpus": None,
        "checkpoint_minutes": None,
        "resident_fraction": None,
    },
}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """The shipped study with all methods that take a sum of modalities, and one fusion, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    values = yaml.load((ROOT / "params.yaml").read_text(), Loader)
    where = Setting(("audio", "visual"), "concat", values["training"]["epochs"])
    blocks = values["methods"]
    taken = [n for n in methods if methods[n].refuses(methods[n].Params(**blocks.get(n, {})), where) is None]
    assert len(taken) > 20
    values["study"] |= {"methods": taken, "fusions": ["concat"], "seeds": [0]}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    return Plan()


def addresses(plan: Plan) -> dict[str, set[str]]:
    return {stage: {str(path) for path, _ in plan.places(stage)} for stage in STAGES}


def moved(before: dict[str, set[str]], after: dict[str, set[str]]) -> set[str]:
    return {stage for stage in STAGES if before[stage] != after[stage]}


# --- fields ----------------------------------------------------------------------------------------------------------


def sections() -> Iterator[type[Section]]:
    """Every class of parameters: ours, and those of all plug-ins."""
    for registry in REGISTRIES:
        for name in registry:
            yield registry[name].Params
    for model in (Params, Resources):
        yield from _below(model)


def _below(model: type[Section]) -> Iterator[type[Section]]:
    yield model
    for field in model.model_fields.values():
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, Section):
                yield from _below(part)


@pytest.mark.parametrize("section", sorted(set(sections()), key=str), ids=lambda section: section.__name__)
def test_every_field_says_which_address_it_enters_and_enters_it(section):
    expected = {}
    for parent in section.__mro__:
        expected = MARKED.get(parent.__name__, {}) | expected
    values = dict.fromkeys(section.model_fields, "a")
    for field in section.model_fields:
        stage = section.stage_of(field)
        assert stage == expected.get(field, section.affects), field
        assert stage is None or stage in STAGES
        one, other = section.model_construct(**values), section.model_construct(**values | {field: "b"})
        with pytest.MonkeyPatch.context() as quiet:  # what is compared need not be valid
            quiet.setattr(section, "model_dump", lambda self, include: {k: getattr(self, k) for k in include})
            assert {s for s in STAGES if one.values(s) != other.values(s)} == ({stage} if stage else set())


def other(value: Any) -> Any:
    """Another value of the same type."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value / 2 + 0.125
        case str():
            return value + "-other"
        case list():
            return [other(value[0]), *value[1:]] if value else [0]
        case dict():
            return {**value, "other": 1}
        case None:
            return 1
    raise AssertionError(f"no other value of {value!r}")


def blocks(settings: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """(where, field) of each value of the checked parameters."""
    items = (
        settings.items()
        if isinstance(settings, dict)
        else ((name, getattr(settings, name)) for name in _names(settings))
    )
    for name, value in items:
        if isinstance(value, Section) or (isinstance(value, dict) and (value or name == "methods")):
            yield from blocks(value, (*place, name))
        elif isinstance(settings, Section):
            yield place, name


def _names(section: Section) -> list[str]:
    return list(type(section).model_fields)


def edited(settings: Any, place: tuple[str, ...], field: str) -> Any:
    """A copy with one field changed, without asking whether that is valid."""
    if not place:
        return settings.model_copy(update={field: other(getattr(settings, field))})
    inner = settings[place[0]] if isinstance(settings, dict) else getattr(settings, place[0])
    changed = {place[0]: edited(inner, place[1:], field)}
    return {**settings, **changed} if isinstance(settings, dict) else settings.model_copy(update=changed)


def test_each_value_of_a_study_moves_the_addresses_that_its_field_names(plan):
    before, count = addresses(plan), 0
    for place, field in blocks(plan.params):
        if (
            not place
            or place[0] in ("study", "resources")
            or field in ("kind", "corruption", "corruptions")
            or (*place, field) == ("datasets", "av_digits", "recipe")
        ):
            continue  # the study decides which runs there are; a kind, recipe or corruption of another name must exist
        after = Plan(plan.file)
        after.params = edited(plan.params, place, field)
        section = plan.params
        for part in place:
            section = section[part] if isinstance(section, dict) else getattr(section, part)
        where = ".".join((*place, field))
        if field == "weights":
            continue  # counts by its content, see test_recipes
        affected = DATA[type(section).stage_of(field)]
        if place[-1] in ("audio", "visual") and place[0] == "training":
            affected = DATA["train"]
        assert moved(before, addresses(after)) == EXCEPT.get(where, affected), where
        count += 1
    assert count > 60


def test_a_methods_parameter_moves_that_methods_runs_alone(plan):
    after = Plan(plan.file)
    after.params = edited(plan.params, ("methods", "ogm"), "alpha")
    names = {run.cell.method for run in plan.runs if run.record not in {other.record for other in after.runs}}
    assert names == {"ogm"}


# --- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "precision", "resolved"),
    [
        ("auto", "auto", "fp32"),
        ("cpu", "auto", "fp32"),
        ("mps", "auto", "fp32"),
        ("cuda", "auto", "bf16"),
        ("auto", "bf16", "bf16"),
        ("cuda", "fp32", "fp32"),
    ],
)
def test_precision_is_resolved_before_the_address(plan, device, precision, resolved):
    values = yaml.safe_load(plan.file.read_text())
    values["training"] |= {"device": device, "precision": precision}
    plan.file.write_text(yaml.safe_dump(values))
    (one, *_) = Plan(plan.file).cells
    values["training"] |= {"device": "auto", "precision": resolved}
    plan.file.write_text(yaml.safe_dump(values))
    (explicit, *_) = Plan(plan.file).cells
    assert one.fp == explicit.fp
    assert one.spec.training.precision == one.spec.record()["training"]["precision"] == resolved
    assert "auto" not in str(one.spec.address())


# --- modules ---------------------------------------------------------------------------------------------------------

SNIPPET = """

def edited_here(value):
    log.info("{message}")
    if value > {number}:
        raise UserError(f"{message}: expected less, but got {{value}}")


def refuses(cls, params):
    return "{message}"


class EditedHere:
    field = Field(ge=0, description="{message}")
    shown = (Quantity("edited", "", "{message}"),)
"""


def module_names() -> list[str]:
    files = sorted((ROOT / "pipeline_src").rglob("*.py"))
    return [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]


# From the package's folders to the first stage whose address an edit moves, for the study of this test (av_digits by
# log_stft and frames, resnet, concat, every method); the longest name counts. None: no address.
EXPECTED = {
    "pipeline_src": None,
    "pipeline_src.core.fingerprint": "aggregate",  # the report reads addresses
    "pipeline_src.core.seeding": "train",
    "pipeline_src.core.labels": "fetch",
    "pipeline_src.core.lazy": "manifest",
    "pipeline_src.core.upload": "train",
    "pipeline_src.corruptions": None,  # the study has none
    "pipeline_src.corruptions.base": "train",
    "pipeline_src.datasets.av_digits": "fetch",
    "pipeline_src.datasets.base": "fetch",
    "pipeline_src.datasets.folds": "manifest",
    "pipeline_src.datasets.listing": "manifest",
    "pipeline_src.datasets.lists": "fetch",
    "pipeline_src.datasets.manifest": "manifest",
    "pipeline_src.datasets.quarantine": "manifest",
    "pipeline_src.datasets.written": "fetch",
    "pipeline_src.evaluation": "evaluate",
    "pipeline_src.evaluation.params": None,
    "pipeline_src.features": None,  # names and checks of files
    "pipeline_src.features.build": "extract",
    "pipeline_src.features.read": "extract",
    "pipeline_src.media.base": "manifest",
    "pipeline_src.media.cells": "manifest",
    "pipeline_src.media.decode": "manifest",
    "pipeline_src.media.display": "manifest",
    "pipeline_src.media.fbank": "manifest",
    "pipeline_src.media.frames": "manifest",
    "pipeline_src.media.pictures": "manifest",
    "pipeline_src.media.picks": "manifest",
    "pipeline_src.methods": "train",
    "pipeline_src.methods.alternating": None,  # of the methods that need another fusion than this study's
    "pipeline_src.methods.amst": None,
    "pipeline_src.methods.greedy": None,
    "pipeline_src.methods.mla": None,
    "pipeline_src.models": "train",
    "pipeline_src.models.encoders": None,
    "pipeline_src.models.encoders.resnet": "train",
    "pipeline_src.models.folders": None,
    "pipeline_src.models.fusions": None,
    "pipeline_src.models.pretrained": None,
    "pipeline_src.models.recurrent": None,
    "pipeline_src.models.steps": None,
    "pipeline_src.models.fusions.base": "train",
    "pipeline_src.models.fusions.concat": "train",
    "pipeline_src.observers": None,  # the study has none
    "pipeline_src.observers.base": "train",
    "pipeline_src.reports": "aggregate",
    "pipeline_src.reports.overview": None,  # pages across studies
    "pipeline_src.reports.together": None,
    "pipeline_src.study.choice": "aggregate",  # the report reads what was tuned, and where
    "pipeline_src.study.estimate": "aggregate",  # operations until a score is reached
    "pipeline_src.study.outputs": "aggregate",
    "pipeline_src.tasks": None,  # of other tasks
    "pipeline_src.tasks.base": "manifest",  # of other files of tasks, manifest and cache know what reads labels alone
    "pipeline_src.tasks.classification": "train",
    "pipeline_src.tasks.probe": "train",
    "pipeline_src.tasks.segments": "train",  # it cuts samples into segments
    "pipeline_src.training": "train",
    "pipeline_src.training.gpu": None,
    "pipeline_src.training.interrupt": None,
    "pipeline_src.training.machine": None,
    "pipeline_src.training.params": None,
}


def expected(module: str) -> str | None:
    package = ROOT / module.replace(".", "/") / "__init__.py"
    if package.exists() and not any(isinstance(node, ast.Assign) for node in ast.parse(package.read_text()).body):
        return None  # there is nothing in it to import
    parts = module.split(".")
    return next(EXPECTED[name] for n in range(len(parts), 0, -1) if (name := ".".join(parts[:n])) in EXPECTED)


def test_an_edit_of_a_module_moves_what_it_computes_and_a_message_moves_nothing(plan, monkeypatch):
    monkeypatch.setattr(plan, "file", Path("params.yaml"))
    read, texts, made = fingerprint._module, {}, {}

    def digest(module: str) -> tuple:
        if module not in texts:
            return read(module)
        key = module, texts[module]
        if key not in made:
            folder = module if fingerprint._file(module).stem == "__init__" else module.rpartition(".")[0]
            text, asked = fingerprint._digest(folder, fingerprint._source(module) + texts[module], {})
            made[key] = text, tuple(sorted(fingerprint._ours(asked, folder)))
        return made[key]

    def after(**edited: str) -> dict[str, set[str]]:
        """The addresses when every module has the function, and these another one."""
        texts.update(dict.fromkeys(modules, SNIPPET.format(number=1, message="a message")) | edited)
        return addresses(Plan(plan.file))

    monkeypatch.setattr(fingerprint, "_module", digest)
    modules, wrong = module_names(), []
    before, other = after(), SNIPPET.format(number=1, message="another")
    if moved(before, after(**dict.fromkeys(modules, other))):
        found = [module for module in modules if moved(before, after(**{module: other}))]
        wrong.append(f"a message moves an address in {found}")
    for module in modules:
        got = moved(before, after(**{module: SNIPPET.format(number=2, message="a message")}))
        if got != DATA[expected(module)]:
            wrong.append(f"{module}: expected {expected(module)} and what follows, but got {sorted(got)}")
    assert not wrong, "\n".join(wrong)


def test_what_is_declared_for_drawing_moves_the_tables_alone(plan, monkeypatch):
    before = addresses(plan)
    (first, *others) = methods["ogm"].quantities
    reworded = type(first)(**{**vars(first), "caption": "Another caption."})
    monkeypatch.setattr(methods["ogm"], "quantities", (reworded, *others))
    assert moved(before, addresses(Plan(plan.file))) == {"aggregate"}


def test_neutral_modules_exist():
    for module in fingerprint.NEUTRAL:
        importlib.import_module(module)


def test_the_list_of_stages_is_the_rules_the_commands_and_the_resources():
    in_a_job_of_its_own = tuple(stage for stage in STAGES if stage != "evaluate")
    assert tuple(name for name, field in Resources.model_fields.items() if name in STAGES) == in_a_job_of_its_own
    rules = {file.stem for file in (ROOT / "workflow/rules").glob("*.smk")}
    assert rules | {"extract"} == set(in_a_job_of_its_own)
    assert Augmentation.affects == Training.affects == "train"
