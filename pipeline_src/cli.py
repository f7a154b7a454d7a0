"""The command line: one sub-command per stage. Snakemake and DVC call nothing else.

A stage is given the path of its output, as the plan made from params.yaml names it, and finds all else by it. Imports
of a stage stay in its function: they are seconds, and no stage pays for another's.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pipeline_src
from pipeline_src import shell
from pipeline_src.core import faults, progress
from pipeline_src.core.errors import UserError, concealed
from pipeline_src.training.interrupt import SIGNALS, StoppedError

log = logging.getLogger(__name__)
if TYPE_CHECKING:
    from pipeline_src.study.plan import Plan, Run

PARAMS = "params.yaml"


def main(arguments: list[str] | None = None) -> int:
    """Run a sub-command; 0 if it went well, 2 with one line on standard error if the user can fix what did not, and
    128 + its number if a signal asked it to stop.
    """
    options = _parser().parse_args(arguments)
    for number in SIGNALS:  # the shell around us ignores them, so that its log is complete
        signal.signal(number, _interrupt if number == signal.SIGINT else signal.SIG_DFL)
    try:
        progress.show()
        options.call(options)
        sys.stdout.flush()  # a full disk is to be said here, not by the interpreter as it ends
    except StoppedError as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        log.warning(f"{options.stage}  {error}")
        return error.status
    except KeyboardInterrupt:
        print("stopped by SIGINT", file=sys.stderr)
        return 128 + signal.SIGINT
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        _discard_output()
        return 1
    except Exception as error:
        said = faults.explained(error, options.stage)
        if said is None:
            raise
        log.debug(options.stage, exc_info=True)
        print(f"error: {concealed(said)}", file=sys.stderr)
        return 2
    return 0


def _interrupt(number: int, frame: object) -> None:
    """The first Ctrl-C ends the process; another one on its way out has nothing to add."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _discard_output() -> None:
    """Nobody reads standard output: what is still to be written there is no error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    program = shell.PROGRAM if Path(sys.argv[0]).name == shell.PROGRAM else "python -m pipeline_src"
    parser = argparse.ArgumentParser(
        prog=program,
        description="Counterpoise compares the methods of balanced multimodal learning: raw media in, a report out.",
        epilog=shell.examples(program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{shell.PROGRAM} {pipeline_src.__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(
        name: str,
        call: Callable[[argparse.Namespace], None],
        targets: str | None = None,
        target: str = "path of the output, as `plan` lists it",
    ) -> argparse.ArgumentParser:
        example = f"example: {program} {shell.EXAMPLES[name][0]}" if name in shell.EXAMPLES else None
        one = commands.add_parser(name, help=call.__doc__.splitlines()[0], description=call.__doc__, epilog=example)
        one.add_argument("--params", default=PARAMS, metavar="FILE", help="default: %(default)s")
        if targets:
            one.add_argument("target", nargs=targets, help=target)
        one.set_defaults(call=call, stage=name)
        return one

    new = command("new", _new)
    new.add_argument("kind", choices=["dataset", "method", "encoder", "study"])
    new.add_argument("name", help="of what is written; nothing is overwritten")
    new.add_argument("--folder", metavar="DIR", help="of a dataset's table and files, or of your plug-ins")
    fetch = command("fetch", _fetch, "?", "a dataset of the study or a published one, or the path of the output")
    check = command("check", _check)
    check.add_argument("dataset", nargs="*", help="datasets of the study or published ones; default: all of the study")
    for one in (fetch, check):
        one.add_argument("--folder", metavar="DIR", help="its files, in place of the folder that the params file names")
    command("manifest", _manifest, "?")
    command("extract", _extract, "?")
    command("cache", _cache, "?")
    command("train", _train, "+")
    command("evaluate", _evaluate, "+")
    command("aggregate", _aggregate, "?")
    command("plan", _plan)
    command("status", _status)
    command("verify", _verify)
    explain = command("explain", _explain)
    explain.add_argument("method", nargs="?", help="its name; without one, every method in a line, by family")
    estimate = command("estimate", _estimate)
    estimate.add_argument("--tflops", type=_positive, help="TFLOP/s that the GPU sustains; default: an assumption")
    estimate.add_argument("--step-ms", type=_positive, help="least milliseconds of a step; default: an assumption")
    command("recipes", _recipes)
    complete = command("complete", _complete)
    complete.add_argument("what", choices=["data", "features", "runs"], help="stage of dvc.yaml")
    schema = command("schema", _schema)
    schema.add_argument("name", nargs="?", choices=["params", "resources", "recipe"], default="params")
    prune = command("prune", _prune)
    prune.add_argument("--yes", action="store_true", help="remove; without it, only list")
    prune.add_argument(
        "--also", nargs="+", default=[], metavar="FILE", help="params files elsewhere whose studies stay"
    )
    track = command("track", _track)
    track.add_argument("--follow", action="store_true", help="go on, while the process that started this one lives")
    track.add_argument("--parent", type=int, default=os.getppid(), help=argparse.SUPPRESS)
    ui = command("ui", _ui)
    ui.add_argument("--port", type=int, help="default: the first free one from 5000 on")
    command("completion", _completion).add_argument("shell", choices=["bash", "zsh"])
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, but got {text}")
    return value


def _targets(options: argparse.Namespace) -> list:
    """What the plan has at the targets; all that the stage has in the plan if none is named."""
    from pipeline_src.study.plan import Plan

    plan = Plan(options.params)
    targets = [options.target] if isinstance(options.target, str) else options.target
    return [plan.at(options.stage, target) for target in targets] if targets else plan.all(options.stage)


def _new(options: argparse.Namespace) -> None:
    """Write a start that runs: a study of your own files, a method or an encoder with its test, or another study."""
    from pipeline_src.study.new import new

    print("Next:", *new(options.kind, options.name, options.folder), sep="\n  ")


def _named(options: argparse.Namespace, name: str) -> tuple[Plan, str]:
    """The plan with a dataset, of the params file or else of a shipped study, and a sentence on the latter."""
    from pipeline_src.study import shipped
    from pipeline_src.study.plan import Plan

    if options.folder is None and (options.params != PARAMS or Path(PARAMS).exists()):
        plan = Plan(options.params)
        if options.params != PARAMS or name in {*plan.datasets, *map(plan.params.stored, plan.datasets)}:
            return plan, ""
    return shipped.plan(name, options.folder)


def _fetch(options: argparse.Namespace) -> None:
    """Fetch a published dataset's files, or say what to put where; generate or convert raw media."""
    from pipeline_src.datasets import fetch
    from pipeline_src.study.plan import Plan

    if options.target is None or "/" in options.target:
        for data in _targets(options):
            fetch.fetch(data)
        for name, data in Plan(options.params).datasets.items() if options.target is None else ():
            if not data.fetched:
                print(f"{name}: read where it is, in {data.raw}; `fetch {name}` says what belongs there")
        return
    plan, said = _named(options, options.target)
    print(said, end="\n" if said else "")
    every = plan.named(options.target)
    if every[0].dataset.folder is not None:
        fetch.obtain(every[0])
        every = _named(options, options.target)[0].named(options.target)  # what has come may have another address
    for data in {data.raw: data for data in every if data.fetched}.values():
        fetch.fetch(data)


def _check(options: argparse.Namespace) -> None:
    """Look into every file of datasets: what is there, missing or broken, counts, disk; before any long job."""
    from pipeline_src.datasets.check import check
    from pipeline_src.study.plan import Plan

    failed = []
    for name in options.dataset or Plan(options.params).datasets:
        try:
            plan, said = _named(options, name)
            print(said, end="\n" if said else "")
            for data in {data.raw: data for data in plan.named(name)}.values():
                check(data)
        except UserError as error:
            failed.append(str(error))
    if failed:
        raise UserError("\n".join(failed))


def _manifest(options: argparse.Namespace) -> None:
    """List a dataset's clips, look into every file, cut val from train."""
    from pipeline_src.datasets.manifest import make
    from pipeline_src.study.plan import Plan

    threads = Plan(options.params).params.resources.manifest.threads
    for data in _targets(options):
        make(data, threads)


def _extract(options: argparse.Namespace) -> None:
    """Decode one shard of a dataset into the feature cache."""
    from pipeline_src.features.build import extract

    for data, index in _targets(options):
        extract(data, index)


def _cache(options: argparse.Namespace) -> None:
    """Close the feature cache: quarantine, statistics, hash."""
    from pipeline_src.features.build import pack

    for data in _targets(options):
        pack(data)


def _train(options: argparse.Namespace) -> None:
    """Train the runs at the given record.json or metrics.json paths, in one process; they must share a cell.

    Runs at metrics.json paths are evaluated, too. Where training is done already, only the evaluation is.
    """
    started = time.time() - time.process_time()
    from pipeline_src.study import remains
    from pipeline_src.study.choice import resolved
    from pipeline_src.study.places import METRICS
    from pipeline_src.study.plan import Plan
    from pipeline_src.training.run import train

    plan = Plan(options.params)
    wanted = {target: target.endswith(f"/{METRICS}") for target in options.target}
    runs = {target: resolved(plan.at("evaluate" if both else "train", target)) for target, both in wanted.items()}
    remains.make_way(plan, [*runs.values()], "train")
    asked = train([*runs.values()], plan.params, started)
    if any(wanted.values()):
        if asked:
            raise StoppedError(asked, "between training and evaluation")
        _evaluated(plan, [run for target, run in runs.items() if wanted[target]])


def _evaluate(options: argparse.Namespace) -> None:
    """Evaluate the runs at the given metrics.json paths, in one process; they must share a cell."""
    from pipeline_src.study.choice import resolved
    from pipeline_src.study.plan import Plan

    plan = Plan(options.params)
    _evaluated(plan, [resolved(plan.at("evaluate", target)) for target in options.target])


def _evaluated(plan: Plan, runs: list[Run]) -> None:
    from pipeline_src.evaluation.run import evaluate
    from pipeline_src.study import remains

    remains.make_way(plan, runs, "evaluate")
    evaluate(runs, plan.params)


def _aggregate(options: argparse.Namespace) -> None:
    """Gather all metrics of the study: long-form Parquet, tables, report. Shows an incomplete grid as incomplete."""
    from pipeline_src.reports.aggregate import aggregate
    from pipeline_src.study.plan import Plan

    plan = Plan(options.params)
    if options.target:
        plan.at("aggregate", options.target)
    aggregate(plan)


def _plan(options: argparse.Namespace) -> None:
    """Check the params file and list the address of every output, with + before those that exist."""
    from pipeline_src.core.stages import STAGES
    from pipeline_src.study.plan import Plan

    plan = Plan(options.params)
    for stage in STAGES:
        for path, _ in plan.places(stage):
            print("+" if path.exists() else " ", stage, path)


def _estimate(options: argparse.Namespace) -> None:
    """Estimate what a study takes, without its data: runs, GPU hours, core hours of extraction, disk."""
    from pipeline_src.study import estimate
    from pipeline_src.study.plan import Plan

    estimate.show(Plan(options.params), options.tflops or estimate.TFLOPS, options.step_ms or estimate.STEP_MS)


def _recipes(options: argparse.Namespace) -> None:
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


def _status(options: argparse.Namespace) -> None:
    """Print what of the study is done, running, failed and left, and the time that is left."""
    from pipeline_src.study.plan import Plan
    from pipeline_src.study.status import status

    print(status(Plan(options.params)))


def _verify(options: argparse.Namespace) -> None:
    """Read every file of a study and its caches whole, and name the damaged ones; says how long it took."""
    from pipeline_src.study.plan import Plan
    from pipeline_src.study.verify import verify

    print(verify(Plan(options.params)))


def _explain(options: argparse.Namespace) -> None:
    """Print a method's equation, source, deviations, parameters and hooks; without a name, list the methods."""
    from pipeline_src.study.explain import explain, overview

    print(explain(options.method) if options.method else overview())


def _complete(options: argparse.Namespace) -> None:
    """Check, before DVC records a stage, that every file it made is there."""
    from pipeline_src.study.plan import Plan
    from pipeline_src.study.versioning import check

    check(Plan(options.params), options.what)


def _schema(options: argparse.Namespace) -> None:
    """Print the JSON schema of params.yaml, resources.yaml or a recipe, as it stands in workflow/schemas."""
    from pipeline_src.study.schema import schema_text

    print(schema_text(options.name), end="")


def _prune(options: argparse.Namespace) -> None:
    """List, and with --yes remove, caches and runs that no params file (here, in experiments/, or given) names."""
    from pipeline_src.study.prune import prune

    prune([options.params, *options.also], options.yes)


def _track(options: argparse.Namespace) -> None:
    """Bring MLflow up to date with the runs that are there."""
    from pipeline_src.study.plan import Plan
    from pipeline_src.tracking import follow

    plan = Plan(options.params)
    if options.follow:
        sys.exit(follow.follow(plan, options.parent))
    follow.track(plan)


def _ui(options: argparse.Namespace) -> None:
    """Open MLflow's UI, on this machine alone, at a view in which the study can be read."""
    from pipeline_src.study.plan import Plan
    from pipeline_src.tracking.ui import serve

    serve(Plan(options.params), options.port)


def _completion(options: argparse.Namespace) -> None:
    """Print completion for a shell; in ~/.bashrc or ~/.zshrc: eval "$(counterpoise completion bash)"."""
    from pipeline_src.methods.base import methods
    from pipeline_src.study import shipped

    names = {"datasets": [*shipped.files()], "methods": [*methods]}
    print(shell.completion(_parser(), options.shell, names), end="")
