"""`python -m benchmarks NAME`: speed and memory, as ratios to a baseline that is measured in the same run.

docs/measuring.md describes each benchmark.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from pipeline_src.core import progress
from pipeline_src.core.errors import UserError
from pipeline_src.study.plan import Plan


def main() -> int:
    """Run a benchmark; 2, with one line on standard error, if it cannot be measured here."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    every = [
        "loader",
        "cold",
        "storage",
        "gpu",
        "gpu_cell",
        "methods",
        "fusions",
        "cards",
        "coverage",
        "extract",
        "scale",
        "rows",
        "start",
        "first_step",
        "report",
        "plan",
        "statistics",
        "grid",
        "result",
        "tuning",
        "new-data",
        "all-methods",
    ]
    parser.add_argument("what", choices=every)
    parser.add_argument("--params", default="params.yaml", metavar="FILE", help="default: %(default)s")
    parser.add_argument(
        "--clips", type=int, help="of scale, rows, cold and gpu, generated; default: 2400, 2 million, 4000, 16384"
    )
    parser.add_argument("--tiny", action="store_true", help="gpu: a tiny size, to see that it runs")
    parser.add_argument(
        "--device", default="auto", choices=["auto", "cpu", "cuda"], help="of gpu; default: %(default)s"
    )
    parser.add_argument("--runs", type=int, default=5000, help="of plan, about; default: %(default)s")
    parser.add_argument("--only", metavar="A,B", help="of methods, or parts of gpu: these; default: all")
    parser.add_argument(
        "--epochs", type=int, default=10, help="of methods, 4 turns in each; default: %(default)s, at most"
    )
    parser.add_argument("--batch", type=int, help="of methods, samples; default: the params file's")
    parser.add_argument("--name", help="of result: which file of docs/results is written from this clone's study")
    options = parser.parse_args()
    try:
        progress.show()
        _run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    if options.what == "scale":
        from benchmarks import scale

        return scale.measure(options.clips or 2400)
    if options.what == "rows":
        from benchmarks import rows

        return rows.measure(options.clips or 2_000_000)
    if options.what in ("gpu", "gpu_cell"):
        from benchmarks import gpu

        size = gpu.TINY if options.tiny else gpu.Size()
        size = replace(size, clips=options.clips or size.clips)
        only = options.only.split(",") if options.only else None
        return gpu.cell() if options.what == "gpu_cell" else gpu.measure(size, options.device, only)
    if options.what == "cold":
        from benchmarks import cold

        return cold.cold(options.clips or 4000)
    if options.what == "storage":
        from benchmarks import storage

        return storage.measure(options.clips or 600)
    if options.what == "extract":
        from benchmarks import extraction

        return extraction.extract()
    if options.what == "coverage":
        from benchmarks import coverage

        return print(coverage.coverage(), end="")
    if options.what == "cards":
        from benchmarks import cards

        print(cards.cards(), end="")
        return None
    if options.what == "statistics":
        from benchmarks import statistics

        return statistics.measure()
    if options.what == "grid":
        from benchmarks import grid

        return grid.grid()
    if options.what == "result":
        from benchmarks import result

        return result.result(options.name)
    if options.what == "tuning":
        from benchmarks import tuning

        return tuning.tuning()
    if options.what == "new-data":
        from benchmarks import new_data

        return new_data.new_data()
    if options.what == "all-methods":
        from benchmarks import all_methods

        return all_methods.all_methods()
    if options.what == "plan":
        from benchmarks import planning

        return planning.plan(Path(options.params), options.runs)
    if options.what == "methods":
        from benchmarks import methods

        only = options.only.split(",") if options.only else None
        return methods.methods(Plan(options.params), only, options.epochs, options.batch)
    if options.what == "fusions":
        from benchmarks import fusions

        return fusions.fusions(Plan(options.params))
    from benchmarks import training

    getattr(training, options.what)(Plan(options.params))


if __name__ == "__main__":
    sys.exit(main())
