"""What `bench gpu` aims at, and whether the measured figures meet it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.gpu import Rate

VGGSOUND = 199_467  # clips, all of them counted as visited in an epoch
EPOCHS = 100
BUSY, SLOWER, FASTER, HOURS = 0.9, 1.05, 10.0, 3.5  # what is aimed at
READ = 0.9  # of the bytes of a cold cache that must come from the disk, at least
NAN, MISSING = float("nan"), "not measured here"
RESIDENT, COLD = "resident", "streamed, cold"


def aims(
    training: Mapping[str, Rate], whole: Mapping[str, Rate], published: float | None, excuse: str = ""
) -> list[tuple[str, str, str]]:
    """(aim, verdict, value) of each aim, by the rates {cache: rate} of training alone and of whole epochs of a run, in
    one precision. What is missing or NaN is "not measured here", and everything where an `excuse` says why this
    machine or network is not the one that the aims are about.
    """
    lines: list[tuple[str, str, str]] = []

    def line(aim: str, value: float, met: bool, said: str, why: str = "no figure") -> None:
        if math.isnan(value):
            lines.append((aim, MISSING, excuse or why))
        elif excuse:
            lines.append((aim, MISSING, f"{excuse}; here {said}"))
        else:
            lines.append((aim, "met" if met else "not met", said))

    for what, rates in (("steps alone", training), ("whole epochs", whole)):
        share, kind = min(((r.busy, k) for k, r in rates.items() if r.busy >= 0), default=(NAN, ""))
        aim = f"busy at least {100 * BUSY:.0f} % of the time, {what}"
        line(aim, share, share >= BUSY, f"{100 * share:.1f} % ({kind}, the least)")
    for what, rates in (("training alone", training), ("whole epochs", whole)):
        slower = _samples(rates, RESIDENT) / _samples(rates, COLD)
        aim = f"{COLD}: at most {SLOWER} times resident, {what}"
        line(aim, slower, slower <= SLOWER, f"{slower:.3f}", _why(rates))
    faster = _samples(training, RESIDENT) / (published or NAN)
    aim = f"at least {FASTER:.0f} times the published way, training alone"
    line(aim, faster, faster >= FASTER, f"{faster:.1f} ({RESIDENT})")
    for what, rates in (("training alone", training), ("whole epochs", whole)):
        hours = VGGSOUND * EPOCHS / _samples(rates, COLD) / 3600
        aim = f"VGGSound x {EPOCHS} epochs below {HOURS} hours, {what}"
        line(aim, hours, hours < HOURS, f"{hours:,.2f} h ({COLD})", _why(rates))
    return lines


def _samples(rates: Mapping[str, Rate], kind: str) -> float:
    """Samples per second; NaN if they were not measured, or if what is called cold came from memory."""
    rate = rates.get(kind)
    return NAN if rate is None or (kind == COLD and not rate.from_disk >= READ) else rate.samples


def _why(rates: Mapping[str, Rate]) -> str:
    """Why there is no figure of a cold cache."""
    if COLD not in rates or rates[COLD].from_disk >= READ:
        return "no figure"
    share = rates[COLD].from_disk
    said = "the system does not say what came from the disk" if math.isnan(share) else f"{share:.0%} came from the disk"
    return f"not cold, {said}"
