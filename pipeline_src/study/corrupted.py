"""What params.yaml says of corruptions: `evaluation.corruptions`, and that of the augmentation of training batches."""

from typing import Any

from pipeline_src.core.registry import closest
from pipeline_src.corruptions.base import corruptions, too_much, unfit
from pipeline_src.media.base import extractors
from pipeline_src.study.params import Settings
from pipeline_src.study.yaml import Mistakes

TESTING = ("evaluation", "corruptions")
TRAINING = ("training", "augmentation")


def checked(section: dict, mistakes: Mistakes) -> dict[str, Any]:
    """The blocks of `evaluation.corruptions` as the corruptions' own Params, None where one is wrong. Mistakes are
    noted.
    """
    blocks = {}
    for name, values in section.items():
        place = (*TESTING, name)
        if name in corruptions:
            blocks[name] = mistakes.checked(corruptions[name].Params, {} if values is None else values, place)
        else:
            mistakes.add(place, corruptions.unknown(name))
    return blocks


def check(params: Settings, mistakes: Mistakes) -> None:
    """Each corruption must have a modality of the study that it can spoil, at these rates."""
    layouts: dict[str, str] = {}  # of the study's modalities; one of several layouts has the first
    for name in params.study.datasets:
        block = params.datasets.get(name)
        for m, recipe in params.recipes.get(block.recipe, {}).items() if block is not None else ():
            if recipe is not None:
                layouts.setdefault(m, extractors[recipe.kind](recipe).layout)
    for name, block in params.evaluation.corruptions.items():
        if block is not None and layouts:
            _check_testing(name, block, layouts, mistakes)
    for m, how in params.training.augmentation.items():
        for name, rate in how.corruption.items():
            place = (*TRAINING, m, "corruption", name)
            if name not in corruptions:
                mistakes.add(place, corruptions.unknown(name))
            elif why := too_much(name, rate) or (unfit(name, layouts[m]) if m in layouts else None):
                mistakes.add(place, why)


def _check_testing(name: str, block: Any, layouts: dict[str, str], mistakes: Mistakes) -> None:
    place = (*TESTING, name)
    if why := too_much(name, block.rates[-1]):
        mistakes.add((*place, "rates"), why)
    for i, m in enumerate(block.modalities or ()):
        where = (*place, "modalities", i)
        if m not in layouts:
            mistakes.add(where, f"expected a modality of the study's datasets, but got {m!r}{closest(m, layouts)}")
        elif why := unfit(name, layouts[m]):
            mistakes.add(where, why)
    reasons = [unfit(name, layout) for layout in layouts.values()]
    if block.modalities is None and all(reasons):
        mistakes.add(place, reasons[0] or "")
