"""The command line: one sub-command per stage. Snakemake and DVC call nothing else.

Here is how a command line is read and how a process ends; `commands` has what the sub-commands do.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pipeline_src
from pipeline_src import commands, shell
from pipeline_src.core import faults, progress
from pipeline_src.core.errors import UserError, concealed
from pipeline_src.training.interrupt import SIGNALS, StoppedError

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run a sub-command; 0 if it went well, 2 with one line on standard error if the user can fix what did not, and
    128 + its number if a signal asked it to stop.
    """
    top = parser()
    options, unknown = top.parse_known_args(arguments)
    if unknown:
        hint = "; a params file is named by --params FILE" if unknown[0].endswith((".yaml", ".yml")) else ""
        top.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
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


def parser() -> argparse.ArgumentParser:
    program = shell.PROGRAM if Path(sys.argv[0]).name == shell.PROGRAM else "python -m pipeline_src"
    top = argparse.ArgumentParser(
        prog=program,
        description="Counterpoise compares the methods of balanced multimodal learning: raw media in, a report out.",
        epilog=shell.examples(program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"{shell.PROGRAM} {pipeline_src.__version__}")
    subparsers = top.add_subparsers(required=True, metavar="command")

    def command(
        name: str,
        call: Callable[[argparse.Namespace], None],
        targets: str | None = None,
        target: str = "path of the output, as `plan` lists it",
    ) -> argparse.ArgumentParser:
        example = f"example: {program} {shell.EXAMPLES[name][0]}" if name in shell.EXAMPLES else None
        one = subparsers.add_parser(
            name, help=(call.__doc__ or "").partition("\n")[0], description=call.__doc__, epilog=example
        )
        one.add_argument("--params", default=commands.PARAMS, metavar="FILE", help="default: %(default)s")
        if targets:
            one.add_argument("target", nargs=targets, help=target)
        one.set_defaults(call=call, stage=name)
        return one

    new = command("new", commands.new)
    new.add_argument("kind", choices=["dataset", "method", "encoder", "study"])
    new.add_argument("name", help="of what is written; nothing is overwritten")
    new.add_argument("--folder", metavar="DIR", help="of a dataset's table and files, or of your plug-ins")
    fetch = command(
        "fetch", commands.fetch, "?", "a dataset of the study or a published one, or the path of the output"
    )
    check = command("check", commands.check)
    check.add_argument("dataset", nargs="*", help="datasets of the study or published ones; default: all of the study")
    for one in (fetch, check):
        one.add_argument("--folder", metavar="DIR", help="its files, in place of the folder that the params file names")
    command("manifest", commands.manifest, "?")
    command("extract", commands.extract, "?")
    command("cache", commands.cache, "?")
    command("store", commands.store)
    train = command("train", commands.train, "+")
    train.add_argument("--usage", metavar="FILE", help="write there what the job took: time, memory")
    command("evaluate", commands.evaluate, "+")
    command("aggregate", commands.aggregate, "?")
    overview = command("overview", commands.overview)
    overview.add_argument("folder", nargs="*", help="folders of studies; default: all in results/studies")
    overview.add_argument("--out", default="results/overview.html", metavar="FILE", help="default: %(default)s")
    table = command("table", commands.table)
    table.add_argument("name", nargs="?", help="pmr-2023/table-1, for instance; without one, all tables and figures")
    plan = command("plan", commands.plan)
    plan.add_argument("--explain", action="store_true", help="every value of the study and where it is from, instead")
    status = command("status", commands.status)
    status.add_argument("--watch", action="store_true", help="a live table, until all is done or Ctrl-C")
    command("verify", commands.verify)
    explain = command("explain", commands.explain)
    explain.add_argument("name", nargs="?", help="its name; without one, every method, fusion and encoder in a line")
    estimate = command("estimate", commands.estimate)
    estimate.add_argument("--tflops", type=_positive, help="TFLOP/s that the GPU sustains; default: an assumption")
    estimate.add_argument("--step-ms", type=_positive, help="least milliseconds of a step; default: an assumption")
    command("recipes", commands.recipes)
    complete = command("complete", commands.complete)
    complete.add_argument("what", choices=["data", "features", "runs"], help="stage of dvc.yaml")
    schema = command("schema", commands.schema)
    schema.add_argument("name", nargs="?", choices=["params", "extending", "resources", "recipe"], default="params")
    pack = command("pack", commands.pack)
    pack.add_argument("--output", metavar="FILE", help="the archive; default: <study>.crate.zip")
    pack.add_argument("--title", help="of the deposit; default: the study's name")
    pack.add_argument("--author", action="append", default=[], metavar="NAME[, ORCID]", help="may be repeated")
    pack.add_argument("--licence", help="of the archive, by its SPDX name (CC-BY-4.0) or address; default: none stated")
    pack.add_argument("--weights", action="store_true", help="also the trained weights")
    unpack = command("unpack", commands.unpack)
    unpack.add_argument("archive")
    unpack.add_argument("--folder", metavar="DIR", help="a new one; default: supplements/<study>")
    unpack.add_argument("--with", dest="own", metavar="FILE", help="params file of a study of yours to compare with")
    prune = command("prune", commands.prune)
    prune.add_argument("--yes", action="store_true", help="remove; without it, only list")
    prune.add_argument("--storage", action="store_true", help="also caches whose shards lie in storage, with these")
    prune.add_argument(
        "--also", nargs="+", default=[], metavar="FILE", help="params files elsewhere whose studies stay"
    )
    track = command("track", commands.track)
    track.add_argument("--follow", action="store_true", help="go on, while the process that started this one lives")
    track.add_argument("--parent", type=int, default=os.getppid(), help=argparse.SUPPRESS)
    ui = command("ui", commands.ui)
    ui.add_argument("--port", type=int, help="default: the first free one from 5000 on")
    command("completion", commands.completion).add_argument("shell", choices=["bash", "zsh"])
    return top


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, but got {text}")
    return value
