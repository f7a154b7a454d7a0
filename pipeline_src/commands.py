"""What the sub-commands of the command line do, each in a function of its name; its docstring is the command's help.

A stage is given the path of its output, as the plan made from params.yaml names it, and finds all else by it. Imports
of a stage stay in its function: they are seconds, and no stage pays for another's.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_src import shell
from pipeline_src.core.errors import UserError
from pipeline_src.training.interrupt import StoppedError

if TYPE_CHECKING:
    from pipeline_src.study.params import Settings
    from pipeline_src.study.plan import Plan, Run

PARAMS = "params.yaml"


def _targets(options: argparse.Namespace) -> list[Any]:
    """What the plan has at the targets; all that the stage has in the plan if none is named."""
    from pipeline_src.study.plan import Plan

    plan = Plan(options.params, fresh=options.stage != "cache" or not options.target)
    targets = [options.target] if isinstance(options.target, str) else options.target
    return [plan.at(options.stage, target) for target in targets] if targets else plan.all(options.stage)


def new(options: argparse.Namespace) -> None:
    """Write a start that runs: a study of your own files, a method or an encoder with its test, or another study."""
    from pipeline_src.study.new import new as start

    print("Next:", *start(options.kind, options.name, options.folder), sep="\n  ")


def _named(options: argparse.Namespace, name: str) -> tuple[Plan, str]:
    """The plan with a dataset, of the params file or else of a shipped study, and a sentence on the latter."""
    from pipeline_src.study import shipped
    from pipeline_src.study.plan import Plan

    if options.folder is None and (options.params != PARAMS or Path(PARAMS).exists()):
        plan = Plan(options.params)
        if options.params != PARAMS or name in {*plan.datasets, *map(plan.params.stored, plan.datasets)}:
            return plan, ""
    return shipped.plan(name, options.folder)


def fetch(options: argparse.Namespace) -> None:
    """Fetch a published dataset's files, or say what to put where; generate or convert raw media."""
    from pipeline_src.datasets import fetch as fetching
    from pipeline_src.study.plan import Plan

    if options.target is None or "/" in options.target:
        for data in _targets(options):
            fetching.fetch(data)
        for name, data in Plan(options.params).datasets.items() if options.target is None else ():
            if not data.fetched:
                print(f"{name}: read where it is, in {data.raw}; `fetch {name}` says what belongs there")
        return
    plan, said = _named(options, options.target)
    print(said, end="\n" if said else "")
    every = plan.named(options.target)
    if every[0].dataset.folder is not None:
        fetching.obtain(every[0])
        every = _named(options, options.target)[0].named(options.target)  # what has come may have another address
    for data in {data.raw: data for data in every if data.fetched}.values():
        fetching.fetch(data)


def check(options: argparse.Namespace) -> None:
    """Look into every file of datasets: what is there, missing or broken, counts, disk; before any long job."""
    from pipeline_src.datasets.check import check as opened
    from pipeline_src.study.plan import Plan

    failed = []
    for name in options.dataset or Plan(options.params).datasets:
        try:
            plan, said = _named(options, name)
            print(said, end="\n" if said else "")
            for data in {data.raw: data for data in plan.named(name)}.values():
                opened(data)
        except UserError as error:
            failed.append(str(error))
    if failed:
        raise UserError("\n".join(failed))


def manifest(options: argparse.Namespace) -> None:
    """List a dataset's clips, look into every file, cut val from train."""
    from pipeline_src.datasets.manifest import make
    from pipeline_src.study.plan import Plan

    processes = Plan(options.params).params.resources.manifest.threads
    assert processes is not None  # every stage's request is complete
    for data in _targets(options):
        make(data, processes)


def extract(options: argparse.Namespace) -> None:
    """Decode one shard of a dataset into the feature cache."""
    from pipeline_src.features import build

    for data, index in _targets(options):
        build.extract(data, index)


def cache(options: argparse.Namespace) -> None:
    """Close the feature cache: quarantine, statistics, hash."""
    from pipeline_src.features.build import pack

    for data in _targets(options):
        pack(data)


def store(options: argparse.Namespace) -> None:
    """Move the shards of finished caches to the `storage` of their dataset, or back to this disk if it has none."""
    from pipeline_src.features import fix, storage
    from pipeline_src.study.plan import Plan

    for data in Plan(options.params).all("cache"):
        shards = [file for stem in data.shards if (file := stem.with_suffix(".arrow")).exists()]
        moved = [storage.move(file, data.storage, data.objects, file.stem, fix(file)) for file in shards]
        print(f"{data.name}: {sum(moved)} of {len(data.shards)} shards moved to {data.storage or data.cache}")


def train(options: argparse.Namespace) -> None:
    """Train the runs at the given record.json or metrics.json paths, in one process; they must share a cell.

    Runs at metrics.json paths are evaluated, too. Where training is done already, only the evaluation is.
    """
    started = time.time() - time.process_time()
    from pipeline_src.core import usage
    from pipeline_src.study import remains
    from pipeline_src.study.choice import resolved
    from pipeline_src.study.places import METRICS
    from pipeline_src.study.plan import Plan
    from pipeline_src.training import run as training

    plan = Plan(options.params, fresh=False)
    wanted = {target: target.endswith(f"/{METRICS}") for target in options.target}
    runs = {target: resolved(plan.at("evaluate" if both else "train", target)) for target, both in wanted.items()}
    remains.make_way(plan, [*runs.values()], "train")
    asked = training.train([*runs.values()], plan.params, started, partial(_planned, options.params))
    if any(wanted.values()):
        if asked:
            raise StoppedError(asked, "between training and evaluation")
        _evaluated(plan, [run for target, run in runs.items() if wanted[target]])
    if options.usage:
        usage.write(Path(options.usage), started)


def _planned(file: str, record: str) -> tuple[Run, Settings]:
    """The run with a record, planned again in another process, and its params file."""
    from pipeline_src.study.choice import resolved
    from pipeline_src.study.plan import Plan

    plan = Plan(file)
    return resolved(plan.at("train", record)), plan.params


def evaluate(options: argparse.Namespace) -> None:
    """Evaluate the runs at the given metrics.json paths, in one process; they must share a cell."""
    from pipeline_src.study.choice import resolved
    from pipeline_src.study.plan import Plan

    plan = Plan(options.params, fresh=False)
    _evaluated(plan, [resolved(plan.at("evaluate", target)) for target in options.target])


def _evaluated(plan: Plan, runs: list[Run]) -> None:
    from pipeline_src.evaluation import run as evaluation
    from pipeline_src.study import remains

    remains.make_way(plan, runs, "evaluate")
    evaluation.evaluate(runs, plan.params)


def aggregate(options: argparse.Namespace) -> None:
    """Gather all metrics of the study: long-form Parquet, tables, report. Shows an incomplete grid as incomplete."""
    from pipeline_src.reports import aggregate as reports
    from pipeline_src.study.plan import Plan

    plan = Plan(options.params)
    if options.target:
        plan.at("aggregate", options.target)
    reports.aggregate(plan)


def overview(options: argparse.Namespace) -> None:
    """Write one page across studies: methods x datasets with gains, mean ranks, and what is significant."""
    from pipeline_src.reports.overview import overview as write

    write([Path(folder) for folder in options.folder], Path(options.out))


def table(options: argparse.Namespace) -> None:
    """Print a table of a paper, published values and ours, and the commands that make what is missing of it."""
    from pipeline_src.reports import together

    print(together.shown(options.name) if options.name else together.listed())


def plan(options: argparse.Namespace) -> None:
    """Check the params file and list the address of every output, with + before those that exist."""
    from pipeline_src.core.stages import STAGES
    from pipeline_src.study.plan import Plan

    plan = Plan(options.params)
    if options.explain:
        from pipeline_src.study.origins import origins

        return print(origins(plan))
    for stage in STAGES:
        for path, _ in plan.places(stage):
            print("+" if path.exists() else " ", stage, path)


def estimate(options: argparse.Namespace) -> None:
    """Estimate what a study takes, without its data: runs, GPU hours, core hours of extraction, disk."""
    from pipeline_src.study import estimate as estimates
    from pipeline_src.study.plan import Plan

    defaults = estimates.TFLOPS, estimates.STEP_MS
    estimates.show(Plan(options.params), options.tflops or defaults[0], options.step_ms or defaults[1])


def recipes(options: argparse.Namespace) -> None:
    """List the published recipes: what each modality becomes, bytes per clip, and the source."""
    from pipeline_src.media.base import extractors
    from pipeline_src.study import config

    for name in config.shipped_recipes():
        recipe = config.recipe(name)
        parts = {m: extractors[params.kind](params) for m, params in recipe.modalities.items()}
        print(f"{name}  {sum(part.row_bytes for part in parts.values()) / 1000:,.0f} kB a clip")
        for m, part in parts.items():
            shape = " x ".join(map(str, part.shape))
            print(f"    {m:8} {recipe.modalities[m].kind:10} {shape} {part.dtype}")
        print(f"    {recipe.source}")


def status(options: argparse.Namespace) -> None:
    """Print what of the study is done, running, failed and left, and the time that is left."""
    from pipeline_src.study import status as states
    from pipeline_src.study import watch
    from pipeline_src.study.plan import Plan

    plan = Plan(options.params)
    if options.watch:
        watch.show(plan)
    print(states.status(plan))


def verify(options: argparse.Namespace) -> None:
    """Read every file of a study and its caches whole, and name the damaged ones; says how long it took."""
    from pipeline_src.study import verify as files
    from pipeline_src.study.plan import Plan

    print(files.verify(Plan(options.params)))


def explain(options: argparse.Namespace) -> None:
    """Print what a method, fusion, encoder or task is: equations, source, parameters; without a name, all."""
    from pipeline_src.study import explain as plugins

    print(
        plugins.explain(options.name, options.params) if options.name else f"{plugins.overview()}\n\n{plugins.models()}"
    )


def complete(options: argparse.Namespace) -> None:
    """Check, before DVC records a stage, that every file it made is there."""
    from pipeline_src.study.plan import Plan
    from pipeline_src.study.versioning import check

    check(Plan(options.params), options.what)


def schema(options: argparse.Namespace) -> None:
    """Print a JSON schema as in workflow/schemas: of params.yaml, a file that extends it, resources.yaml, a recipe."""
    from pipeline_src.study.schema import schema_text

    print(schema_text(options.name), end="")


def pack(options: argparse.Namespace) -> None:
    """Pack a finished study into one archive to deposit: params, records, metrics, predictions, tables and report."""
    from pipeline_src.study.crate import About, pack
    from pipeline_src.study.plan import Plan

    plan = Plan(options.params)
    archive = Path(options.output or f"{plan.results.name}.crate.zip")
    print(pack(plan, archive, About(options.title, tuple(options.author), options.licence, options.weights)))


def unpack(options: argparse.Namespace) -> None:
    """Unpack an archive of `pack`, check every file, show its table, and compare it with a study of yours."""
    from pipeline_src.study import supplement
    from pipeline_src.study.plan import Plan

    plan = Plan(options.own) if options.own else None
    folder = supplement.unpack(Path(options.archive), Path(options.folder) if options.folder else None)
    print(supplement.summary(folder))
    if plan is not None:
        print(f"\n{supplement.comparison(folder, plan)}")


def prune(options: argparse.Namespace) -> None:
    """List, and with --yes remove, caches and runs that no params file (here, in experiments/, or given) names."""
    from pipeline_src.study import prune as stale

    stale.prune([options.params, *options.also], options.yes, options.storage)


def track(options: argparse.Namespace) -> None:
    """Bring MLflow up to date with the runs that are there."""
    from pipeline_src.study.plan import Plan
    from pipeline_src.tracking import follow

    plan = Plan(options.params)
    if options.follow:
        sys.exit(follow.follow(plan, options.parent))
    follow.track(plan)


def ui(options: argparse.Namespace) -> None:
    """Open MLflow's UI, on this machine alone, at a view in which the study can be read."""
    from pipeline_src.study.plan import Plan
    from pipeline_src.tracking.ui import serve

    serve(Plan(options.params), options.port)


def completion(options: argparse.Namespace) -> None:
    """Print completion for a shell; in ~/.bashrc or ~/.zshrc: eval "$(counterpoise completion bash)"."""
    from pipeline_src import cli
    from pipeline_src.methods.base import methods
    from pipeline_src.study import shipped

    names = {"datasets": [*shipped.files()], "methods": [*methods]}
    print(shell.completion(cli.parser(), options.shell, names), end="")
