"""From params.yaml to checked parameters.

`load` reads params.yaml and the resources file before the first job and reports every mistake in one line each: where
it is, what was expected, what was given, and the closest name. Blocks of plug-ins (a dataset, a recipe's modality, an
encoder, a method) are checked by the `Params` of the plug-in that they name, so a plug-in brings its parameters with
it.
"""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline_src.core import plugins
from pipeline_src.core.errors import UserError, brief
from pipeline_src.core.registry import Registry, closest
from pipeline_src.datasets.base import Dataset, datasets
from pipeline_src.media.base import extractors
from pipeline_src.methods.base import Setting, methods
from pipeline_src.models.base import encoders, fusion_refuses, fusions
from pipeline_src.reports.papers import items
from pipeline_src.study import corrupted, extends, grids, named, observed, schedules, tuning, varied, yaml
from pipeline_src.study import resources as requests
from pipeline_src.study.named import NAME
from pipeline_src.study.params import Network, Params, Recipe, Settings
from pipeline_src.study.yaml import Mistakes, shown
from pipeline_src.tasks.segments import cut_shape
from pipeline_src.training.params import LAYOUTS, Augmentation

RECIPES = Path(__file__).parents[2] / "recipes"


def load(file: str | Path, resources: str | Path | None = None) -> Settings:
    """Read and check a params file, with those that it extends, and a resources file (if none is given, the one that
    the environment variable COUNTERPOISE_RESOURCES names, else workflow/resources.yaml). Raises UserError with one line
    per mistake.
    """
    values, mistakes, extended = extends.read(Path(file))
    _add_plugins(values, mistakes)
    params = mistakes.checked(Params, values, ())
    blocks = _check_plugins(values, mistakes)
    if params is not None:
        named = {block.recipe for block in blocks["datasets"].values() if block is not None}
        blocks["recipes"] |= {name: recipe(name).modalities for name in sorted(named & set(shipped_recipes()))}
        model = Network.model_construct(**{**dict(params.model), "encoders": blocks.pop("encoders")})
        evaluation = params.evaluation.model_copy(update={"corruptions": blocks.pop("corruptions")})
        every = {**dict(params), **blocks, "model": model, "evaluation": evaluation}
        settings = Settings.model_construct(**every)
        schedules.check(settings, mistakes)
        _check_references(settings, mistakes)
        tuning.check(settings, mistakes)
        settings = settings.model_copy(update={"training": settings.training.resolved()})
        settings = schedules.expanded(grids.expanded(settings, mistakes), mistakes)
    mistakes.raise_if_any()
    asked = requests.load(resources)
    _check_gpus(settings, asked, mistakes)
    mistakes.raise_if_any()
    return settings.model_copy(update={"resources": asked, "extended": extended})


def _check_gpus(params: Settings, asked: requests.Resources, mistakes: Mistakes) -> None:
    """Whether runs can be trained on several GPUs together, as far as the files tell."""
    t, got = params.training, f"but got {params.training.gpus}"
    if t.gpus == 1:
        return
    smallest = min(each.batch_size for each in params.trainings().values())
    for wrong, expected in (
        (t.device == "mps", "1 with device: mps, which has one GPU"),
        (t.compile != "none", f"1 with compile: {t.compile}, which compiles whole batches"),
        (t.gpus > smallest, f"at most the clips of a batch, {smallest}"),
        (asked.cells_per_gpu > 1, f"1 where GPUs are shared (cells_per_gpu: {asked.cells_per_gpu})"),
    ):
        if wrong:
            mistakes.add(("training", "gpus"), f"expected {expected}, {got}")


def _add_plugins(values: dict, mistakes: Mistakes) -> None:
    """Make the folders of `plugins` known before their plug-ins are looked up."""
    folders = values.get("plugins")
    for i, folder in enumerate(folders if isinstance(folders, list) else []):
        if isinstance(folder, str):
            try:
                plugins.add(folder)
            except (ValueError, OSError) as error:
                mistakes.add(("plugins", i), f"{error}, but got {shown(folder)}")


def shipped_recipes() -> list[str]:
    """Names of the recipes in the folder recipes/."""
    return sorted(file.stem for file in RECIPES.glob("*.yaml"))


def recipe(name: str) -> Recipe:
    """Read and check a recipe of the folder recipes/, as `load` does; its modalities are the extractors' Params."""
    values, mistakes = yaml.read(RECIPES / f"{name}.yaml", Recipe, "recipe")
    found = mistakes.checked(Recipe, values, ())
    blocks = {}
    if found is not None:
        _check_names(found.modalities, mistakes, ("modalities",))
        blocks = {m: _block(extractors, v, mistakes, ("modalities", m)) for m, v in found.modalities.items()}
    mistakes.raise_if_any()
    return found.model_copy(update={"modalities": blocks})


def _check_plugins(values: dict, mistakes: Mistakes) -> dict[str, dict]:
    """Every plug-in's block of the file, by section, as the plug-in's own, checked Params."""

    def section(*place: str) -> dict:
        found: Any = values
        for part in place:
            found = found.get(part) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}  # what is no block has been noted

    _check_names(section("datasets"), mistakes, ("datasets",))
    _check_names(section("recipes"), mistakes, ("recipes",))
    _check_names(section("schedules"), mistakes, ("schedules",))
    for name in section("grids"):
        _check_names(section("grids", name), mistakes, ("grids", name))
        for axis in section("grids", name):
            _check_names(section("grids", name, axis), mistakes, ("grids", name, axis))
    for name in section("recipes"):
        _check_names(section("recipes", name), mistakes, ("recipes", name))
        if name in shipped_recipes():
            what = f"expected another name: {RECIPES.name}/{name}.yaml is the published recipe of this one"
            mistakes.add(("recipes", name), what)

    def block(registry: Registry, found: Any, place: tuple, default_kind: str | None = None) -> Any:
        return _block(registry, found, mistakes, place, default_kind)

    studied = section("study").get("methods")
    studied = [name for name in studied if isinstance(name, str)] if isinstance(studied, list) else []
    checked_methods, kinds = named.checked(section("methods"), studied, mistakes)
    return {
        "datasets": {name: block(datasets, v, ("datasets", name), name) for name, v in section("datasets").items()},
        "recipes": {
            name: {m: block(extractors, v, ("recipes", name, m)) for m, v in section("recipes", name).items()}
            for name in section("recipes")
        },
        "encoders": {m: block(encoders, v, ("model", "encoders", m)) for m, v in section("model", "encoders").items()},
        "methods": checked_methods,
        "kinds": kinds,
        "observers": observed.checked(section("observers"), mistakes),
        "corruptions": corrupted.checked(section("evaluation", "corruptions"), mistakes),
    }


def _block(registry: Registry, found: Any, mistakes: Mistakes, place: tuple, default_kind: str | None = None) -> Any:
    """One plug-in's block as its own Params, or None after noting what is wrong with it."""
    if not isinstance(found, dict):
        return mistakes.add(place, f"expected a block of keys, but got {shown(found)}")
    kind = found.get("kind", default_kind)
    if kind is None:
        return mistakes.add(place, f"expected `kind`, a registered {registry.noun}{closest('', registry)}")
    if kind not in registry:
        return mistakes.add((*place, "kind") if "kind" in found else place, registry.unknown(kind))
    return mistakes.checked(registry[kind].Params, {**found, "kind": kind}, place)


def _check_names(names: Iterable[object], mistakes: Mistakes, place: tuple) -> None:
    for name in names:
        if not NAME.fullmatch(str(name)):
            mistakes.add((*place, name), "expected a name of at most 64 small letters, digits, '.', '_' and '-'")


def _check_fusions(params: Settings, mistakes: Mistakes) -> None:
    """Each fusion must suit each dataset's number of modalities and their encoders."""
    for i, fusion in enumerate(params.study.fusions):
        for name in params.study.datasets:
            block = params.datasets.get(name)
            modalities = datasets[block.kind](block).modalities if block is not None else ()
            network = {m: params.model.encoders.get(m) for m in modalities}
            if network and all(network.values()) and fusion in fusions and (why := fusion_refuses(fusion, network)):
                mistakes.add(("study", "fusions", i), f"{why} (dataset {name!r})")


def _check_references(params: Settings, mistakes: Mistakes) -> None:
    """Names that one section uses must be there in another."""
    for i, name in enumerate(params.study.fusions):
        if name not in fusions:
            mistakes.add(("study", "fusions", i), fusions.unknown(name))
    for i, name in enumerate(params.study.methods):
        if name not in params.kinds and name not in params.methods:
            known = [*methods, *(own for own in params.kinds if own not in methods)]
            what = f"expected a registered method, but got {brief(name)}{closest(name, known)}"
            mistakes.add(("study", "methods", i), what)
    _check_fusions(params, mistakes)
    varied.check(params, mistakes)
    observed.check(params, mistakes)
    corrupted.check(params, mistakes)
    gpus = params.training.gpus
    epochs = dict.fromkeys(training.epochs for training in params.trainings().values())
    for i, method in enumerate(params.study.methods):
        refusals = {}  # one that holds for several fusions or datasets is said once
        for fusion, name in itertools.product(params.study.fusions, params.study.datasets):
            block, own = params.datasets.get(name), params.methods.get(method)
            if own is not None and fusion in fusions and block is not None:
                dataset = datasets[block.kind](block)
                for count in epochs:
                    frozen = params.model.frozen(dataset.modalities)
                    setting = Setting(tuple(dataset.modalities), fusion, count, dataset.task, frozen, gpus)
                    refusals[methods[params.kinds[method]].refuses(own, setting)] = None
        for why in filter(None, refusals):
            own = ("methods", method)  # a block that no file has is not where the mistake is
            mistakes.add(own if mistakes.where(own) else ("study", "methods", i), why)
    for i, name in enumerate(params.reproduces):
        if name not in items():
            what = f"expected a table or figure of reports/papers.yaml, but got {brief(name)}{closest(name, items())}"
            mistakes.add(("reproduces", i), what)
    if not params.study.unimodal and not (params.study.fusions and params.study.methods):
        mistakes.add(("study",), "expected fusions and methods, or unimodal: true, but got nothing to train")
    for i, name in enumerate(params.study.datasets):
        if name not in params.datasets:
            mistakes.add(
                ("study", "datasets", i),
                f"expected a key of `datasets`, but got {brief(name)}{closest(name, params.datasets)}",
            )
            continue
        block = params.datasets[name]
        if block is None:
            continue
        if block.recipe not in params.recipes:
            known = {*params.recipes, *shipped_recipes()}
            what = f"expected a recipe, but got {brief(block.recipe)}{closest(block.recipe, known)}"
            mistakes.add(("datasets", name, "recipe"), what)
            continue
        dataset = datasets[block.kind](block)
        for modality in dataset.modalities:
            lacking = False
            for place in (("recipes", block.recipe), ("model", "encoders"), ("training", "augmentation")):
                known = params
                for part in place:
                    known = known[part] if isinstance(known, dict) else getattr(known, part)
                if modality not in known:
                    lacking = True
                    what = f"expected a block for the modality {modality!r} of the dataset {name!r}, but got none"
                    mistakes.add(place, what)
            extractor = params.recipes[block.recipe].get(modality)
            if dataset.spans and extractor is not None and not extractors[extractor.kind].parts:
                readers = [kind for kind in extractors if extractors[kind].parts]
                what = f"expected an extractor that reads a part of a file ({', '.join(readers)}), but got"
                mistakes.add(("datasets", name, "recipe"), f"{what} {extractor.kind!r} for {modality!r}")
            if not lacking:
                _check_layout(params, params.recipes[block.recipe][modality], modality, mistakes)
                _check_segments(params, name, dataset, modality, mistakes)


def _check_segments(params: Settings, name: str, dataset: Dataset, modality: str, mistakes: Mistakes) -> None:
    """What a modality's extractor gives must be cut into the dataset's segments, which the encoder may read in turn."""
    recipe = params.recipes[params.datasets[name].recipe][modality]
    encoder = params.model.encoders[modality]
    if recipe is None or encoder is None:
        return
    extractor, wanted = extractors[recipe.kind](recipe), getattr(encoder, "segments", None)
    if wanted is not None and wanted != dataset.segments:
        got = dataset.segments or "one label per sample"
        what = f"expected a dataset of {wanted} segments for encoder {encoder.kind!r}, but got {got} ({name!r})"
        mistakes.add(("model", "encoders", modality), what)
    if dataset.segments:
        try:
            cut_shape(modality, extractor.layout, tuple(extractor.shape), dataset.segments)
        except UserError as error:
            mistakes.add(("datasets", name, "recipe"), f"{error}")


def _check_layout(params: Settings, recipe: Any, modality: str, mistakes: Mistakes) -> None:
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
