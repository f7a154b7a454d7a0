"""The experiments have the published settings, by a list that was written apart from them (published_settings.yaml)."""

import functools
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline_src.datasets.base import datasets
from pipeline_src.study import config
from pipeline_src.study.params import Settings
from tests.test_experiments import TABLES

LIST = yaml.safe_load((Path(__file__).parent / "published_settings.yaml").read_text(encoding="utf-8"))
FILES = {file.stem: file for file in TABLES}
AUDIOVISUAL = {"audio": "resnet18", "visual": "resnet18"}


@functools.cache
def params(name: str) -> Settings:
    return config.load(FILES[name])


def test_every_experiment_is_listed():
    assert set(LIST["experiments"]) == set(FILES)


def published(name: str, part: str) -> Any:
    """What the list has for an experiment: its own, else its protocol's."""
    own = LIST["experiments"][name]
    return own[part] if part in own else LIST["protocols"][own["protocol"]].get(part)


def same(ours: Any, theirs: Any) -> bool:
    """Whether a parameter has the published value; of blocks, whether all that is published agrees."""
    if isinstance(theirs, dict):
        return all(same(getattr(ours, key), value) for key, value in theirs.items())
    return ours == pytest.approx(theirs) if isinstance(theirs, float | list) else ours == theirs


def check_schedule(ours: Any, theirs: dict) -> None:
    if theirs["lr_gamma"] is None:  # no step is published: one that changes nothing
        theirs = {key: value for key, value in theirs.items() if key != "lr_step"} | {"lr_gamma": 1.0}
    for key, value in theirs.items():
        assert same(getattr(ours, key), value), f"{key}: {getattr(ours, key)} and not {value}"


@pytest.mark.parametrize("name", FILES)
def test_schedule_and_augmentation(name):
    ours, own = params(name), LIST["experiments"][name]
    protocol = LIST["protocols"][own["protocol"]]
    training = protocol["training"] | own.get("training", {})
    assert {"epochs", "batch_size", "optimizer", "lr", "lr_step", "lr_gamma", "weight_decay"} <= set(training)
    check_schedule(ours.training, training)
    for schedule, changed in own.get("schedules", {}).items():
        check_schedule(ours.trainings()[schedule], training | changed)
    assert set(ours.study.schedules) == set(own.get("schedules", {}))
    if visual := published(name, "visual"):
        assert same(ours.training.augmentation["visual"], visual), ours.training.augmentation["visual"]
    if init := published(name, "init"):
        assert ours.model.init == init
    if (offset := published(name, "offset")) is not None and {"film", "gated", "film_reversed"} & {*ours.study.fusions}:
        assert ours.model.fusion.offset == offset


@pytest.mark.parametrize("name", FILES)
def test_methods(name):
    ours, own = params(name), LIST["experiments"][name].get("methods", {})
    for method in ours.study.methods:
        block = ours.methods[method]
        assert all(same(getattr(block, key), value) for key, value in own.get(method, {}).items()), (method, block)
        unlisted = block.model_fields_set - set(own.get(method, {}))
        assert not unlisted, f"{method} sets {unlisted}, which is not listed as published"


@pytest.mark.parametrize("name", FILES)
def test_data_and_encoders(name):
    ours, own = params(name), LIST["experiments"][name]
    for dataset in {ours.stored(one) for one in ours.study.datasets}:
        block = ours.datasets[dataset]
        assert all(getattr(block, key) == value for key, value in own.get("dataset", {}).items()), block
        plugin = datasets[block.kind](block)
        if "clips" in own:
            assert plugin.sizes == own["clips"]
        encoders = own.get("encoders", AUDIOVISUAL)
        assert set(encoders) <= set(plugin.modalities)
        for m, encoder in encoders.items():
            assert same(ours.model.encoders[m], LIST["encoders"][encoder]), m
