"""The section `observers`: what is computed of every run while it trains, without changing it; see `observers.base`."""

from typing import Any

from pipeline_src.datasets.base import datasets
from pipeline_src.methods.base import Setting
from pipeline_src.models.base import fusions
from pipeline_src.observers.base import observers
from pipeline_src.study.params import Settings
from pipeline_src.study.yaml import Mistakes

PLACE = ("observers",)


def checked(section: dict, mistakes: Mistakes) -> dict[str, Any]:
    """The blocks as their observers' own Params, None where one is wrong. Mistakes are noted."""
    blocks = {}
    for name, values in section.items():
        if name in observers:
            blocks[name] = mistakes.checked(observers[name].Params, {} if values is None else values, (*PLACE, name))
        else:
            mistakes.add((*PLACE, name), observers.unknown(name))
    return blocks


def check(params: Settings, mistakes: Mistakes) -> None:
    """Each observer must have an epoch and a run of the study to observe."""
    blocks = [params.datasets.get(name) for name in params.study.datasets]
    known = [datasets[block.kind](block) for block in blocks if block is not None]
    epochs = max(training.epochs for training in params.trainings().values())
    settings = [
        Setting(tuple(dataset.modalities), fusion, epochs, dataset.task)
        for dataset in known
        for fusion in params.study.fusions
        if fusion in fusions
    ]
    for name, block in params.observers.items():
        if block is None:
            continue
        if block.every > epochs:
            mistakes.add((*PLACE, name, "every"), f"expected at most training.epochs = {epochs}, but got {block.every}")
        refusals = [observers[name].refuses(block, setting) for setting in settings]
        if refusals and all(refusals):
            mistakes.add((*PLACE, name), refusals[0])
