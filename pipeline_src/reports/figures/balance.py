"""What the methods saw and did, epoch by epoch: discrepancy ratios, coefficients, purities, reset strengths."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline_src.reports.figures.drawing import Drawing
from pipeline_src.reports.figures.run import quantities
from pipeline_src.reports.figures.style import SOFT, looks, modality_looks, panels, styled, whole_epochs
from pipeline_src.reports.runs import Part
from pipeline_src.reports.tables import BASELINE

# What ratios and coefficients are made from; every run's own figure has it.
INGREDIENTS = ("score", "prototype_score", "prototype_loss", "entropy")
DIAGNOSIS = ("purity", "reset")  # beginnings of what D&R logs, whose panels are by modality


def balance(part: Part) -> Iterator[Drawing]:
    """A figure per fusion: a panel for each quantity and modality, a line per method that logs it."""
    look = looks(part.methods, BASELINE)
    drawn = 0
    for fusion in part.fusions:
        cells = part.cells(fusion)
        logged = quantities([part.histories[cell] for cell in cells])
        wanted = [
            (quantity, m)
            for quantity, names in logged.items()
            if quantity not in INGREDIENTS and not quantity.startswith(DIAGNOSIS)
            for m in part.modalities
            if m in names
        ]
        if not wanted:
            continue
        legend = {}
        with styled():
            figure, axes = panels(len(wanted), columns=4 if len(part.modalities) == 2 else 3, size=(2.4, 2.05))
            for axis, (quantity, m) in zip(axes, wanted, strict=True):
                last = 1
                for cell in cells:
                    x, y = part.histories[cell].get(f"{quantity}/{m}", ([], []))
                    if x:
                        one = legend[cell[1]] = look[cell[1]]
                        axis.plot(x, y, color=one.color, linestyle=one.dashes, marker="." if len(x) == 1 else None)
                        last = max(last, *x)
                if quantity == "ratio":
                    axis.axhline(1, color=SOFT, linewidth=0.8)
                    axis.set_yscale("log")
                    _plain_log(axis)
                axis.set_title(f"{quantity.replace('_', ' ')}, {m}")
                whole_epochs(axis, last)
        yield Drawing(
            f"balance-{part.name}-{fusion}",
            f"Discrepancy and what is done about it, fusion {fusion}",
            "Means over the steps of an epoch and over seeds, as each method defines them: ratio, how far a modality is"
            " ahead of the others (above 1: ahead; each method by its own scores); coefficient, what its gradient is"
            " multiplied by; drop probability, how often its features are taken out; weight and entropy weight, of"
            " PMR's two terms.",
            figure,
            legend,
            folded=drawn > 0,
        )
        drawn += 1


def _plain_log(axis) -> None:
    from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

    axis.yaxis.set_major_locator(MaxNLocator(5))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def diagnosis(part: Part) -> Drawing | None:
    """Purities and resets: a panel for each fusion and quantity, a line per modality; None if none was logged."""
    wanted = []
    for fusion in part.fusions:
        for cell in part.cells(fusion):
            logged = quantities([part.histories[cell]])
            wanted += [(cell, quantity) for quantity in logged if quantity.startswith(DIAGNOSIS)]
    if not wanted:
        return None
    wanted = wanted[:12]
    look = modality_looks(part.modalities)
    epochs = max(max(part.histories[cell].get("epoch", ([1], []))[0]) for cell, _ in wanted)
    with styled():
        figure, axes = panels(len(wanted))
        for axis, (cell, quantity) in zip(axes, wanted, strict=True):
            for m in part.modalities:
                x, y = part.histories[cell].get(f"{quantity}/{m}", ([], []))
                axis.plot(x, y, color=look[m].color, linestyle=look[m].dashes, marker=look[m].marker)
            axis.set(title=f"{quantity.replace('_', ' ')}: {cell[0]}, {cell[1]}", ylim=(0, 1.02))
            whole_epochs(axis, epochs)
    return Drawing(
        f"diagnosis-{part.name}",
        "Diagnosis and re-learning",
        "Purity of the clusters of each encoder's features on train and on val, and how far the encoder is then set"
        " back to its initial weights (0: not, 1: altogether), at the epochs at whose start that is done. Means over"
        " seeds.",
        figure,
        look,
        keys="point",
    )
