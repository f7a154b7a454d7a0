"""The section `methods`: the parameters of each method that the study has, some under names of their own.

    methods:
      pmr: {alpha: 2.0}                      # a registered method
      pmr_01: {kind: pmr, share: 0.01}       # the same method once more, with other parameters

Tables, figures, logs and MLflow have a configuration by its name. What it computes is its `kind` with its parameters:
these are in the address, the name is not. The name is part of the path, as a dataset's is, so two names never share a
run; within a study, two names for the same settings are refused.
"""

import re
from typing import Any

from pipeline_src.core.errors import brief
from pipeline_src.core.registry import closest
from pipeline_src.methods.base import methods
from pipeline_src.study.yaml import Mistakes, shown

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")  # of all that becomes part of paths
KIND = "kind"
TAKEN = ("all", "unimodal", "ensemble")  # names of spaces of `tuning`, and of the row that is no run
PLACE = ("methods",)
ENDINGS = ("-tuned", "-only")  # of rows that the study adds


def checked(section: dict, studied: list[str], mistakes: Mistakes) -> tuple[dict[str, Any], dict[str, str]]:
    """The blocks of all methods that the file names, each as its method's own Params (None where it is wrong), and the
    registered method of every name. Mistakes are noted.
    """
    blocks: dict[str, Any] = {}
    kinds: dict[str, str] = {}
    for name in dict.fromkeys([*section, *studied, "joint"]):
        found, place = section.get(name), (*PLACE, name)
        kind = found.get(KIND) if isinstance(found, dict) else None
        if kind is None:
            kind = name
            if name not in methods:
                if name in section:
                    mistakes.add(place, _lacking(name))
                    blocks[name] = None
                continue  # a name that no block has is noted where the study lists it
        elif not _may_be_called(name, kind, mistakes, place):
            blocks[name] = None
            continue
        values = {key: value for key, value in found.items() if key != KIND} if isinstance(found, dict) else found
        kinds[name] = kind
        blocks[name] = mistakes.checked(methods[kind].Params, {} if values is None else values, place)
    _check_different(blocks, kinds, studied, mistakes)
    return blocks, kinds


def _lacking(name: str) -> str:
    what = f"expected a registered method, or a block with `kind`, a registered method, but got {brief(name)}"
    return f"{what}{closest(name, methods)}"


def _may_be_called(name: Any, kind: Any, mistakes: Mistakes, place: tuple) -> bool:
    """Whether a block that names its kind may have that name and kind; what is wrong is noted."""
    before = len(mistakes.lines)
    if kind not in methods:
        mistakes.add((*place, KIND), methods.unknown(kind) if isinstance(kind, str) else _no_kind(kind))
    elif name in methods and name != kind:
        mistakes.add(
            (*place, KIND),
            f"expected {brief(name)}, as the block has the name of this registered method, but got {brief(kind)};"
            " rename the block",
        )
    elif not NAME.fullmatch(str(name)):
        mistakes.add(place, "expected a name of at most 64 small letters, digits, '.', '_' and '-'")
    elif name in TAKEN or str(name).endswith(ENDINGS):
        mistakes.add(place, "expected another name, as tables have this one for what the study adds; rename the block")
    return len(mistakes.lines) == before


def _no_kind(kind: Any) -> str:
    return f"expected the name of a registered method, but got {shown(kind)}"


def _check_different(blocks: dict[str, Any], kinds: dict[str, str], studied: list[str], mistakes: Mistakes) -> None:
    """Two names of the study for one method with the same parameters would be the same row twice."""
    first: dict[str, str] = {}
    for name in dict.fromkeys(studied):
        if blocks.get(name) is not None:
            settings = repr((kinds[name], blocks[name].model_dump()))
            if (other := first.setdefault(settings, name)) != name:
                place = (*PLACE, name) if name not in methods else (*PLACE, other)
                mistakes.add(
                    place,
                    f"expected settings that no other method of the study has, but got those of"
                    f" {brief(other if place[1] == name else name)}; change a parameter, or leave one out",
                )
