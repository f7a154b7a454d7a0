"""The primary metric over the epochs: of the fused model, also as a difference from joint training, and of each
modality beside a model trained on it alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import (
    INK,
    SOFT,
    Look,
    banded,
    draw_band,
    looks,
    panels,
    same_scale,
    styled,
    whole_epochs,
)
from pipeline_src.reports.results import Curve, Results
from pipeline_src.reports.scores import BASELINE
from pipeline_src.reports.wording import capital, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALONE = Look(SOFT, (0, (1.2, 1.6)))


@figures.register("learning", place="curves", order=10, needs=("histories",))
def learning(results: Results) -> Iterator[Drawing]:
    """A figure per fusion: the fused models, their differences from BASELINE, and each modality; a line per method."""
    look, one = looks(results.methods, BASELINE), results.primary
    label = one.metric.label
    change = f"points of val {label}" if one.points == "points" else f"val {label}"
    for fusion, cells in results.grid(lambda cell: results.curve(cell, one.by_epoch())[0]).items():
        compared = {
            cell: curve
            for cell in cells
            if cell[1] != BASELINE
            and (curve := results.differences(cell, (fusion, BASELINE), one.by_epoch())) is not None
        }
        with styled():
            figure, axes = panels(1 + bool(compared) + len(results.modalities), columns=2, size=(4.6, 2.6))
            whole, *others = axes
            gain = others.pop(0) if compared else None
            last = 1
            for axis, m in zip([whole, *others], [None, *results.modalities], strict=True):
                alone = results.alone.get(m) if m else None
                drawn = [(results.seeded(alone, one.by_epoch()), ALONE)]
                drawn += [(results.seeded(cell, one.by_epoch(m)), look[cell[1]]) for cell in cells]
                for curve, of in drawn:
                    if curve is not None:
                        _draw(axis, curve, of, results.confidence, one.factor)
                        last = max([last, *curve.epochs])
                axis.set(title=f"{m}, unimodal logits" if m else "fused model", ylabel=f"val {one.axis}")
            if gain is not None:
                gain.axhline(0, color=INK, linewidth=0.9)
                for cell, curve in compared.items():
                    _draw(gain, curve, look[cell[1]], results.confidence, one.factor)
                gain.set(
                    title=f"fused model, less {BASELINE}",
                    ylabel=change,
                )
            same_scale([others])
            for axis in axes:
                whole_epochs(axis, last)
        legend = {method: look[method] for _, method in cells}
        seeds = len(results.seeds)
        caption = f"{capital(label)} on val, mean over {plural(seeds, 'seed')}.{banded(seeds, results.confidence)}"
        if compared:
            caption += f" Differences from {BASELINE} are paired by seed."
        caption += (
            " The panels of the modalities have one scale. A modality inside a fused model is scored by its unimodal"
            " logits."
        )
        if results.alone:
            legend["trained on the modality alone"] = ALONE
            caption += (
                " The dotted line is the model trained on that modality alone, with a fusion of its own, so a gap"
                " includes encoder and fusion; the probe in the table compares the encoders."
            )
        title = f"{capital(label)} over epochs, fusion {fusion}"
        yield Drawing(f"learning-{results.name}-{fusion}", title, caption, figure, legend)


def _draw(axis: Axes, curve: Curve, look: Look, confidence: float, factor: float) -> None:
    """A curve with its band."""
    draw_band(axis, curve, confidence, look, scale=factor)
    width = 2.2 if look is ALONE else None
    axis.plot(curve.epochs, [factor * v for v in curve.means], color=look.color, linestyle=look.dashes, linewidth=width)
