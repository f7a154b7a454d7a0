"""How far published accuracies of one method lie apart."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import INK, Look, panels, styled
from pipeline_src.reports.results import Results
from pipeline_src.reports.scores import BASELINE

LOOKS = {
    "first-hand": Look(INK, marker="o"),
    "quoted": Look("#0072b2", marker="s"),
    "user": Look("#d55e00", marker="^"),
}


@figures.register("published", place="published", order=10, needs=("published",))
def spread(results: Results) -> Iterator[Drawing]:
    """A row per method, a point per published accuracy."""
    where, drawn = results.published.where, results.published.drawn
    methods = [
        m for m in dict.fromkeys([BASELINE, *results.table.index.get_level_values("method")]) if m in set(drawn.method)
    ]
    with styled():
        figure, (axis,) = panels(1, size=(6.2, 0.8 + 0.34 * len(methods)))
        for i, method in enumerate(methods):
            values = drawn[drawn.method == method]
            axis.plot([values.percent.min(), values.percent.max()], [i, i], color=INK, linewidth=0.8)
            for provenance, look in LOOKS.items():
                x = values[values.provenance == provenance].percent
                axis.plot(x, [i] * len(x), linestyle="none", marker=look.marker, color=look.color, alpha=0.85)
        axis.set_yticks(range(len(methods)), methods)
        axis.set(xlabel=f"published accuracy on {where}, percent", ylim=(len(methods) - 0.5, -0.5))
        axis.grid(visible=False, axis="y")
    spans = {m: drawn[drawn.method == m].percent.agg(["min", "max", "size"]) for m in methods}
    widest = max(methods, key=lambda m: spans[m]["max"] - spans[m]["min"])
    low, high, count = spans[widest]
    caption = (
        f"Every published accuracy of these methods on {where} that published.csv lists, whatever the recipe and"
        f" fusion. The {count:.0f} values of {widest} range from {low:.1f} to {high:.1f} percent. A value is comparable"
        " only within its own paper's table."
    )
    legend = {name: look for name, look in LOOKS.items() if (drawn.provenance == name).any()}
    title = f"How far published values of one method lie apart ({where})"
    yield Drawing(f"published-{results.name}", title, caption, figure, legend, keys="point")
