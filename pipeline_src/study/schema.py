"""JSON schemas of params.yaml, resources.yaml and recipes, with every registered plug-in, for editors."""

import json
from pathlib import Path

from pipeline_src.core.registry import Registry
from pipeline_src.datasets.base import datasets
from pipeline_src.media.base import extractors
from pipeline_src.methods.base import methods
from pipeline_src.models.base import encoders, fusions
from pipeline_src.study.named import NAME
from pipeline_src.study.params import DATASET_DEFAULTS, SCHEDULED, Params, Recipe
from pipeline_src.study.resources import Resources
from pipeline_src.study.tuning import ALL, UNIMODAL

FOLDER = Path(__file__).parents[2] / "workflow" / "schemas"
SCHEMAS = {name: FOLDER / f"{name}.schema.json" for name in ("params", "resources", "recipe")}


def params_schema() -> dict:
    """JSON schema of params.yaml with every registered plug-in; kept in workflow/schemas."""
    schema = Params.model_json_schema()
    definitions = schema["$defs"]

    def plugins(registry: Registry) -> list[dict]:
        return _plugin_schemas(registry, definitions)

    schema["properties"]["datasets"]["additionalProperties"] = {"anyOf": [_optional(one) for one in plugins(datasets)]}
    schema["properties"]["recipes"]["additionalProperties"] = {"additionalProperties": {"anyOf": plugins(extractors)}}
    definitions["Model"]["properties"]["encoders"]["additionalProperties"] = {"anyOf": plugins(encoders)}
    blocks = dict(zip(methods, plugins(methods), strict=True))
    for name, block in blocks.items():
        block["properties"] = {"kind": {"const": name}, **block["properties"]}
    kinds = [{"$ref": f"#/properties/methods/properties/{name}"} for name in blocks]
    schema["properties"]["methods"] |= {
        "properties": blocks,
        "additionalProperties": {"required": ["kind"], "anyOf": kinds},
    }
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


def _optional(part: dict) -> dict:
    """The schema of a dataset's block, which may leave out what has a default."""
    for key, value in DATASET_DEFAULTS.items():
        part["properties"][key]["default"] = value
    return {**part, "required": [key for key in part["required"] if key not in DATASET_DEFAULTS]}


def recipe_schema() -> dict:
    """JSON schema of recipes/<name>.yaml."""
    schema = Recipe.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    extraction = {"anyOf": _plugin_schemas(extractors, definitions)}
    schema["properties"]["modalities"]["additionalProperties"] = extraction
    return schema


def schema_text(name: str = "params") -> str:
    """A file of workflow/schemas."""
    made = {"params": params_schema, "resources": Resources.model_json_schema, "recipe": recipe_schema}
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
