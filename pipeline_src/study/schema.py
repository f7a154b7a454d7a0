"""JSON schemas of params.yaml, resources.yaml and recipes, with every registered plug-in, for editors."""

import json
from pathlib import Path
from typing import Any

from pipeline_src.core.registry import Registry
from pipeline_src.corruptions.base import corruptions
from pipeline_src.datasets.base import datasets
from pipeline_src.media.base import extractors
from pipeline_src.methods.base import methods
from pipeline_src.models.base import encoders, fusions
from pipeline_src.observers.base import observers
from pipeline_src.study.extends import KEY
from pipeline_src.study.named import NAME
from pipeline_src.study.params import SCHEDULED, Params, Recipe
from pipeline_src.study.resources import Resources
from pipeline_src.study.tuning import ALL, UNIMODAL

FOLDER = Path(__file__).parents[2] / "workflow" / "schemas"
SCHEMAS = {name: FOLDER / f"{name}.schema.json" for name in ("params", "extending", "resources", "recipe")}


def params_schema() -> dict:
    """JSON schema of params.yaml with every registered plug-in; kept in workflow/schemas."""
    schema = Params.model_json_schema()
    definitions = schema["$defs"]

    def plugins(registry: Registry) -> list[dict]:
        return _plugin_schemas(registry, definitions)

    schema["properties"]["datasets"]["additionalProperties"] = {"anyOf": plugins(datasets)}
    schema["properties"]["recipes"]["additionalProperties"] = {"additionalProperties": {"anyOf": plugins(extractors)}}
    definitions["Model"]["properties"]["encoders"]["additionalProperties"] = {"anyOf": plugins(encoders)}
    blocks = dict(zip(methods, plugins(methods), strict=True))
    for name, block in blocks.items():
        definitions[f"method-{name}"] = {**block, "properties": {"kind": {"const": name}, **block["properties"]}}
    kinds = {name: {"$ref": f"#/$defs/method-{name}"} for name in blocks}
    schema["properties"]["methods"] |= {
        "properties": kinds,
        "additionalProperties": {"required": ["kind"], "anyOf": [*kinds.values()]},
    }
    rates = definitions["Augmentation"]["properties"]["corruption"]
    rates["propertyNames"] = {"enum": list(corruptions)}
    spoiling = definitions["Evaluation"]["properties"]["corruptions"]
    for section, registry in ((schema["properties"]["observers"], observers), (spoiling, corruptions)):
        section |= {"properties": dict(zip(registry, plugins(registry), strict=True)), "additionalProperties": False}
    own = {"type": "string", "pattern": f"^{NAME.pattern}$"}  # a key of `methods` with a kind
    definitions["Study"]["properties"]["methods"]["items"] = {"anyOf": [{"enum": list(methods)}, own]}
    given = {key: definitions["Training"]["properties"][key] for key in SCHEDULED}
    schedule = {"properties": given, "additionalProperties": False}
    schema["properties"]["schedules"]["additionalProperties"] |= schedule
    definitions["Study"]["properties"]["fusions"]["items"] = {"enum": list(fusions)}
    definitions["Tuning"]["properties"]["spaces"]["propertyNames"] = {
        "anyOf": [{"enum": [ALL, UNIMODAL, *methods]}, own]
    }
    return schema


def extending_schema() -> dict:
    """JSON schema of a params file that extends another: nothing else is required, and null removes."""
    schema = _partial(params_schema())
    schema["properties"][KEY] = {"type": "string", "description": Params.model_fields[KEY].description}
    return {**schema, "required": [KEY]}


def _partial(schema: Any) -> Any:
    """A schema of blocks that may leave out any key, and have null in its place."""
    if isinstance(schema, list):
        return [_partial(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _partial(value) for key, value in schema.items() if key not in ("required", "properties")}
    if "properties" in schema:
        made["properties"] = {key: _or_null(_partial(value)) for key, value in schema["properties"].items()}
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = _or_null(made["additionalProperties"])
    return made


def _or_null(schema: dict) -> dict:
    return {"anyOf": [schema, {"type": "null"}]}


def recipe_schema() -> dict:
    """JSON schema of recipes/<name>.yaml."""
    schema = Recipe.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    extraction = {"anyOf": _plugin_schemas(extractors, definitions)}
    schema["properties"]["modalities"]["additionalProperties"] = extraction
    return schema


def schema_text(name: str = "params") -> str:
    """A file of workflow/schemas."""
    made = {
        "params": params_schema,
        "extending": extending_schema,
        "resources": Resources.model_json_schema,
        "recipe": recipe_schema,
    }
    return json.dumps(made[name](), indent=2) + "\n"


def _plugin_schemas(registry: Registry, definitions: dict) -> list[dict]:
    found = []
    for name in registry:
        part = registry[name].Params.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(part.pop("$defs", {}))
        if "kind" in part["properties"]:
            part["properties"]["kind"] = {"const": name}
            part["required"] = [key for key in part.get("required", []) if key != "kind"]
        found.append({**part, "title": name})
    return found
