"""Reading YAML strictly: a mistake names its line, what was expected, what was given, and the closest name.

A value means what it shows. What YAML 1.1 and 1.2 read differently (010, 1:30, yes) is refused, so that an editor, DVC
and this program cannot disagree on a file; so are tags, which are no plain data, and aliases that explode.
"""

import json
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipeline_src.core.errors import UserError, brief, plain
from pipeline_src.core.registry import closest

LARGEST = 1_000_000  # bytes of a file
DEEPEST = 50  # blocks in blocks, aliases followed
MOST = 100_000  # values of a file, aliases followed
DIGITS = 100  # of a number
MISTAKES = 50  # that are listed
BOUNDS = {  # pydantic's type of an error: words, key of its context
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("greater than or equal to", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("less than or equal to", "le"),
}
CORE = ("null", "bool", "int", "float", "str", "seq", "map")  # YAML's plain data


def read(file: Path, model: type[BaseModel], noun: str) -> tuple[dict, "Mistakes"]:
    """A YAML file's values, and where to note mistakes in them. Raises UserError if it cannot be read."""
    root = composed(file, model, noun)
    return constructed(root), Mistakes(root)


def composed(file: Path, model: type[BaseModel], noun: str) -> yaml.MappingNode:
    """A YAML file as nodes that know their file and line, checked, with the merges of `<<` done."""
    try:
        state = file.stat()
        if not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode):
            raise UserError(f"{file}: expected a readable {noun} file, but got a pipe or a device; name a file")
        if state.st_size > LARGEST:
            raise UserError(f"{file}: expected at most {LARGEST:,} bytes, but got {state.st_size:,}; shorten it")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{plain(file, 300)}: expected a readable {noun} file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: expected UTF-8, but got {error.reason} at byte {error.start}; save it so") from error
    except ValueError as error:  # a NUL in the name
        raise UserError(f"{str(file)!r}: expected the name of a {noun} file: {error}") from error
    try:
        loader = Loader(text)
        loader.name = str(file)  # of every node's mark
        root = loader.get_single_node()
        if root is not None:
            _check_size(root)
        values = None if root is None else loader.construct_document(root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        what = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{where}: not valid YAML: {what if len(what) <= 300 else what[:297] + '...'}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected sections ({', '.join(model.model_fields)}), but got {shown(values)}")
    return root


def constructed(root: yaml.MappingNode) -> dict:
    """The values of nodes, of one file or merged from several."""
    return Loader("").construct_document(root)


class Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number and a date as text, as YAML 1.2 does; that refuses what the two versions
    read differently, tags, and a key that stands twice; and that stops at blocks too deep.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            _refuse(f"expected blocks nested at most {DEEPEST} deep, but got more", self.peek_event())
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class Mark(yaml.MarkedYAMLError):
    """A value that is YAML, but is refused."""


def _refuse(problem: str, at: Any) -> None:
    raise Mark(problem=problem, problem_mark=at.start_mark)


def _check_size(root: yaml.Node) -> None:
    """Raises Mark if the values are too many or too deep once every alias stands for what it names."""
    measured: dict[int, tuple[int, int]] = {}  # node -> values, depth
    entered: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        if id(node) not in measured:
            if id(node) in entered:
                _refuse("expected no alias that contains itself; write the values out", node)
            entered.add(id(node))
            children = node.value if isinstance(node, yaml.SequenceNode) else ()
            if isinstance(node, yaml.MappingNode):
                children = [child for pair in node.value for child in pair]
            counts, depths = zip((0, 0), *map(measure, children), strict=True)
            if sum(counts) >= MOST:
                _refuse(f"expected at most {MOST:,} values, each alias counted with all that it names", node)
            if max(depths) >= DEEPEST:
                _refuse(f"expected blocks nested at most {DEEPEST} deep, aliases followed, but got more", node)
            measured[id(node)] = 1 + sum(counts), 1 + max(depths)
        return measured[id(node)]

    measure(root)


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """A number in decimal or 0x... notation."""
    text = loader.construct_scalar(node)
    if len(text) > DIGITS:
        _refuse(f"expected a number of at most {DIGITS} digits, but got {len(text):,}", node)
    if ":" in text:
        _refuse(f"{text} is a number to base 60 for some readers; write a plain number, or put it in quotes", node)
    if not re.fullmatch(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)", text):
        what = "is no decimal number, or not the same for all readers; write a decimal number without leading zeros"
        _refuse(f"{brief(text)} {what}", node)
    return loader.construct_yaml_int(node)


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node)
    if ":" in text:
        _refuse(f"{text} is a number to base 60 for some readers; write a plain number, or put it in quotes", node)
    try:
        return loader.construct_yaml_float(node)
    except ValueError:
        _refuse(f"{brief(text)} is no number; write a plain number", node)


def _boolean(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    text = loader.construct_scalar(node)
    if text.lower() not in ("true", "false"):
        _refuse(f"{brief(text)} is text for some readers; write true or false, or put it in quotes", node)
    return text.lower() == "true"


def _mapping(loader: yaml.SafeLoader, node: yaml.Node) -> dict:
    if not isinstance(node, yaml.MappingNode):
        _refuse("expected a block of keys after the tag", node)
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue  # PyYAML says so
        if key.value in seen:
            _refuse(f"the key {brief(key.value)} stands twice", key)
        seen.add(key.value)
        if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            loader.construct_object(key)
            _refuse(f"expected a key that is text, but got {brief(key.value)}; put it in quotes", key)
    values = loader.construct_mapping(node, deep=True)
    node.value = [*{key.value: (key, value) for key, value in node.value}.values()]  # what `<<` brought, overridden
    return values


def _tag(loader: yaml.SafeLoader, node: yaml.Node) -> None:
    _refuse(f"expected plain data, but got the tag {brief(node.tag)}; remove it", node)


Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag.rsplit(":", 1)[-1] in (*CORE, "merge")]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
Loader.yaml_constructors = {f"tag:yaml.org,2002:{name}": getattr(Loader, f"construct_yaml_{name}") for name in CORE} | {
    "tag:yaml.org,2002:int": _integer,
    "tag:yaml.org,2002:float": _float,
    "tag:yaml.org,2002:bool": _boolean,
    "tag:yaml.org,2002:map": _mapping,
    None: _tag,
}


class Mistakes:
    """Collects one line per mistake, each with the file and the line where it is.

    `removed`: places of values that are null to remove what another file says, unless null is one of their values.
    """

    def __init__(self, root: yaml.Node, removed: Iterable[tuple] = ()):
        self.file, self.root, self.removed = root.start_mark.name, root, set(removed)
        self.lines: set[tuple[bool, str, int, str]] = set()  # one that holds for several methods is said once
        self._keys: dict[yaml.Node, dict[str, tuple[yaml.Node, yaml.Mark]]] = {}  # of mappings that were searched

    def add(self, place: tuple, what: str) -> None:
        """Note what is wrong at a place, in the file that says it, or else that its block is in."""
        node, mark = self.root, None
        for part in place:
            node, mark = self._child(node, part, mark)
        file, line = (mark.name, mark.line + 1) if mark else (self.file, 1)
        said = f"{file}:{line}: {'.'.join(map(plain, place)) or 'file'}: {what}"
        self.lines.add((file != self.file, file, line, said))

    def where(self, place: tuple) -> tuple[str, int] | None:
        """The file and the line that a value is from; None if no file says it."""
        node: yaml.Node | None = self.root
        mark = None
        for part in place:
            node, mark = self._child(node, part, None)
            if node is None:
                return None
        return (mark.name, mark.line + 1) if mark else None

    def _child(self, node: yaml.Node | None, part: Any, mark: Any) -> tuple[yaml.Node | None, Any]:
        """What is at a key or an index of a node, and its mark; the mark given if there is nothing."""
        if isinstance(node, yaml.MappingNode):
            if node not in self._keys:
                self._keys[node] = {
                    key.value: (value, key.start_mark) for key, value in node.value if isinstance(key, yaml.ScalarNode)
                }
            return self._keys[node].get(str(part), (None, mark))
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            return node.value[part], node.value[part].start_mark
        return None, mark

    def checked(self, model: type[BaseModel], values: Any, place: tuple) -> Any:
        """The values as `model`, or None after noting what is wrong with them."""
        try:
            return model.model_validate(values)
        except ValidationError as error:
            wrong = [(_place(one["loc"]), one) for one in error.errors()]
        gone = [loc for loc, one in wrong if one["input"] is None and place + loc in self.removed]
        if gone:
            self.removed -= {place + loc for loc in gone}
            return self.checked(model, _without(values, gone), place)
        for loc, one in wrong:
            self.add(place + loc, _said(one, model))
        return None

    def raise_if_any(self) -> None:
        if self.lines:
            lines = [line for *_, line in sorted(self.lines)]
            if len(lines) > MISTAKES:
                lines[MISTAKES:] = [f"{self.file}: and {len(lines) - MISTAKES:,} more mistakes; fix these first"]
            raise UserError("\n".join(lines))


def _without(values: Any, places: list[tuple]) -> Any:
    """A copy of nested blocks without some keys."""
    kept = dict(values)
    for key in {place[0] for place in places}:
        deeper = [place[1:] for place in places if place[0] == key]
        if () in deeper:
            del kept[key]
        else:
            kept[key] = _without(kept[key], deeper)
    return kept


def _place(loc: tuple) -> tuple:
    """Where an error of pydantic is, without the names of its validators."""
    return tuple(part for part in loc if not str(part).startswith("function-"))


def shown(value: Any) -> str:
    """A value as in a message: on one line, and not the whole of a long one."""
    text = json.dumps(value[:60] if isinstance(value, str) else value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _said(error: dict, model: type[BaseModel]) -> str:
    """A pydantic error as `expected ..., but got ...`."""
    found = shown(error["input"])
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key{closest(error['loc'][-1], _fields(model, error['loc'][:-1]))}"
        case "secret":  # a value that no message may show
            return f"expected {error['msg']}"
        case "string_unicode":  # half of a pair of UTF-16
            return f"expected text in UTF-8, but got {found}"
        case "missing":
            return "expected a value, but got none"
        case "value_error":
            return f"{error['msg'].removeprefix('Value error, ')}, but got {found}"
        case "model_type" | "dict_type":
            return f"expected a block of keys, but got {found}"
        case "literal_error":
            return f"expected {error['ctx']['expected']}, but got {found}"
    if error["type"] in BOUNDS:
        words, key = BOUNDS[error["type"]]
        return f"expected {words} {error['ctx'][key]:.12g}, but got {found}"
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
