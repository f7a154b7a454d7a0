"""Accuracy over the rate of a corruption, of each modality by itself and of all of them together."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline_src.corruptions.base import corruptions
from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import SOFT, Look, banded, looks, panels, same_scale, styled
from pipeline_src.reports.results import Curve, Results
from pipeline_src.reports.robustness import label, spoiled
from pipeline_src.reports.scores import BASELINE
from pipeline_src.reports.statistics import FEWEST, FREE
from pipeline_src.reports.wording import capital, level, plural

ALONE = Look(SOFT, (0, (1.2, 1.6)))  # the model trained on the modality alone


@figures.register("robustness", place="views", order=50, needs=("corrupted",))
def robustness(results: Results) -> Iterator[Drawing]:
    """A figure per corruption and fusion: a panel per corrupted modality, a line per method."""
    look, metric = looks(results.methods, BASELINE), results.primary.metric
    every = list(spoiled(results))
    scale, limits = (100.0, (0.0, 100.0)) if metric.unit == "%" else (1.0, FREE)
    for name in dict.fromkeys(one.corruption for one in every):
        for fusion in results.fusions:
            shown = [one for one in every if one.corruption == name and any(f == fusion for f, _ in one.scores)]
            if not shown:
                continue
            legend: dict[str, Look] = {}
            with styled():
                figure, axes = panels(len(shown))
                for axis, one in zip(axes, shown, strict=True):
                    for cell, scores in one.scores.items():
                        alone = results.alone.get(one.modality) == cell
                        if cell[0] != fusion and not alone:
                            continue
                        by = ALONE if alone else look[cell[1]]
                        legend["trained on the modality alone" if alone else cell[1]] = by
                        values = scale * scores.to_numpy()
                        axis.plot(one.rates, values.mean(axis=0), color=by.color, linestyle=by.dashes, marker=by.marker)
                        if len(values) > 1 and not alone:
                            bounds = Curve([], values).band(results.confidence)
                            low, high = (bound.clip(*limits) for bound in bounds)
                            axis.fill_between(one.rates, low, high, color=by.color, alpha=0.13, linewidth=0)
                    unit = ", percent" if metric.unit == "%" else ""
                    axis.set(title=f"corrupted: {label(one.modality)}", xlabel=f"{name}, rate")
                    axis.set_ylabel(f"test {metric.label}{unit}")
                same_scale([axes])
            seeds = len(results.seeds)
            band = banded(seeds, results.confidence)
            if seeds >= FEWEST:
                cut = ", cut at 0 and 100" if metric.unit == "%" else ""
                band = f" Band: {level(results.confidence)} Student t interval of the mean{cut}."
            yield Drawing(
                f"robustness-{results.name}-{name}-{fusion}",
                f"Robustness to {name}, fusion {fusion}",
                f"{capital(metric.label)} on test by the rate, mean over {plural(seeds, 'seed')}.{band}"
                f" {corruptions[name].caption} At rate 0 nothing is corrupted; every method of a seed has the same"
                " corrupted samples. The table has the area under each curve.",
                figure,
                legend,
            )
