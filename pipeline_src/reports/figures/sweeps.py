"""Scores over the values of one parameter of a method that the study has several times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import SOFT, Look, looks, panels, same_scale, styled
from pipeline_src.reports.results import Curve, Results
from pipeline_src.reports.scores import BASELINE
from pipeline_src.reports.statistics import FEWEST
from pipeline_src.reports.wording import capital, level, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE = 10.0  # the ratio of the largest to the smallest value from which on the axis is logarithmic
LEVEL = Look(SOFT, (0, (1.2, 1.6)))  # of the baseline, over a parameter that it does not have


@figures.register("sweeps", place="answer", order=30, needs=("sweeps",))
def sweeps(results: Results) -> Iterator[Drawing]:
    """A figure per sweep of a method, a panel per fusion; the baseline is a level line."""
    metric = results.primary.metric
    for number, sweep in enumerate(results.sweeps):
        look = {sweep.of: looks(results.methods, BASELINE)[sweep.points[0][1]], BASELINE: LEVEL}
        drawn = [f for f in results.fusions if any(len(scores(results, f, name)) for _, name in sweep.points)]
        if not drawn:
            continue
        with styled():
            figure, axes = panels(len(drawn))
            for axis, fusion in zip(axes, drawn, strict=True):
                own = {value: scores(results, fusion, name) for value, name in sweep.points}
                draw_over(axis, results, own, look[sweep.of])
                draw_over(axis, results, dict.fromkeys(own, scores(results, fusion, BASELINE)), LEVEL)
                axis.set(title=fusion, xlabel=f"{sweep.of}.{sweep.parameter}", ylabel=f"test {results.primary.axis}")
                scale(axis, sweep.values)
            same_scale([axes])
        yield Drawing(
            f"sweeps-{results.name}-{sweep.of}-{sweep.parameter}-{number}",
            f"{sweep.of} over {sweep.parameter}",
            f"{capital(metric.label)} on test over {sweep.parameter} of {sweep.of}, all other parameters equal:"
            f" {said(results)} The dotted line is {BASELINE}, which has no such parameter. The tables have the"
            " differences with their correction.",
            figure,
            look,
        )


def scores(results: Results, fusion: str, method: str) -> pd.Series:
    """The primary metric on test by seed."""
    return results.scores((fusion, method), results.primary.metric.name)


def draw_over(axis: Axes, results: Results, each: dict[float, pd.Series], look: Look) -> None:
    """A line of means over the values that have scores, {value: score by seed}, and its band."""
    there = {value: results.primary.factor * seeds for value, seeds in each.items() if len(seeds)}
    if not there:
        return
    means = [seeds.mean() for seeds in there.values()]
    marker = None if look is LEVEL else look.marker
    axis.plot(list(there), means, color=look.color, linestyle=look.dashes, marker=marker)
    bounds = [Curve([0], seeds.to_numpy()[:, None]).band(results.confidence) for seeds in there.values()]
    low, high = ([float(bound[i][0]) for bound in bounds] for i in (0, 1))
    axis.fill_between(list(there), low, high, color=look.color, alpha=0.13, linewidth=0)


def scale(axis: Axes, values: list[float]) -> None:
    """Ticks at the values; a logarithmic axis where they lie far apart."""
    from matplotlib.ticker import NullLocator

    if min(values) > 0 and max(values) >= WIDE * min(values):
        axis.set_xscale("log")
    axis.set_xticks(values, [f"{value:g}" for value in values])
    axis.xaxis.set_minor_locator(NullLocator())


def said(results: Results) -> str:
    """What line and band are, for a caption."""
    seeds = len(results.seeds)
    band = (
        f" Band: {level(results.confidence)} Student t interval of the mean, not corrected for the number of points."
        if seeds >= FEWEST
        else " Band: from the smallest to the largest seed."
    )
    return f"mean over {plural(seeds, 'seed')}.{band if seeds > 1 else ''}"
