"""The results tables: one row per data set, recipe, fusion and method, over seeds, as CSV, Markdown and LaTeX.

`accuracy_table` makes the numbers (shares of 1, the CSV); `tables` makes what people read (percent), and `markdown` and
`latex` write it. The HTML report writes the same `Table`s. Modalities and methods are whatever the metrics name.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from pipeline_src.reports.statistics import Summary, paired, summary

CELL = ["dataset", "recipe", "fusion", "method"]
COLUMNS = [*CELL, "seed", "split", "modality", "metric", "value"]
FUSED = "fused"  # the "modality" of the whole model
BASELINE = "joint"  # the method that all others are compared with

NONE = "\u2013"  # no figure
MINUS = "\u2212"
MARK = "\u2020"  # dagger
WHOLE = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "map": "mAP",
    "accuracy_best_test_epoch": "best test epoch (papers' rule, chooses on test)",
}
COST = ("seconds", "forwards", "backwards")  # of training
VIEWS = {"accuracy_share": "share", "accuracy_removal": "removal", "accuracy_probe": "probe"}
STATISTICS = ("mean", "sd", "ci_low", "ci_high")


def accuracy_table(
    metrics: pd.DataFrame, cells: Iterable[dict[str, str]], seeds: Sequence[int], confidence: float
) -> pd.DataFrame:
    """The test metrics of every cell over the seeds, as shares of 1, in the order of `cells`.

    `metrics` is in long form with COLUMNS; `cells` name the rows, `seeds` the runs that each should have. Columns:
        CELL, seeds ("2 of 3"), complete (bool)
        <what>_mean, _sd, _ci_low, _ci_high    what: accuracy, macro_f1, map, accuracy_best_test_epoch; per modality
                                               m/accuracy_share, m/accuracy_removal, m/accuracy_probe
        m/probe_gap_*     m/accuracy_probe less that of the model trained on m alone, paired by seed
        m/probe_gain_*    m/accuracy_probe less that of BASELINE with the same fusion, paired by seed
        accuracy_gain_*   accuracy less that of BASELINE with the same fusion, paired by seed
        seconds_*         training time of a run
        passes_*          forward and backward passes of clips over those of BASELINE with the same fusion
    Where seeds are missing, the mean is of those that are there, and there is no deviation, interval, gap or gain. In
    the row of a unimodal model its modality stands for the whole.
    """
    found: dict[tuple, dict[int, float]] = defaultdict(dict)  # (cell, modality, metric) -> seed -> value
    done, own = defaultdict(set), defaultdict(dict)  # of a cell: its seeds; its modalities, in order
    for *cell, seed, split, modality, metric, value in metrics[COLUMNS].itertuples(index=False):
        cell = tuple(cell)
        done[cell].add(seed)
        if split == "test" or metric in COST:
            found[cell, modality, metric][seed] = value
        if split == "test" and modality != FUSED:
            own[cell][modality] = None

    cells = [tuple(cell[name] for name in CELL) for cell in cells]
    modalities = list(dict.fromkeys(m for cell in cells for m in own[cell]))
    alone = {}  # (data set, recipe, modality) -> the cell of the model that has no other
    for cell in cells:
        if len(own[cell]) == 1:
            alone.setdefault((*cell[:2], *own[cell]), cell)

    def over_seeds(cell: tuple, modality: str, metric: str) -> Summary:
        values = [found[cell, modality, metric][s] for s in seeds if s in found[cell, modality, metric]]
        whole = summary(values, confidence)
        return whole if len(values) == len(seeds) else Summary(whole.n, whole.mean)

    def difference(cell: tuple, other: tuple | None, modality: str, metric: str) -> Summary:
        both = [found.get((one, modality, metric), {}) for one in (cell, other)]
        if cell == other or any(len(values) < len(seeds) for values in both):
            return Summary(0)
        return paired(*([values[s] for s in seeds] for values in both), confidence)

    def passes(cell: tuple, other: tuple) -> Summary:
        counts = [
            [sum(found[one, FUSED, metric].get(s, math.nan) for metric in ("forwards", "backwards")) for s in seeds]
            for one in (cell, other)
        ]
        return summary([a / b for a, b in zip(*counts, strict=True) if not math.isnan(a / b)], confidence)

    rows = []
    for cell in cells:
        count = len(done[cell] & set(seeds))
        row = {
            **dict(zip(CELL, cell, strict=True)),
            "seeds": f"{count} of {len(seeds)}",
            "complete": count == len(seeds),
        }
        reference = (*cell[:3], BASELINE)
        sums = {metric: over_seeds(cell, FUSED, metric) for metric in WHOLE}
        for m in modalities:
            sums |= {f"{m}/{metric}": over_seeds(cell, m, metric) for metric in VIEWS}
            sums[f"{m}/probe_gap"] = difference(cell, alone.get((*cell[:2], m)), m, "accuracy_probe")
            sums[f"{m}/probe_gain"] = difference(cell, reference, m, "accuracy_probe")
        sums["accuracy_gain"] = difference(cell, reference, FUSED, "accuracy")
        sums["seconds"] = over_seeds(cell, FUSED, "seconds")
        sums["passes"] = passes(cell, reference)
        for what, one in sums.items():
            row |= {f"{what}_{name}": getattr(one, name) for name in STATISTICS}
        rows.append(row)
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Figure:
    """A cell of a table as people read it: the value and, apart, its interval or what is wrong with it."""

    value: str
    interval: str = ""

    def __str__(self) -> str:
        return f"{self.value} {self.interval}".rstrip()


@dataclass(frozen=True)
class Table:
    """A table as people read it. The first `names` columns are words, the rest figures."""

    title: str
    caption: str
    columns: list[str]
    rows: list[list[Figure]]
    names: int


def modalities_of(table: pd.DataFrame) -> list[str]:
    """The modalities of an accuracy table, in its order."""
    return [column.removesuffix("/probe_gap_mean") for column in table if column.endswith("/probe_gap_mean")]


def read(row, what: str) -> Summary:
    """The Summary that stands in a row of an accuracy table (`n` is not there: it is 0)."""
    return Summary(0, *(float(row[f"{what}_{name}"]) for name in STATISTICS))


def percent(share: float, sign: bool = False) -> str:
    """A share as `91.7`, or with a sign as `+13.1`; NONE for NaN."""
    if math.isnan(share):
        return NONE
    value = round(100 * share, 1) + 0.0  # no -0.0
    return (f"{value:+.1f}" if sign and value else f"{value:.1f}").replace("-", MINUS)


def interval(one: Summary, sign: bool = False) -> str:
    """The interval in percent, `[89.4, 94.0]`; `[NONE]` where there is none."""
    if math.isnan(one.ci_low):
        return f"[{NONE}]"
    return f"[{percent(one.ci_low, sign)}, {percent(one.ci_high, sign)}]"


def figure(one: Summary, seeds: int, sign: bool = False) -> Figure:
    """`91.7 ± 0.9` and `[89.4, 94.0]`; marked where some of the `seeds` are missing."""
    if math.isnan(one.mean):
        return Figure(NONE)
    mean = percent(one.mean, sign)
    if math.isnan(one.sd):
        return Figure(mean, interval(one) if seeds == 1 else "(incomplete)")
    return Figure(f"{mean} ± {percent(one.sd)}", interval(one, sign))


def captions(table: pd.DataFrame, seeds: int, confidence: float) -> str:
    """What the figures of an accuracy table are, and what they do not support."""
    if seeds > 1:
        text = f"Test, percent: mean ± standard deviation over {seeds} seeds [{level(confidence)} Student t interval]."
    else:
        text = f"Test, percent. One seed supports no conclusion: no deviation and no interval ({NONE})."
    if not table.complete.all():
        text += " Rows marked incomplete lack runs: their mean is over the runs that are there, and is not a result."
    return text


def level(confidence: float) -> str:
    return f"{100 * confidence:g} %"


def tables(
    table: pd.DataFrame, seeds: int, confidence: float, extensions: dict[tuple[str, str], str] | None = None
) -> list[Table]:
    """Two tables per data set: the whole model, and each of its modalities.

    `extensions` {(data set, method): text} says of a method what no paper gives; it is marked and the text shown.
    """
    made = []
    common = captions(table, seeds, confidence)
    for (dataset, recipe), part in table.groupby(CELL[:2], sort=False):
        where = f"{dataset} (recipe {recipe})"
        notes = {method: text for (name, method), text in (extensions or {}).items() if name == dataset}
        for one in (_whole(part, where, common, seeds), _each(part, where, common, seeds)):
            made.append(_marked(one, notes))
    return made


def _marked(table: Table, notes: dict[str, str]) -> Table:
    """The table with a mark at the methods that have a note, and the notes in its caption."""
    if not notes:
        return table
    rows = [[r[0], Figure(f"{r[1]} {MARK}") if r[1].value in notes else r[1], *r[2:]] for r in table.rows]
    text = " ".join(f"{method}: {note}." for method, note in notes.items())
    return replace(table, rows=rows, caption=f"{table.caption} {MARK} Extension that no paper gives. {text}")


def _whole(part: pd.DataFrame, where: str, common: str, seeds: int) -> Table:
    shown = {what: label for what, label in WHOLE.items() if part[f"{what}_mean"].notna().any() or what == "accuracy"}
    gains = part.accuracy_gain_mean.notna().any()
    rows = []
    for row in part.to_dict("records"):
        figures = [figure(read(row, what), seeds) for what in shown]
        if gains:
            figures.insert(1, figure(read(row, "accuracy_gain"), seeds, sign=True))
        figures += [plain(row["seconds_mean"], 0), plain(row["passes_mean"], 2)]
        rows.append([*map(Figure, (row["fusion"], row["method"], row["seeds"])), *figures])
    columns = ["fusion", "method", "seeds", *shown.values(), "training, s", f"passes / {BASELINE}"]
    caption = common
    if gains:
        columns.insert(4, f"{MINUS} {BASELINE}")
        caption += f" {MINUS} {BASELINE}: accuracy less that of {BASELINE}, points, same fusion, paired by seed."
    caption += (
        " Training: mean seconds of a run, on a machine that ran others beside it; passes: clips taken forward and"
        f" backward over those of {BASELINE}. {NONE}: nothing to compare with."
    )
    return Table(f"Accuracy: {where}", caption, columns, rows, 3)


def _each(part: pd.DataFrame, where: str, common: str, seeds: int) -> Table:
    gains = any(part[f"{m}/probe_gain_mean"].notna().any() for m in modalities_of(part))
    rows = []
    for row in part.to_dict("records"):
        for m in modalities_of(part):
            views = [read(row, f"{m}/{what}") for what in VIEWS]
            if all(math.isnan(view.mean) for view in views):
                continue  # a modality that this model does not have
            differences = ["probe_gap", "probe_gain"] if gains else ["probe_gap"]
            figures = [figure(view, seeds) for view in views]
            figures += [figure(read(row, f"{m}/{what}"), seeds, sign=True) for what in differences]
            rows.append([*map(Figure, (row["fusion"], row["method"], m)), *figures])
    caption = (
        f"{common} Share: the modality's part of the head's logits; removal: the head with the other modalities taken"
        f" out; probe: a linear classifier on the encoder's features. Probe {MINUS} alone: that probe less the probe"
        f" of the model trained on this modality alone, in points, paired by seed ({NONE}: nothing to compare with)."
    )
    columns = ["fusion", "method", "modality", *VIEWS.values(), f"probe {MINUS} alone"]
    if gains:
        columns.append(f"probe {MINUS} {BASELINE}")
        caption += f" Probe {MINUS} {BASELINE}: less the probe of {BASELINE} with the same fusion."
    return Table(f"Each modality: {where}", caption, columns, rows, 3)


def plain(value: float, digits: int) -> Figure:
    """A number that has no interval to show."""
    return Figure(NONE if math.isnan(value) else f"{value:.{digits}f}")


def csv(table: pd.DataFrame) -> str:
    """The accuracy table as CSV, every digit kept, empty where there is no figure."""
    return table.to_csv(index=False, lineterminator="\n")


def markdown(made: Iterable[Table]) -> str:
    """Tables as Markdown that is also readable as plain text."""
    parts = []
    for table in made:
        lines = [[_markdown(c) for c in table.columns], *([_markdown(str(f)) for f in row] for row in table.rows)]
        width = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rule = ["-" * w if i < table.names else "-" * (w - 1) + ":" for i, w in enumerate(width)]
        lines = [lines[0], rule, *lines[1:]]
        text = "\n".join(
            "| "
            + " | ".join(
                c.ljust(w) if i < table.names else c.rjust(w) for i, (c, w) in enumerate(zip(line, width, strict=True))
            )
            + " |"
            for line in lines
        )
        parts.append(f"## {_markdown(table.title)}\n\n{_markdown(table.caption)}\n\n{text}\n")
    return "\n".join(parts)


def _markdown(text: str) -> str:
    return text.translate(str.maketrans({c: f"\\{c}" for c in "\\|*`<"}))


_LATEX = str.maketrans(
    {
        **{c: f"\\{c}" for c in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "[": "{[}",  # after \\ it would open an optional argument
        "]": "{]}",
        "±": r"$\pm$",
        MINUS: "$-$",
        NONE: "--",
        MARK: r"\dag{}",
    }
)


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is written here."""
    return text.translate(_LATEX)


def latex(made: Iterable[Table]) -> str:
    """Tables as LaTeX floats, scaled to the line; the document needs the packages booktabs and graphicx."""
    parts = ["% needs \\usepackage{booktabs,graphicx}\n"]
    for table in made:
        lines = [" & ".join(escape_latex(str(f)) for f in row) + r" \\" for row in table.rows]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    rf"  \caption{{{escape_latex(f'{table.title}. {table.caption}')}}}",
                    r"  \resizebox{\linewidth}{!}{%",
                    rf"  \begin{{tabular}}{{{'l' * table.names}{'r' * (len(table.columns) - table.names)}}}",
                    r"    \toprule",
                    "    " + " & ".join(map(escape_latex, table.columns)) + r" \\",
                    r"    \midrule",
                    *(f"    {line}" for line in lines),
                    r"    \bottomrule",
                    r"  \end{tabular}}",
                    r"\end{table}",
                    "",
                ]
            )
        )
    return "\n".join(parts)
