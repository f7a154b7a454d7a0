"""Accuracy over the epochs: of the fused model, and of each modality beside a model trained on it alone."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import SOFT, Look, looks, panels, styled, whole_epochs
from pipeline_src.reports.results import Results, accuracy_key
from pipeline_src.reports.scores import BASELINE
from pipeline_src.reports.wording import plural

ALONE = Look(SOFT, (0, (1.2, 1.6)))


@figures.register("learning", place="curves", order=10, needs=("histories",))
def learning(results: Results) -> Iterator[Drawing]:
    """A figure per fusion: a panel for the fused model and one for each modality, a line per method."""
    look = looks(results.methods, BASELINE)
    for fusion, cells in results.grid(lambda cell: results.curve(cell, accuracy_key(None))[0]).items():
        with styled():
            figure, axes = panels(1 + len(results.modalities))
            last = 1
            for axis, m in zip(axes, [None, *results.modalities], strict=True):
                x, y = results.curve(results.alone.get(m), accuracy_key(None))
                axis.plot(x, [100 * v for v in y], color=ALONE.color, linestyle=ALONE.dashes, linewidth=2.2)
                for cell in cells:
                    x, y = results.curve(cell, accuracy_key(m))
                    axis.plot(x, [100 * v for v in y], color=look[cell[1]].color, linestyle=look[cell[1]].dashes)
                    last = max([last, *x])
                axis.set(title=f"{m}, unimodal logits" if m else "fused model", ylabel="val accuracy, percent")
                axis.set_ylim(0, 101)
            for axis in axes:
                whole_epochs(axis, last)
        legend = {method: look[method] for _, method in cells}
        caption = f"Accuracy on val, mean over {plural(len(results.seeds), 'seed')}. "
        caption += "A modality inside a fused model is scored by its unimodal logits."
        if results.alone:
            legend["trained on the modality alone"] = ALONE
            caption += (
                " The dotted line is the model trained on that modality alone, with a fusion of its own, so a gap"
                " includes encoder and fusion; the probe in the table compares the encoders."
            )
        title = f"Accuracy over epochs, fusion {fusion}"
        yield Drawing(f"learning-{results.name}-{fusion}", title, caption, figure, legend)
