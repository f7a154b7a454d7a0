"""Grids: one block of `datasets` that stands for many, one for each combination of the levels of its axes.

    grids:
      digits:                                               # a key of `datasets`
        sound: {noisy: {snr_db: [-10.0, 0.0]}, middle: {}}  # axis: {level: what differs from the block}
        picture: {scarce: {contrast: [0.3, 0.6], occlusion: 0.15}, clear: {occlusion: 0.0}}

A study of `digits` then has the datasets digits-noisy-scarce, digits-noisy-clear, digits-middle-scarce and
digits-middle-clear. From here on they are datasets like any other; the report draws them together as well.
"""

import itertools
import math
from typing import Any

from pipeline_src.core.errors import brief
from pipeline_src.core.registry import closest
from pipeline_src.datasets.base import DatasetParams
from pipeline_src.study.params import Axes, Grid, Settings
from pipeline_src.study.yaml import Mistakes

MOST = 100  # datasets of a grid
FIXED = {"kind", "recipe"}  # what a level may not set: the datasets of a grid have the same modalities and features


def named(name: str, axes: Axes) -> Grid:
    """The grid of a block of `datasets`; the last axis varies fastest."""
    levels = itertools.product(*axes.values())
    return Grid(name, {axis: list(of) for axis, of in axes.items()}, {of: "-".join((name, *of)) for of in levels})


def expanded(params: Settings, mistakes: Mistakes) -> Settings:
    """`params`, whose blocks are checked, with every dataset of a grid in place of the block that has one. Mistakes are
    noted.
    """
    blocks: dict[str, Any] = dict(params.datasets)
    grids: dict[str, Grid] = {}
    for name, axes in params.grids.items():
        place = ("grids", name)
        if name not in params.datasets:
            mistakes.add(place, f"expected a key of `datasets`, but got {brief(name)}{closest(name, params.datasets)}")
        elif params.datasets[name] is not None and _sound(params.datasets[name], axes, mistakes, place):
            grid = named(name, axes)
            made = _blocks(params.datasets[name], axes, grid, mistakes, place)
            if taken := [brief(dataset) for dataset in made if dataset in blocks]:
                mistakes.add(place, f"expected names that no other dataset has, but got {taken[0]}; rename a level")
            blocks |= made
            grids[name] = grid
    study = params.study
    names = [of for name in study.datasets for of in (grids[name].datasets.values() if name in grids else [name])]
    studied = {name: grid for name, grid in grids.items() if name in study.datasets}
    study = study.model_copy(update={"datasets": names})
    return params.model_copy(update={"study": study, "datasets": blocks, "studied_grids": studied})


def _sound(block: DatasetParams, axes: Axes, mistakes: Mistakes, place: tuple) -> bool:
    """Whether every level of a grid suits its block; what does not is noted."""
    before = len(mistakes.lines)
    count = math.prod(map(len, axes.values()))
    if count > MOST:
        mistakes.add(place, f"expected at most {MOST} combinations of levels, but got {count:,}")
    taken: dict[str, str] = {}  # parameter -> axis
    for axis, levels in axes.items():
        for level, values in levels.items():
            here = (*place, axis, level)
            for key in values:
                if key in FIXED:
                    mistakes.add((*here, key), "expected a parameter of the data, but got one that all levels share")
                elif taken.setdefault(key, axis) != axis:
                    mistakes.add((*here, key), f"expected each parameter on one axis, but {taken[key]} sets it as well")
            if not FIXED & values.keys():
                _checked(block, values, mistakes, here)
        shown = [{**_given(block), **values} for values in levels.values()]
        if any(a == b for a, b in itertools.combinations(shown, 2)):
            mistakes.add((*place, axis), "expected levels that differ, but two of them give the same dataset")
    return len(mistakes.lines) == before


def _blocks(block: DatasetParams, axes: Axes, grid: Grid, mistakes: Mistakes, place: tuple) -> dict[str, Any]:
    """The checked block of every dataset of a grid, by name."""
    made = {}
    for levels, dataset in grid.datasets.items():
        values = [axes[axis][level] for axis, level in zip(axes, levels, strict=True)]
        together = {key: value for part in values for key, value in part.items()}
        made[dataset] = _checked(block, together, mistakes, place)
    return made


def _given(block: DatasetParams) -> dict[str, Any]:
    return {key: getattr(block, key) for key in block.model_fields_set}


def _checked(block: DatasetParams, values: dict[str, Any], mistakes: Mistakes, place: tuple) -> DatasetParams | None:
    return mistakes.checked(type(block), {**_given(block), **values}, place)
