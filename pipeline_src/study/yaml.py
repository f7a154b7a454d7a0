"""Reading YAML strictly: a mistake names its line, what was expected, what was given, and the closest name."""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipeline_src.core.errors import UserError
from pipeline_src.core.registry import closest


def read(file: Path, model: type[BaseModel], noun: str) -> tuple[dict, "Mistakes"]:
    """A YAML file's values, and where to note mistakes in them."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: expected a readable {noun} file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: expected UTF-8, but got {error.reason} at byte {error.start}") from error
    try:
        root = yaml.compose(text, Loader=Loader)
        values = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        what = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{where}: not valid YAML: {what}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected sections ({', '.join(model.model_fields)}), but got {shown(values)}")
    return values, Mistakes(file, root)


class Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number, as YAML 1.2 does, and refuses a key that stands twice."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
        seen.add(str(key.value))
    return loader.construct_mapping(node, deep=True)


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


class Mistakes:
    """Collects one line per mistake, each with the line of the file where it stands."""

    def __init__(self, file: Path, root: yaml.Node):
        self.file, self.root, self.lines = file, root, []

    def add(self, place: tuple, what: str) -> None:
        node, line = self.root, 1
        for part in place:
            node, line = _child(node, part, line)
        self.lines.append((line, f"{self.file}:{line}: {'.'.join(map(str, place)) or 'file'}: {what}"))

    def checked(self, model: type[BaseModel], values: Any, place: tuple) -> Any:
        """The values as `model`, or None after noting what is wrong with them."""
        try:
            return model.model_validate(values)
        except ValidationError as error:
            for one in error.errors():
                loc = tuple(part for part in one["loc"] if not str(part).startswith("function-"))
                self.add(place + loc, _said(one, model))
            return None

    def raise_if_any(self) -> None:
        if self.lines:
            raise UserError("\n".join(line for _, line in sorted(self.lines)))


def _child(node: yaml.Node | None, part: Any, line: int) -> tuple[yaml.Node | None, int]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return value, key.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark.line + 1
    return None, line


def shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _said(error: dict, model: type[BaseModel]) -> str:
    """A pydantic error as `expected ..., but got ...`."""
    found = shown(error["input"])
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key{closest(error['loc'][-1], _fields(model, error['loc'][:-1]))}"
        case "missing":
            return "expected a value, but got none"
        case "value_error":
            return f"{error['msg'].removeprefix('Value error, ')}, but got {found}"
        case "model_type" | "dict_type":
            return f"expected a block of keys, but got {found}"
        case "literal_error":
            return f"expected {error['ctx']['expected']}, but got {found}"
    expected = re.sub(r"^(Input|List|Dictionary) should (be |have )?", "", error["msg"])
    return f"expected {expected}, but got {found}"


def _fields(model: type[BaseModel], loc: tuple) -> list[str]:
    """Names of the fields of the block at `loc` in `model`."""
    for part in loc:
        field = model.model_fields.get(part)
        if field is None:  # the key of a mapping: its values' model is the next step
            continue
        annotation = field.annotation
        for candidate in (annotation, *getattr(annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return list(model.model_fields)
