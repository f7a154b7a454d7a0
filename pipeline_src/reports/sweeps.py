"""Sweeps: what in a study differs in one number alone, which the report draws as a curve over this number.

They are found, not declared: methods of one kind under several names (`methods: {pmr_01: {kind: pmr, share: 0.01}}`),
and the datasets of a grid of one axis, schedules included. A sweep has three points or more.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Cell
    from pipeline_src.study.plan import Plan

LEAST = 3  # points


@dataclass(frozen=True)
class Sweep:
    """Values of a parameter, ascending, and what has each: the name of a method, or the levels of a grid."""

    of: str  # the registered method, or the grid
    parameter: str
    points: tuple[tuple[float, Any], ...]

    @property
    def values(self) -> list[float]:
        return [value for value, _ in self.points]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Hashable]:
    """Nested parameters by dotted name; what is neither a number nor text as JSON."""
    found: dict[str, Hashable] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value if isinstance(value, int | float | str) else json.dumps(value)
    return found


def among(of: str, variants: Sequence[tuple[Any, Mapping[str, Hashable]]]) -> list[Sweep]:
    """The sweeps among variants (name, flat parameters), by parameter: those with the same of all other parameters."""
    found = []
    for key in dict.fromkeys(key for _, values in variants for key in values):
        groups: dict[Hashable, dict[float, Any]] = {}
        for name, values in variants:
            value = values.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool):
                others = frozenset((k, v) for k, v in values.items() if k != key)
                groups.setdefault(others, {}).setdefault(value, name)
        found += [Sweep(of, key, tuple(sorted(group.items()))) for group in groups.values() if len(group) >= LEAST]
    return found


def of_methods(cells: Iterable[Cell]) -> list[Sweep]:
    """The sweeps over a parameter of a method, of cells (of a Plan) of one dataset."""
    by_name = {cell.method: cell for cell in cells}
    kinds = dict.fromkeys(cell.spec.method for cell in by_name.values())
    return [
        sweep
        for kind in kinds
        for sweep in among(
            kind, [(n, flat(cell.spec.params.model_dump())) for n, cell in by_name.items() if cell.spec.method == kind]
        )
    ]


def of_grid(plan: Plan, name: str, datasets: Mapping[tuple[str, ...], str]) -> Sweep | None:
    """The sweep that the datasets of a grid {levels: dataset} are, by a parameter of the data or of the schedule; None
    if they differ in more.
    """
    cells = {cell.data.name: cell for cell in plan.rows}
    if not set(datasets.values()) <= set(cells):
        return None
    variants = []
    for levels, dataset in datasets.items():
        cell = cells[dataset]
        data, schedule = cell.data.dataset.params.model_dump(), cell.spec.training.model_dump()
        variants.append((levels, flat({"data": data, "training": schedule})))
    whole = [sweep for sweep in among(name, variants) if len(sweep.points) == len(variants)]
    return whole[0] if whole else None
