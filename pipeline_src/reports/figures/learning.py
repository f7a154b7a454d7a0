"""Accuracy over the epochs, of the whole and of each modality beside the model trained on that modality alone."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline_src.reports.figures.drawing import Drawing
from pipeline_src.reports.figures.style import SOFT, Look, looks, panels, styled, whole_epochs
from pipeline_src.reports.runs import Part, accuracy_key
from pipeline_src.reports.tables import BASELINE

ALONE = Look(SOFT, (0, (1.2, 1.6)))


def learning(part: Part) -> Iterator[Drawing]:
    """A figure per fusion: a panel for the whole and one for each modality, a line per method."""
    look = looks(part.methods, BASELINE)
    drawn = 0
    for fusion in part.fusions:
        cells = [cell for cell in part.cells(fusion) if part.histories[cell].get(accuracy_key(None), ([],))[0]]
        if not cells:
            continue
        with styled():
            figure, axes = panels(1 + len(part.modalities))
            last = 1
            for axis, m in zip(axes, [None, *part.modalities], strict=True):
                x, y = part.histories.get(part.alone.get(m), {}).get(accuracy_key(None), ([], []))
                axis.plot(x, [100 * v for v in y], color=ALONE.color, linestyle=ALONE.dashes, linewidth=2.2)
                for cell in cells:
                    x, y = part.histories[cell].get(accuracy_key(m), ([], []))
                    one = look[cell[1]]
                    axis.plot(x, [100 * v for v in y], color=one.color, linestyle=one.dashes)
                    last = max([last, *x])
                axis.set(title=f"{m}, by its unimodal logits" if m else "whole model", ylabel="val accuracy, percent")
                axis.set_ylim(0, 101)
            for axis in axes:
                whole_epochs(axis, last)
        legend = {method: look[method] for _, method in cells}
        if part.alone:
            legend["the modality's model alone"] = ALONE
        yield Drawing(
            f"learning-{part.name}-{fusion}",
            f"Accuracy over epochs, fusion {fusion}",
            f"On val, mean over {len(part.seeds)} seed{'s' if len(part.seeds) > 1 else ''}. A modality inside a joint"
            " alone, with its own fusion, so a gap is of encoder and fusion together (the probe in the table"
            " alone, with a fusion of its own, so that a gap is of encoder and fusion together (the probe in the table"
            " looks at the encoder).",
            figure,
            legend,
            folded=drawn > 0,
        )
        drawn += 1
