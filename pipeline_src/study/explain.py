"""What a method, a fusion or an encoder is, from its own file: equation, source and deviations, parameters, the hooks
that a method uses, and what a fusion asks of encoders and methods.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_src.core.errors import UserError, brief
from pipeline_src.core.registry import closest
from pipeline_src.methods.base import FAMILIES, Method, Quantity, Setting, methods
from pipeline_src.models.base import FusionFacts, encoders, fusion_facts, fusions
from pipeline_src.study.config import load
from pipeline_src.tasks.base import tasks

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from pipeline_src.core.params import Section

WIDTH = 100
EPOCHS = 1000  # long enough for every method
LEFT_OUT = {"pdmp": "(arXiv:2604.05773) is left out until the constants by which it scales gradients are published"}


def explain(name: str, file: str | Path = "") -> str:
    """The plug-in's own words, also of a method under a name of its own in the params file `file`, if there is one.

    Raises UserError, with the closest name, if there is none of that name.
    """
    if name in methods:
        return _method(name)
    if name in fusions:
        return _fusion(name)
    if name in encoders:
        return _encoder(name)
    if name in tasks:
        return _task(name)
    if name in LEFT_OUT:
        raise UserError(f"{name} {LEFT_OUT[name]}")
    own = load(file) if file and Path(file).is_file() else None
    if own is not None and name in own.kinds:
        given = ", ".join(f"{key}: {getattr(own.methods[name], key)}" for key in own.methods[name].model_fields_set)
        return f"{name}: {own.kinds[name]} with {given or 'its defaults'} ({file}).\n\n{_method(own.kinds[name])}"
    known = closest(name, sorted({*methods, *fusions, *encoders, *tasks, *(own.kinds if own is not None else [])}))
    raise UserError(f"expected a registered method, fusion, encoder or task, but got {brief(name)}{known}")


def _method(name: str) -> str:
    method = methods[name]
    lines = [f"{name}: {idea(method)}", f"Family: {method.family} ({FAMILIES[method.family]}).", ""]
    lines += [words(method), ""]
    lines += _parameters(method.Params, "methods")
    lines += ["", "Logs, by epoch:" if method.quantities else "It logs nothing but the loss."]
    for quantity in method.quantities:
        lines += _logged(quantity)
    used = hooks(method)
    lines += ["", "Hooks in which it differs from joint training:" if used else "Plain joint training (baseline)."]
    lines += [f"    {hook:<16}  {_first(getattr(Method, hook))}" for hook in used]
    return "\n".join([*lines, "", f"File: {inspect.getsourcefile(method)}"])


def _fusion(name: str) -> str:
    """Its words, what it asks of encoders, and the methods that refuse it with their defaults and two modalities."""
    fusion, facts = fusions[name], fusion_facts(name)
    unimodal = {
        "terms": "terms of the joint logits (exact)",
        "classifiers": "those of a classifier on each modality's features",
        "removal": "the prediction with the other modalities' features set to zero",
    }
    lines = [f"{name}: {idea(fusion)}", "", words(fusion), ""]
    lines += [f"Unimodal logits: {unimodal[facts.unimodal_by()]}.", f"Encoders: {_asks(facts)}."]
    refused: dict[str, list[str]] = {}
    for method in methods:
        plugin = methods[method]
        if why := plugin.refuses(plugin.Params(), Setting(("a", "b"), name, EPOCHS)):
            refused.setdefault(why, []).append(method)
    lines += ["", "Methods that refuse it:" if refused else "Every method takes it."]
    for why, names in refused.items():
        lines += textwrap.wrap(f"{', '.join(names)}: {why}", WIDTH, initial_indent="    ", subsequent_indent=" " * 8)
    return "\n".join([*lines, "", f"File: {inspect.getsourcefile(fusion)}"])


def _task(name: str) -> str:
    """Its words, its metrics, and the methods that refuse it with their defaults and any fusion of two modalities."""
    task = tasks[name]
    lines = [f"{name}: {_first(sys.modules[task.__module__])}", "", words(task), "", "Metrics, the primary one first:"]
    for metric in task.metrics:
        unit = {"%": "percent", "": "a number"}.get(metric.unit, metric.unit)
        lines.append(f"    {metric.label:<18}  {metric.caption} ({unit}{'' if metric.higher else '; lower is better'})")
    refused: dict[str, list[str]] = {}
    for method in methods:
        plugin = methods[method]
        settings = [Setting(("a", "b"), fusion, EPOCHS, name) for fusion in fusions]
        reasons = [plugin.refuses(plugin.Params(), setting) for setting in settings]
        if None not in reasons:
            why = next(why for why in reasons if why and name in why)
            refused.setdefault(why, []).append(method)
    lines += ["", "Methods that refuse it:" if refused else "Every method takes it."]
    for why, names in refused.items():
        lines += textwrap.wrap(f"{', '.join(names)}: {why}", WIDTH, initial_indent="    ", subsequent_indent=" " * 8)
    return "\n".join([*lines, "", f"File: {inspect.getsourcefile(task)}"])


def _asks(facts: type[FusionFacts]) -> str:
    """What a fusion does with encoders, in words."""
    if not facts.taps:
        return "any; it sees their features alone"
    does = " and ".join(word for word, done in (("reads", facts.reads), ("writes", facts.writes)) if done)
    taps = f"the last {facts.taps} taps" if facts.taps > 1 else "the last tap"
    of = "of steps, of one width" if facts.steps else "with taps"
    least = f", {facts.least_taps} or more" if facts.least_taps > 1 else ""
    return f"{of}{least}; it {does} the states at {taps}"


def _encoder(kind: str) -> str:
    encoder = encoders[kind]
    lines = [f"{kind}: {_first(encoder)}", "", words(encoder), "", f"Reads: {', '.join(encoder.layouts)}.", ""]
    lines += _parameters(encoder.Params, "model.encoders")
    return "\n".join([*lines, "", f"File: {inspect.getsourcefile(encoder)}"])


def _parameters(params: type[Section], where: str) -> list[str]:
    """Each parameter with type, default, range and description."""
    lines = [f"Parameters, under {where} in params.yaml:" if params.model_fields else "No parameters."]
    for key, field in params.model_fields.items():
        default = "required" if field.is_required() else f"default {_value(field.default)}"
        lines += ["", f"    {key}: {_type(field)}, {default}{_range(field)}"]
        lines += textwrap.wrap(field.description or "", WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return lines


def models() -> str:
    """Every fusion and every encoder in a line."""
    width = max(map(len, [*fusions, *encoders]))
    parts = []
    for what, said in (
        ("fusions", {name: idea(fusions[name]) for name in fusions}),
        ("encoders", {kind: _first(encoders[kind]) for kind in encoders}),
    ):
        parts.append("\n".join([f"{what}:", *(f"  {name:<{width}}  {line}" for name, line in said.items())]))
    return "\n\n".join(parts)


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


def words(plugin: type) -> str:
    """Equations, source and deviations: what the class says of itself if that is more than a line, else its file."""
    own = inspect.getdoc(plugin) or "" if plugin.__doc__ else ""
    return own if "\n\n" in own else inspect.getdoc(sys.modules[plugin.__module__]) or ""


def idea(plugin: type) -> str:
    """A method or fusion in a sentence: the first line of the class's own words, or of its file's."""
    return _first(plugin if plugin.__doc__ else sys.modules[plugin.__module__])


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
