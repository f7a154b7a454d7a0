"""Where each value of a study is from: `plan --explain`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel

from pipeline_src.study import config, extends
from pipeline_src.study.params import Params, Recipe
from pipeline_src.study.yaml import read

if TYPE_CHECKING:
    from pipeline_src.study.plan import Plan

WIDTH = 60  # columns before a place
DEFAULT = "default"


def origins(plan: Plan) -> str:
    """The whole study as YAML, with the file and line of each value behind it, or `default`."""
    values, mistakes, _ = extends.read(plan.file)
    recipes = {name: read(config.RECIPES / f"{name}.yaml", Recipe, "recipe")[1] for name in config.shipped_recipes()}

    def where(place: tuple) -> str:
        if place[0] == "recipes" and place[1:2] and place[1] in recipes:  # no params file has one of these names
            found = recipes[place[1]].where(("modalities", *place[2:]))
        else:
            found = mistakes.where(place)
        return f"{found[0]}:{found[1]}" if found else DEFAULT

    def lines(value: Any, given: Any, place: tuple) -> Iterator[str]:
        indent, key = "  " * (len(place) - 1), place[-1]
        parts = _parts(value)
        if place[0] == "methods" and isinstance(given, dict) and "kind" in given:
            parts = {"kind": given["kind"], **parts}  # which names the parameters, but is none
        if parts:
            yield f"{indent}{key}:"
            for name, part in parts.items():
                yield from lines(part, given.get(name) if isinstance(given, dict) else None, (*place, name))
            return
        said = where(place)
        changed = given is not None and given != value and _flow(given) != _flow(value)  # `auto`, by the machine
        more = f"; {_flow(value)} here" if changed else ""
        yield f"{f'{indent}{key}: {_flow(given if changed else value)}':<{WIDTH}} # {said}{more}"

    listed: list[str] = []
    for name in Params.model_fields:
        if name != extends.KEY:
            value = getattr(plan.params, name)
            if name == "datasets":  # as they are in the file: those of a grid are no blocks of their own
                value = {key: value[key] for key in values["datasets"]}
            if name == "study":
                value = value.model_copy(update={"datasets": values["study"]["datasets"]})
            listed += lines(value, values.get(name), (name,))
    return "\n".join(listed)


def _parts(value: Any) -> dict[str, Any]:
    """The keys of a block; none of any other value."""
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    return value if isinstance(value, dict) else {}


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    value = {} if isinstance(value, BaseModel) else value  # without parameters
    plain = json.loads(json.dumps(value, default=str))
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
