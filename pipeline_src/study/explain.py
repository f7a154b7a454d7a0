"""What a method is, from its own file: equation, source and deviations, parameters, and the hooks that it uses."""

from __future__ import annotations

import inspect
import sys
import textwrap
from typing import TYPE_CHECKING

from pipeline_src.methods.base import FAMILIES, Method, Quantity, methods

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

WIDTH = 100


def explain(name: str) -> str:
    """The method's own words. Raises UserError, with the closest name, if there is none of that name."""
    method = methods[name]
    lines = [f"{name}: {idea(method)}", f"Family: {method.family} ({FAMILIES[method.family]}).", ""]
    lines += [words(method), ""]
    lines += ["Parameters, under methods in params.yaml:" if method.Params.model_fields else "No parameters."]
    for key, field in method.Params.model_fields.items():
        lines += ["", f"    {key}: {_type(field)}, default {_value(field.default)}{_range(field)}"]
        lines += textwrap.wrap(field.description or "", WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
    lines += ["", "Logs, by epoch:" if method.quantities else "It logs nothing but the loss."]
    for quantity in method.quantities:
        lines += _logged(quantity)
    used = hooks(method)
    lines += ["", "Hooks in which it differs from joint training:" if used else "Plain joint training (baseline)."]
    lines += [f"    {hook:<16}  {_first(getattr(Method, hook))}" for hook in used]
    return "\n".join([*lines, "", f"File: {inspect.getsourcefile(method)}"])


def overview() -> str:
    """Every method in a line, by family."""
    width = max(map(len, methods), default=0)
    parts = []
    for family, names in by_family().items():
        lines = [f"  {name:<{width}}  {idea(methods[name])}" for name in names]
        parts.append("\n".join([f"{family}: {FAMILIES[family]}", *lines]))
    return "\n\n".join(parts)


def by_family() -> dict[str, list[str]]:
    """Names of methods by family, in the order of FAMILIES; families that are empty are left out."""
    groups = {family: [name for name in methods if methods[name].family == family] for family in FAMILIES}
    return {family: names for family, names in groups.items() if names}


def words(method: type[Method]) -> str:
    """What the method's file says on top: equations, source, deviations."""
    return inspect.getdoc(sys.modules[method.__module__]) or ""


def idea(method: type[Method]) -> str:
    """The method in a sentence: the first line of the class's own words, or of its file's."""
    return _first(method if method.__doc__ else sys.modules[method.__module__])


def hooks(method: type[Method]) -> list[str]:
    """The hooks that the training loop calls and that the method overrides, in the order of `Method`."""
    own = [name for name, value in vars(Method).items() if inspect.isfunction(value) and not name.startswith("_")]
    return [name for name in own if getattr(method, name) is not getattr(Method, name)]


def _logged(quantity: Quantity) -> list[str]:
    unit = f" ({quantity.unit})" if quantity.unit else ""
    said = f"{quantity.name}{unit}: {quantity.caption}"
    return textwrap.wrap(said, WIDTH, break_on_hyphens=False, initial_indent=" " * 4, subsequent_indent=" " * 8)


def _first(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _type(field: FieldInfo) -> str:
    name = field.annotation.__name__ if isinstance(field.annotation, type) else str(field.annotation)
    return name.replace("typing.", "").replace("NoneType", "null")


def _value(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _range(field: FieldInfo) -> str:
    """`, at least 0, below 1`, from the field's constraints."""
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = [(words[k], getattr(one, k)) for one in field.metadata for k in words if getattr(one, k, None) is not None]
    return "".join(f", {word} {bound:g}" for word, bound in found)
