"""How numbers are written: percent, intervals, p values, counts and times, with typographic signs."""

import math
from collections.abc import Collection, Sequence

from pipeline_src.reports.statistics import Summary

NONE = "\u2013"  # no value
MINUS = "\u2212"
MARK = "\u2020"  # dagger


def percent(fraction: float, sign: bool = False) -> str:
    """A fraction as `91.7`, or with a sign as `+13.1`; NONE for NaN."""
    if math.isnan(fraction):
        return NONE
    value = round(100 * fraction, 1) + 0.0  # no -0.0
    return (f"{value:+.1f}" if sign and value else f"{value:.1f}").replace("-", MINUS)


def value(number: float, unit: str = "%", sign: bool = False) -> str:
    """A value of a metric: in percent where that is its unit, else `0.873`; NONE for NaN."""
    if unit == "%" or math.isnan(number):
        return percent(number, sign)
    rounded = round(number, 3) + 0.0
    return (f"{rounded:+.3f}" if sign and rounded else f"{rounded:.3f}").replace("-", MINUS)


def points(unit: str, before: str = " ") -> str:
    """` points`, as differences of percentages are called; nothing for another unit."""
    return f"{before}points" if unit == "%" else ""


def interval(summary: Summary, sign: bool = False, unit: str = "%") -> str:
    """The interval, `[89.4, 94.0]`; of two values, which have none, the values, `(89.4, 94.0)`; else `[NONE]`."""
    if not math.isnan(summary.ci_low):
        return f"[{_bound(summary.ci_low, unit, sign)}, {_bound(summary.ci_high, unit, sign)}]"
    if math.isnan(summary.sd):
        return f"[{NONE}]"
    low, high = pair(summary)
    return f"({value(low, unit, sign)}, {value(high, unit, sign)})"


def _bound(number: float, unit: str, sign: bool) -> str:
    """As `value`; of a difference that is not 0 but rounds to 0.0, `+0.02`, so that an interval shows if it has 0."""
    scaled, digits = (100 * number, 1) if unit == "%" else (number, 3)
    if sign and abs(scaled) > 1e-6 and round(scaled, digits) == 0:
        return f"{scaled:+.1g}".replace("-", MINUS)
    return value(number, unit, sign)


def pair(summary: Summary) -> tuple[float, float]:
    """The two values, in order, whose mean and standard deviation a Summary has."""
    return summary.mean - summary.sd / math.sqrt(2), summary.mean + summary.sd / math.sqrt(2)


def p_value(p: float) -> str:
    """`0.031`, or `< 0.001`; NONE for NaN."""
    if math.isnan(p):
        return NONE
    if p < 0.001:
        return "< 0.001"
    digits = 2 if p >= 0.0995 else 4 if 0.0495 <= p < 0.05 else 3  # not 0.050, which tells nothing
    return f"{p:.{digits}f}"


def level(confidence: float) -> str:
    """`95 %`."""
    return f"{100 * confidence:g} %"


def number(value: float | None, digits: int = 0) -> str:
    """`12 345`, with thin spaces; NONE for NaN."""
    return NONE if value is None or math.isnan(value) else f"{value:,.{digits}f}".replace(",", "\u2009")


def clock(seconds: float) -> str:
    """`45.2 s`, `3 min 20 s` or `2 h 05 min`; NONE for NaN."""
    if math.isnan(seconds):
        return NONE
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def covered(vary: Collection[str], shared: str = "") -> str:
    """Which randomness the intervals over seeds cover, by the study's `vary`; `shared` is what all draws share."""
    varying = ["initial weights", "order of batches", "augmentation"]
    varying += ["split into train and val"] * ("split" in vary) + ["draw of the data, test samples included"] * (
        "data" in vary
    )
    text = f"Intervals cover what varies with the seed: {words(varying)}."
    if "data" in vary:
        return f"{text} {shared}".rstrip()
    same = "Test samples are" if "split" in vary else "Split and data are"
    return f"{text} {same} the same in all seeds, so intervals do not cover other data."


def capital(label: str) -> str:
    """`Accuracy`, `mAP`: a label that has no capital gets one."""
    return label if any(letter.isupper() for letter in label) else label.capitalize()


def plural(count: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def words(items: Sequence[object]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}" if first else last
