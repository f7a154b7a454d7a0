"""A params file that states what differs from another: `extends: params.yaml`, relative to the file that says it.

The rule: blocks merge by key; every other value, lists included, replaces; null removes what the other file says. A
block of another `kind` replaces as a whole, as its parameters are others. Where null is one of a parameter's values
(`cap` of agm), it is that value.

Files are merged as YAML nodes, each of which knows its file and line, so that a mistake is reported where it is.
"""

import os
from pathlib import Path

import yaml

from pipeline_src.core.errors import UserError
from pipeline_src.study.params import Params
from pipeline_src.study.yaml import Mistakes, composed, constructed, shown

KEY = "extends"
LONGEST = 20  # files, each of which extends the next
NULL = "tag:yaml.org,2002:null"


def read(file: Path) -> tuple[dict, Mistakes, tuple[Path, ...]]:
    """A params file's values with those of the files that it extends, where to note mistakes in them, and these files,
    the nearest first. Raises UserError if one of them cannot be read, or leads back to itself.
    """
    chain = [(file, composed(file, Params, "params"))]
    while (named := _named(*chain[-1])) is not None:
        other, place = named
        if other.resolve() in [path.resolve() for path, _ in chain]:
            way = " -> ".join(str(path) for path, _ in [*chain, (other, None)])
            raise UserError(f"{place}: expected a file that leads to its end, but got {way}")
        if len(chain) == LONGEST:
            raise UserError(f"{place}: expected at most {LONGEST} files, each of which extends the next, but got more")
        try:
            chain.append((other, composed(other, Params, "params")))
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
    root, removed = chain[-1][1], set[tuple]()
    for _, own in reversed(chain[:-1]):
        root = _merged(root, own, (), removed)
    return constructed(root), Mistakes(root, removed), tuple(path for path, _ in chain[1:])


def _named(file: Path, root: yaml.MappingNode) -> tuple[Path, str] | None:
    """The file that `file` extends, and the place that says so; None if it extends none."""
    for key, value in root.value:
        if key.value == KEY and value.tag != NULL:
            place = f"{file}:{key.start_mark.line + 1}: {KEY}"
            if not isinstance(value, yaml.ScalarNode) or value.tag != "tag:yaml.org,2002:str" or not value.value:
                raise UserError(f"{place}: expected the name of a params file, but got {shown(_value(value))}")
            path = file.parent / value.value
            plain = Path(os.path.normpath(path))
            try:
                return (plain if plain.resolve() == path.resolve() else path), place  # `..` may go through a link
            except (OSError, ValueError) as error:  # a loop of links, a NUL
                raise UserError(f"{place}: expected the name of a params file, but got an error: {error}") from None
    return None


def _value(node: yaml.Node) -> object:
    return node.value if isinstance(node, yaml.ScalarNode) else "a block or a list"


def _merged(base: yaml.MappingNode, own: yaml.MappingNode, place: tuple, removed: set[tuple]) -> yaml.MappingNode:
    """`own` over `base`; notes in `removed` where null stands for a value of `base`."""
    pairs = {key.value: (key, value) for key, value in base.value if place or key.value != KEY}
    for key, value in own.value:
        name, here = key.value, (*place, key.value)
        before = pairs[name][1] if name in pairs else None
        pairs[name] = key, value
        if before is not None and value.tag == NULL:
            removed.add(here)
        if isinstance(before, yaml.MappingNode):
            if value.tag == NULL:
                del pairs[name]
            elif isinstance(value, yaml.MappingNode) and not _other_kind(name, before, value):
                pairs[name] = key, _merged(before, value, here, removed)
    return yaml.MappingNode(own.tag, [*pairs.values()], own.start_mark, own.end_mark)


def _other_kind(name: str, base: yaml.MappingNode, own: yaml.MappingNode) -> bool:
    """Whether a block names another plug-in than the one that it would merge with; its own name is the default."""
    kinds = [next((value.value for key, value in node.value if key.value == "kind"), None) for node in (base, own)]
    return kinds[1] is not None and kinds[1] != (kinds[0] or name)
