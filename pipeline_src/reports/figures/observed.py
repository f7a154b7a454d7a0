"""What observers saw of the runs, epoch by epoch: a drawing per observer, lines of methods side by side."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pipeline_src.reports.declared import explained, heading
from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import (
    SOFT,
    Look,
    banded,
    draw_band,
    draw_quantity,
    looks,
    panels,
    same_scale,
    styled,
    whole_epochs,
)
from pipeline_src.reports.results import Results
from pipeline_src.reports.scores import BASELINE
from pipeline_src.reports.wording import plural

ALONE = Look(SOFT, (0, (1.2, 1.6)))  # the model trained on the modality alone


@figures.register("observed", place="curves", order=40, needs=("observed",))
def observed(results: Results) -> Iterator[Drawing]:
    """A figure per observer and fusion: a panel for each quantity of the fused model and of each modality."""
    look = looks(results.methods, BASELINE)
    for observer, declared in results.observed.items():
        for fusion, cells in results.grid(partial(results.watched, observer)).items():
            every = [results.watched(observer, cell) for cell in cells]
            wanted = list(dict.fromkeys((name, m) for one in every for name, of in one.items() for m in of))
            columns = max(len(of) for one in every for of in one.values())
            alone = {m: cell for m, cell in results.alone.items() if results.watched(observer, cell)}
            legend: dict[str, Look] = {}
            drawn_alone = False
            with styled():
                figure, axes = panels(len(wanted), columns=columns, size=(2.6, 2.1))
                for axis, (name, m) in zip(axes, wanted, strict=True):
                    quantity, last = declared[name], 1
                    for cell, of in [*((cell, m) for cell in cells), *_alone(results, alone, name, m)]:
                        x, y = results.curve(cell, f"{name}/{of}" if of else name)
                        if not x:
                            continue
                        by = look.get(cell[1], ALONE)
                        draw_quantity(axis, quantity, x, y, by)
                        draw_band(axis, results.seeded(cell, f"{name}/{of}" if of else name), results.confidence, by)
                        legend |= {cell[1]: by} if cell in cells else {}
                        drawn_alone |= cell not in cells
                        last = max(last, *x)
                    axis.set_title(heading(name) + f", {m or 'fused model'}")
                    whole_epochs(axis, last)
                for name in declared:  # the modalities have one scale, and the fused model its own
                    same_scale([[axis for axis, (of, m) in zip(axes, wanted, strict=True) if of == name and m]])
            if drawn_alone:
                legend["trained on the modality alone"] = ALONE
            seen = explained((observer, declared[name]) for name, _ in wanted)
            yield Drawing(
                f"observed-{results.name}-{observer}-{fusion}",
                f"Observed: {observer}, fusion {fusion}",
                f"After the epochs that the observer looked at, mean over {plural(len(results.seeds), 'seed')}."
                f"{banded(len(results.seeds), results.confidence)} {seen}",
                figure,
                legend,
            )


def _alone(
    results: Results, alone: dict[str, tuple[str, str]], name: str, m: str | None
) -> list[tuple[tuple[str, str], str | None]]:
    """The model trained on a modality alone, and the modality or None under which it has the quantity."""
    if m is None or m not in alone:
        return []
    return [(alone[m], m if results.curve(alone[m], f"{name}/{m}")[0] else None)]
