"""Schedules: an axis of the study beside datasets and fusions. Each is a difference from the section `training`.

    study:
      schedules: [sgd, adam]
    schedules:
      sgd: {}                                # `training` as it is
      adam: {optimizer: adam, lr: 1.0e-4}

A study of `cremad` then has the datasets cremad-sgd and cremad-adam. They are the same data, by the same files and
caches, but every run of the second is trained by the schedule `adam`: joint training, each modality alone and every
method. So methods are compared with joint training of the same schedule. The report draws the schedules of a dataset
together, as it draws a grid.
"""

from typing import Any

from pipeline_src.core.errors import brief
from pipeline_src.core.registry import closest
from pipeline_src.study.params import SCHEDULED, Grid, Scheduled, Settings
from pipeline_src.study.tuning import given
from pipeline_src.study.yaml import Mistakes

AXIS = "schedule"  # of the grid that the schedules of a dataset are


def check(params: Settings, mistakes: Mistakes) -> None:
    """Note what is wrong with the section `schedules` and with the study's choice of them."""
    for name, values in params.schedules.items():
        place = ("schedules", name)
        unknown = [key for key in values if key not in SCHEDULED]
        for key in unknown:
            what = f"expected a parameter of `training` that a schedule may set{closest(key, SCHEDULED)}"
            mistakes.add((*place, key), what)
        if not unknown:
            mistakes.checked(type(params.training), given(params.training) | values, place)
    for i, name in enumerate(params.study.schedules):
        if name not in params.schedules:
            what = f"expected a key of `schedules`, but got {brief(name)}{closest(name, params.schedules)}"
            mistakes.add(("study", "schedules", i), what)
    first: dict[str, str] = {}
    for name, training in params.trainings().items() if params.study.schedules else ():
        if (other := first.setdefault(training.model_dump_json(), name)) != name:
            mistakes.add(
                ("schedules", name), f"expected another schedule than that of {brief(other)}, but got the same"
            )


def expanded(params: Settings, mistakes: Mistakes) -> Settings:
    """`params`, whose grids are expanded, with every dataset under every schedule in place of the dataset. A name that
    a dataset has already is noted.
    """
    if not params.study.schedules:
        return params
    made = params.trainings()
    blocks: dict[str, Any] = dict(params.datasets)
    scheduled: dict[str, Scheduled] = {}
    for name in params.study.datasets:
        for schedule, training in made.items():
            both = f"{name}-{schedule}"
            if both in blocks:
                what = f"expected names that no dataset has, but got {brief(both)}; rename the schedule"
                mistakes.add(("schedules", schedule), what)
            blocks[both] = params.datasets.get(name)
            scheduled[both] = Scheduled(name, schedule, training)
    study = params.study.model_copy(update={"datasets": list(scheduled)})
    grids = _grids(params, list(made))
    return params.model_copy(
        update={"study": study, "datasets": blocks, "scheduled": scheduled, "studied_grids": grids}
    )


def _grids(params: Settings, names: list[str]) -> dict[str, Grid]:
    """The grids of the study under its schedules, which are one more axis of a grid that has one."""
    found: dict[str, Grid] = {}
    inside = {dataset for grid in params.studied_grids.values() for dataset in grid.datasets.values()}
    for grid in params.studied_grids.values():
        if len(grid.axes) == 1:
            datasets = {(*of, s): f"{dataset}-{s}" for of, dataset in grid.datasets.items() for s in names}
            found[grid.name] = Grid(grid.name, grid.axes | {AXIS: names}, datasets)
        else:
            for s in names:
                datasets = {of: f"{dataset}-{s}" for of, dataset in grid.datasets.items()}
                found[f"{grid.name}-{s}"] = Grid(f"{grid.name}-{s}", grid.axes, datasets)
    for name in params.study.datasets:
        if name not in inside and len(names) > 1:
            found[name] = Grid(name, {AXIS: names}, {(s,): f"{name}-{s}" for s in names})
    return found
