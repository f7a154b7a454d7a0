"""The parameters: types, ranges, units and sources. The values stand in params.yaml and, for what jobs ask of the
scheduler, in workflow/resources.yaml, and nowhere else.

`load` reads and checks both files before the first job and reports every mistake in one line each: where it stands,
what was expected, what was found, and the closest name. Blocks of plug-ins (a dataset, a recipe's modality, an
encoder, a method) are checked by the `Params` of the plug-in that they name, so a plug-in brings its parameters with
it.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pipeline_src.core.errors import UserError
from pipeline_src.core.registry import Registry, closest
from pipeline_src.datasets.base import datasets
from pipeline_src.media.base import extractors
from pipeline_src.methods.base import methods
from pipeline_src.models.base import encoders, fusions

WORKFLOW = Path(__file__).parents[2] / "workflow"
SCHEMAS = {name: WORKFLOW / "schemas" / f"{name}.schema.json" for name in ("params", "resources", "recipe")}
RECIPES = WORKFLOW.parent / "recipes"
RESOURCES = "COUNTERPOISE_RESOURCES"  # environment variable: a file to take the place of workflow/resources.yaml
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")  # of datasets, recipes and modalities: they become parts of paths


def _unique(values: list) -> list:
    if len(set(values)) != len(values):
        raise ValueError("expected each value once")
    return values


def _ascending(values: list) -> list:
    if values != sorted(values):
        raise ValueError("expected [low, high]")
    return values


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Study(_Section):
    """What is compared: every dataset with every fusion and method, over every seed."""

    datasets: Annotated[list[str], Field(min_length=1), AfterValidator(_unique)] = Field(
        description="keys of `datasets`"
    )
    fusions: Annotated[list[str], AfterValidator(_unique)] = Field(description="registered fusions")
    methods: Annotated[list[str], AfterValidator(_unique)] = Field(
        description="registered methods; `joint` is the baseline"
    )
    unimodal: bool = Field(description="also train one model per modality, alone")
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_unique)] = Field(
        description="a seed fixes initial weights, batches and augmentation for every method alike"
    )


class Model(_Section):
    """The network. Its fusion is the study's fusion."""

    encoders: dict[str, Any] = Field(description="modality -> {kind: registered encoder, ...}")


class Augmentation(_Section):
    """Random changes to one modality's training batches; evaluation sees the input as it is.

    A mirrored picture of optical flow keeps the sign of its displacements, as in the released code.
    """

    crop_scale: Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ascending)] = Field(
        default=[1.0, 1.0],
        description="frames: share of the area that a random crop keeps; torchvision's default is [0.08, 1]",
    )
    crop_ratio: Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ascending)] = Field(
        default=[1.0, 1.0], description="frames: aspect ratio of the crop; torchvision's default is [0.75, 1.3333]"
    )
    flip: float = Field(default=0.0, ge=0, le=1, description="frames: probability of a horizontal flip")
    roll: int = Field(
        default=0, ge=0, description="spectrograms: largest shift in time, in steps, either way, round the end"
    )


class Training(_Section):
    """One schedule for every run of the study."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1, description="clips")
    optimizer: Literal["sgd", "adamw"]
    lr: float = Field(gt=0, description="learning rate")
    momentum: float = Field(ge=0, lt=1, description="of sgd; published 0.9")
    weight_decay: float = Field(ge=0, description="published 1e-4 (sgd), 1e-2 (adamw)")
    lr_step: int = Field(
        ge=1, description="epochs after which the learning rate is multiplied by `lr_gamma`; published 70 of 100"
    )
    lr_gamma: float = Field(gt=0, le=1, description="published 0.1")
    augmentation: dict[str, Augmentation] = Field(description="modality -> random changes")
    normalize: Literal["train", "imagenet", "none"] = Field(
        description="train: by mean and deviation of the training split (per channel, per feature of a sequence, of a "
        "whole spectrogram); imagenet: pictures of three channels by ImageNet's, as published, and else as none; none: "
        "pictures come to [0, 1], all else stays"
    )
    select: Literal["best_val", "last"] = Field(description="the epoch whose weights are kept; test data never chooses")
    track_test: bool = Field(
        description="also score each epoch on test, only to report the papers' best-test-epoch figure beside ours"
    )
    device: Literal["auto", "cpu", "cuda", "mps"]
    checkpoint_minutes: float = Field(
        default=10,
        ge=0,
        description="within an epoch, time between two checkpoints; one is also made after every epoch",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(description="auto: bf16 on a GPU that has it, else fp32")
    resident_fraction: float = Field(
        ge=0, le=1, description="cache is kept on the device if it fits in this share of its free memory"
    )


class Evaluation(_Section):
    """How a trained model is looked at."""

    batch_size: int = Field(ge=1, description="clips")
    probe_c: float = Field(gt=0, description="inverse strength of the linear probe's L2 penalty")
    probe_iterations: int = Field(ge=1, description="most L-BFGS steps of the linear probe")


class Reporting(_Section):
    """How runs become a table."""

    confidence: float = Field(gt=0.5, lt=1, description="level of the intervals (Student's t over seeds)")


class Tracking(_Section):
    """What becomes of runs in MLflow; changes no result. The store: environment variable MLFLOW_TRACKING_URI."""

    enabled: bool = Field(True, description="mirror runs in MLflow while Snakemake works")
    experiment: str = Field("counterpoise", pattern=r"^[\w .:-]+$", description="MLflow's experiment")


class Stage(_Section):
    """What a job of one stage asks for; what is not said is `default`'s."""

    threads: int | None = Field(
        None,
        ge=1,
        description="CPU cores; of train: also fixes the order of sums, so keep it to repeat a run bit for bit",
    )
    mem_mb: int | None = Field(None, ge=1, description="MB of memory; a retry asks for twice, then three times as much")
    max_mem_mb: int | None = Field(None, ge=1, description="what a retry asks for at most")
    runtime: int | None = Field(None, ge=1, description="minutes; a retry asks for twice, then three times as much")
    max_runtime: int | None = Field(None, ge=1, description="what a retry asks for at most: the partition's limit")
    gpu: int | None = Field(
        None, ge=0, description="GPUs; honoured where the executor or --resources gpu=N knows them; none if not said"
    )
    gpu_model: str | None = Field(None, min_length=1, description="Slurm: kind of GPU, as in --gpus=MODEL:N")
    partition: str | None = Field(None, min_length=1, description="Slurm: the cluster's own default if not said")
    account: str | None = Field(None, min_length=1, description="Slurm: whom to charge")
    constraint: str | None = Field(None, min_length=1, description="Slurm: features of nodes")
    qos: str | None = Field(None, min_length=1, description="Slurm: quality of service")
    sbatch: str | None = Field(None, min_length=1, description="Slurm: further options of sbatch, as typed")

    def job(self) -> dict[str, int | str | Callable]:
        """Snakemake's `resources` of a job, as its Slurm executor names them; memory and time grow with retries."""

        def growing(value: int, most: int | None) -> Callable:
            return lambda wildcards, attempt: min(attempt * value, max(value, most) if most else attempt * value)

        asked = {
            "mem_mb": growing(self.mem_mb, self.max_mem_mb),
            "runtime": growing(self.runtime, self.max_runtime),
            "gpu": self.gpu or 0,
            "gpu_model": self.gpu_model if self.gpu else None,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "constraint": self.constraint,
            "qos": self.qos,
            "slurm_extra": self.sbatch,
        }
        return {name: value for name, value in asked.items() if value is not None}


def _complete(default: Stage) -> Stage:
    if None in (default.threads, default.mem_mb, default.runtime):
        raise ValueError("expected at least threads, mem_mb and runtime")
    return default


class Resources(_Section):
    """workflow/resources.yaml: per stage, what jobs ask of the machine or the cluster; changes no result."""

    seeds_per_job: int = Field(ge=1, description="seeds of one cell that share a process, which pays the imports once")
    cells_per_gpu: int = Field(
        default=1,
        ge=1,
        description="cells on one GPU at a time, each with its share of the memory",
    )
    default: Annotated[Stage, AfterValidator(_complete)] = Field(
        description="of every stage that does not say otherwise"
    )
    fetch: Stage = Stage()
    manifest: Stage = Stage()
    extract: Stage = Stage()
    cache: Stage = Stage()
    train: Stage = Stage()
    evaluate: Stage = Stage()
    aggregate: Stage = Stage()

    def resolved(self) -> "Resources":
        """Every stage complete, with `default` where it says nothing."""
        default = self.default.model_dump()
        stages = (name for name, field in type(self).model_fields.items() if field.annotation is Stage)
        return self.model_copy(
            update={name: Stage(**default | getattr(self, name).model_dump(exclude_none=True)) for name in stages}
        )


LAYOUTS = {"crop_scale": "frames", "crop_ratio": "frames", "flip": "frames", "roll": "spectrogram"}  # of Augmentation


class Recipe(_Section):
    """recipes/<name>.yaml: the preprocessing of a published protocol."""

    source: str = Field(description="paper and released code that the numbers are from")
    choices: list[str] = Field(description="where they contradict each other or leave open: what was chosen and why")
    training: str = Field(description="what of the protocol's preprocessing belongs to the section `training`")
    modalities: dict[str, Any] = Field(description="modality -> {kind: feature extractor, ...}")


class Params(_Section):
    """params.yaml."""

    study: Study
    datasets: dict[str, Any] = Field(
        description="name -> {kind: registered dataset, ...}; a kind may stand under several names"
    )
    recipes: dict[str, dict[str, Any]] = Field(
        default={},
        description="name-version -> modality -> {kind: feature extractor, ...}, beside those of the folder recipes/",
    )
    model: Model
    training: Training
    methods: dict[str, Any] = Field(
        default={}, description="parameters of each method, by name; its published defaults otherwise"
    )
    evaluation: Evaluation
    reporting: Reporting
    tracking: Tracking = Tracking()


class Settings(Params):
    """params.yaml, and beside it what changes no result."""

    resources: Resources


def load(file: str | Path, resources: str | Path | None = None) -> Settings:
    """Read and check a params file and a resources file (if none is given, the one that the environment variable
    COUNTERPOISE_RESOURCES names, else workflow/resources.yaml). Raises UserError with one line per mistake.
    """
    values, mistakes = _read(Path(file), Params, "params")
    params = mistakes.checked(Params, values, ())
    blocks = _check_plugins(values, mistakes)
    if params is not None:
        named = {block.recipe for block in blocks["datasets"].values() if block is not None}
        blocks["recipes"] |= {name: recipe(name).modalities for name in sorted(named & set(shipped_recipes()))}
        model = params.model.model_copy(update={"encoders": blocks.pop("encoders")})
        params = params.model_copy(update={**blocks, "model": model})
        _check_references(params, mistakes)
    mistakes.raise_if_any()
    return Settings.model_construct(**dict(params), resources=load_resources(resources))


def shipped_recipes() -> list[str]:
    """Names of the recipes in the folder recipes/."""
    return sorted(file.stem for file in RECIPES.glob("*.yaml"))


def recipe(name: str) -> Recipe:
    """Read and check a recipe of the folder recipes/, as `load` does; its modalities are the extractors' Params."""
    values, mistakes = _read(RECIPES / f"{name}.yaml", Recipe, "recipe")
    found = mistakes.checked(Recipe, values, ())
    blocks = {}
    if found is not None:
        _check_names(found.modalities, mistakes, ("modalities",))
        blocks = {m: _block(extractors, v, mistakes, ("modalities", m)) for m, v in found.modalities.items()}
    mistakes.raise_if_any()
    return found.model_copy(update={"modalities": blocks})


def load_resources(file: str | Path | None = None) -> Resources:
    """Read and check a resources file, as `load` does; every stage is complete."""
    file = Path(file or os.environ.get(RESOURCES) or WORKFLOW / "resources.yaml")
    values, mistakes = _read(file, Resources, "resources")
    resources = mistakes.checked(Resources, values, ())
    if resources is not None:
        resources = resources.resolved()
        for name in ("gpu_model", "partition", "account", "constraint", "qos", "sbatch"):
            train, evaluate = getattr(resources.train, name), getattr(resources.evaluate, name)
            if train != evaluate and None not in (train, evaluate):
                what = f"expected train's {train!r}, as both share jobs (group `cells`), but got {evaluate!r}"
                mistakes.add(("evaluate", name), what)
    mistakes.raise_if_any()
    return resources


def _read(file: Path, model: type[BaseModel], noun: str) -> tuple[dict, "_Mistakes"]:
    """A YAML file's values, and where to note mistakes in them."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: expected a readable {noun} file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: expected UTF-8, but got {error.reason} at byte {error.start}") from error
    try:
        root = yaml.compose(text, Loader=_Loader)
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        what = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{where}: not valid YAML: {what}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected sections ({', '.join(model.model_fields)}), but got {_shown(values)}")
    return values, _Mistakes(file, root)


def schema() -> dict:
    """JSON schema of params.yaml with every registered plug-in; kept in workflow/schemas."""
    schema = Params.model_json_schema()
    definitions = schema["$defs"]

    def plugins(registry: Registry) -> list[dict]:
        return _plugin_schemas(registry, definitions)

    schema["properties"]["datasets"]["additionalProperties"] = {"anyOf": plugins(datasets)}
    schema["properties"]["recipes"]["additionalProperties"] = {"additionalProperties": {"anyOf": plugins(extractors)}}
    definitions["Model"]["properties"]["encoders"]["additionalProperties"] = {"anyOf": plugins(encoders)}
    schema["properties"]["methods"] |= {
        "properties": dict(zip(methods, plugins(methods), strict=True)),
        "additionalProperties": False,
    }
    definitions["Study"]["properties"]["methods"]["items"] = {"enum": list(methods)}
    definitions["Study"]["properties"]["fusions"]["items"] = {"enum": list(fusions)}
    return schema


def recipe_schema() -> dict:
    """JSON schema of recipes/<name>.yaml."""
    schema = Recipe.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    extraction = {"anyOf": _plugin_schemas(extractors, definitions)}
    schema["properties"]["modalities"]["additionalProperties"] = extraction
    return schema


def schema_text(name: str = "params") -> str:
    """A file of workflow/schemas."""
    made = {"params": schema, "resources": Resources.model_json_schema, "recipe": recipe_schema}
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


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number, as YAML 1.2 does, and refuses a key that stands twice."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
        seen.add(str(key.value))
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


class _Mistakes:
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


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _said(error: dict, model: type[BaseModel]) -> str:
    """A pydantic error as `expected ..., but got ...`."""
    found = _shown(error["input"])
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


def _check_plugins(values: dict, mistakes: _Mistakes) -> dict[str, dict]:
    """Every plug-in's block of the file, by section, as the plug-in's own, checked Params."""

    def section(*place: str) -> dict:
        found: Any = values
        for part in place:
            found = found.get(part) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}  # what is no block has been noted

    _check_names(section("datasets"), mistakes, ("datasets",))
    _check_names(section("recipes"), mistakes, ("recipes",))
    for name in section("recipes"):
        _check_names(section("recipes", name), mistakes, ("recipes", name))
        if name in shipped_recipes():
            what = f"expected another name: {RECIPES.name}/{name}.yaml is the published recipe of this one"
            mistakes.add(("recipes", name), what)

    def block(registry: Registry, found: Any, place: tuple, default_kind: str | None = None) -> Any:
        return _block(registry, found, mistakes, place, default_kind)

    checked_methods = {}
    studied = section("study").get("methods")
    studied = [name for name in studied if isinstance(name, str)] if isinstance(studied, list) else []
    for name in dict.fromkeys([*section("methods"), *studied, "joint"]):
        if name in methods:
            found = section("methods").get(name)
            checked_methods[name] = mistakes.checked(
                methods[name].Params, {} if found is None else found, ("methods", name)
            )
        elif name in section("methods"):
            mistakes.add(("methods", name), methods.unknown(name))
    return {
        "datasets": {name: block(datasets, v, ("datasets", name), name) for name, v in section("datasets").items()},
        "recipes": {
            name: {m: block(extractors, v, ("recipes", name, m)) for m, v in section("recipes", name).items()}
            for name in section("recipes")
        },
        "encoders": {m: block(encoders, v, ("model", "encoders", m)) for m, v in section("model", "encoders").items()},
        "methods": checked_methods,
    }


def _block(registry: Registry, found: Any, mistakes: _Mistakes, place: tuple, default_kind: str | None = None) -> Any:
    """One plug-in's block as its own Params, or None after noting what is wrong with it."""
    if not isinstance(found, dict):
        return mistakes.add(place, f"expected a block of keys, but got {_shown(found)}")
    kind = found.get("kind", default_kind)
    if kind is None:
        return mistakes.add(place, f"expected `kind`, a registered {registry.noun}{closest('', registry)}")
    if kind not in registry:
        return mistakes.add((*place, "kind") if "kind" in found else place, registry.unknown(kind))
    return mistakes.checked(registry[kind].Params, {**found, "kind": kind}, place)


def _check_names(names, mistakes: _Mistakes, place: tuple) -> None:
    for name in names:
        if not NAME.fullmatch(str(name)):
            mistakes.add((*place, name), "expected a name of small letters, digits, '.', '_' and '-'")


def _check_references(params: Params, mistakes: _Mistakes) -> None:
    """Names that one section uses must be there in another."""
    for axis, registry in (("fusions", fusions), ("methods", methods)):
        for i, name in enumerate(getattr(params.study, axis)):
            if name not in registry:
                mistakes.add(("study", axis, i), registry.unknown(name))
    for method in params.study.methods:
        refusals = {}  # one that holds for several fusions or datasets is said once
        for fusion in params.study.fusions:
            for name in params.study.datasets:
                block = params.datasets.get(name)
                if method in methods and fusion in fusions and params.methods.get(method) and block is not None:
                    count = len(datasets[block.kind].modalities)
                    why = methods[method].refuses(params.methods[method], fusion, count, params.training.epochs)
                    refusals[why] = None
        for why in filter(None, refusals):
            mistakes.add(("methods", method), why)
    if not params.study.unimodal and not (params.study.fusions and params.study.methods):
        mistakes.add(("study",), "expected fusions and methods, or unimodal: true, but got nothing to train")
    for i, name in enumerate(params.study.datasets):
        if name not in params.datasets:
            mistakes.add(
                ("study", "datasets", i),
                f"expected a key of `datasets`, but got {name!r}{closest(name, params.datasets)}",
            )
            continue
        block = params.datasets[name]
        if block is None:
            continue
        if block.recipe not in params.recipes:
            known = {*params.recipes, *shipped_recipes()}
            what = f"expected a recipe, but got {block.recipe!r}{closest(block.recipe, known)}"
            mistakes.add(("datasets", name, "recipe"), what)
            continue
        for modality in datasets[block.kind].modalities:
            lacking = False
            for place in (("recipes", block.recipe), ("model", "encoders"), ("training", "augmentation")):
                known = params
                for part in place:
                    known = known[part] if isinstance(known, dict) else getattr(known, part)
                if modality not in known:
                    lacking = True
                    what = f"expected a block for the modality {modality!r} of the dataset {name!r}, but got none"
                    mistakes.add(place, what)
            if not lacking:
                _check_layout(params, params.recipes[block.recipe][modality], modality, mistakes)


def _check_layout(params: Params, recipe: Any, modality: str, mistakes: _Mistakes) -> None:
    """A modality's encoder and augmentation must suit what its extractor gives."""
    encoder, augmentation = params.model.encoders[modality], params.training.augmentation[modality]
    if recipe is None or encoder is None:
        return
    extractor = extractors[recipe.kind](recipe)
    why = encoders[encoder.kind].refuses(encoder, extractor)
    if why:
        mistakes.add(("model", "encoders", modality), why)
    still = Augmentation()
    for name, layout in LAYOUTS.items():
        if getattr(augmentation, name) != getattr(still, name) and extractor.layout != layout:
            what = f"expected it for modalities of layout {layout!r} alone, but it is for {extractor.layout!r}"
            mistakes.add(("training", "augmentation", modality, name), what)
