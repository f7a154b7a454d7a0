"""The results tables: one row per dataset, recipe, fusion and method, over seeds, as CSV, Markdown and LaTeX.

`accuracy_table` makes the numbers (shares of 1, the CSV); `tables` makes what people read (percent), and `markdown` and
`latex` write it. The HTML report writes the same `Table`s. Modalities and methods are whatever the metrics name.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from pipeline_src.evaluation import FUSED
from pipeline_src.reports.statistics import Difference, Summary, holm, paired, simultaneous, summary

CELL = ["dataset", "recipe", "fusion", "method"]
COLUMNS = [*CELL, "seed", "split", "modality", "metric", "value"]
BASELINE = "joint"  # the method that all others are compared with

NONE = "\u2013"  # no figure
MINUS = "\u2212"
MARK = "\u2020"  # dagger
WHOLE = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "accuracy_best_test_epoch": "best test epoch",
}
UNSHOWN = ("map",)  # for the CSV alone
COST = ("seconds", "forwards", "backwards")  # of training
VIEWS = {"accuracy_unimodal": "unimodal", "accuracy_removal": "removal", "accuracy_probe": "probe"}
STATISTICS = ("mean", "sd", "ci_low", "ci_high")
TESTED = ("p", "d_z", "g_z", "p_holm", "all_low", "all_high")  # of a difference, besides STATISTICS
GAIN, GAP, PROBE_GAIN = "accuracy_gain", "probe_gap", "probe_gain"  # the differences; the last two of each modality
FAMILY = (
    "p is that of the paired t test, adjusted by Holm's method for all differences of its kind on the dataset, of all"
    " fusions and modalities"
)


def accuracy_table(
    metrics: pd.DataFrame, cells: Iterable[dict[str, str]], seeds: Sequence[int], confidence: float
) -> pd.DataFrame:
    """The test metrics of every cell over the seeds, as shares of 1, in the order of `cells`.

    `metrics` is in long form with COLUMNS; `cells` name the rows, `seeds` the runs that each should have. Columns:
        CELL, seeds ("2 of 3"), complete (bool)
        <what>_mean, _sd, _ci_low, _ci_high    what: accuracy, macro_f1, map, accuracy_best_test_epoch; per modality
                                               m/accuracy_unimodal, m/accuracy_removal, m/accuracy_probe
        m/probe_gap_*     m/accuracy_probe less that of the model trained on m alone, paired by seed
        m/probe_gain_*    m/accuracy_probe less that of BASELINE with the same fusion, paired by seed
        accuracy_gain_*   accuracy less that of BASELINE with the same fusion, paired by seed
                          of these three also _p (paired t test), _d_z, _g_z (effect sizes), _p_holm, _all_low and
                          _all_high: p and interval corrected for the family, which is all differences of the kind
                          (accuracy_gain, probe_gap or probe_gain) on the dataset, of all fusions and modalities
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
    alone = {}  # (dataset, recipe, modality) -> the cell of the model that has no other
    for cell in cells:
        if len(own[cell]) == 1:
            alone.setdefault((*cell[:2], *own[cell]), cell)

    def over_seeds(cell: tuple, modality: str, metric: str) -> Summary:
        values = [found[cell, modality, metric][s] for s in seeds if s in found[cell, modality, metric]]
        whole = summary(values, confidence)
        return whole if len(values) == len(seeds) else Summary(whole.n, whole.mean)

    def difference(cell: tuple, other: tuple | None, modality: str, metric: str) -> Difference:
        both = [found.get((one, modality, metric), {}) for one in (cell, other)]
        if cell == other or any(len(values) < len(seeds) for values in both):
            return Difference(0)
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
            "seeds_count": count,
        }
        reference = (*cell[:3], BASELINE)
        sums = {metric: over_seeds(cell, FUSED, metric) for metric in (*WHOLE, *UNSHOWN)}
        for m in modalities:
            sums |= {f"{m}/{metric}": over_seeds(cell, m, metric) for metric in VIEWS}
            sums[f"{m}/{GAP}"] = difference(cell, alone.get((*cell[:2], m)), m, "accuracy_probe")
            sums[f"{m}/{PROBE_GAIN}"] = difference(cell, reference, m, "accuracy_probe")
        sums[GAIN] = difference(cell, reference, FUSED, "accuracy")
        sums["seconds"] = over_seeds(cell, FUSED, "seconds")
        sums["passes"] = passes(cell, reference)
        for what, one in sums.items():
            row |= {f"{what}_{name}": getattr(one, name) for name in STATISTICS}
            if isinstance(one, Difference):
                row |= {f"{what}_{name}": getattr(one, name, math.nan) for name in TESTED}
        rows.append(row)
    _correct(rows, modalities, confidence)
    return pd.DataFrame(rows)


def _correct(rows: list[dict], modalities: list[str], confidence: float) -> None:
    """Fill in what the number of comparisons makes of p and interval, family by family."""
    for kind in ([GAIN], [f"{m}/{GAP}" for m in modalities], [f"{m}/{PROBE_GAIN}" for m in modalities]):
        families = defaultdict(list)
        for row in rows:
            families[row["dataset"], row["recipe"]] += [(row, what) for what in kind]
        for family in families.values():
            tested = sum(not math.isnan(row[f"{what}_p"]) for row, what in family)
            for (row, what), p in zip(family, holm([row[f"{what}_p"] for row, what in family]), strict=True):
                row[f"{what}_p_holm"] = p
                if not math.isnan(p):
                    one = Summary(row["seeds_count"], row[f"{what}_mean"], row[f"{what}_sd"])
                    row[f"{what}_all_low"], row[f"{what}_all_high"] = simultaneous(one, tested, confidence)
    for row in rows:
        del row["seeds_count"]


@dataclass(frozen=True)
class Figure:
    """A cell of a table as people read it: the value and, apart, its interval or what is wrong with it."""

    value: str
    interval: str = ""
    strong: bool = False  # a difference that the corrected test supports, or the best value where it does

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


def supported(row, what: str, confidence: float) -> bool:
    """Whether a difference in a row of an accuracy table stands after the correction for its family."""
    return float(row[f"{what}_p_holm"]) < 1 - confidence  # NaN is not


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


def p_value(p: float) -> str:
    """`0.031`, or `< 0.001`; NONE for NaN."""
    if math.isnan(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def figure(one: Summary, seeds: int, sign: bool = False, strong: bool = False) -> Figure:
    """`91.7 ± 0.9` and `[89.4, 94.0]`; marked where some of the `seeds` are missing."""
    if math.isnan(one.mean):
        return Figure(NONE)
    mean = percent(one.mean, sign)
    if math.isnan(one.sd):
        return Figure(mean, interval(one) if seeds == 1 else "(incomplete)")
    return Figure(f"{mean} ± {percent(one.sd)}", interval(one, sign), strong)


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
    """Two tables per dataset: the whole model, and each of its modalities.

    `extensions` {(dataset, method): text} says of a method what no paper gives; it is marked and the text shown.
    """
    made = []
    common = captions(table, seeds, confidence)
    for (dataset, recipe), part in table.groupby(CELL[:2], sort=False):
        where = f"{dataset} (recipe {recipe})"
        notes = {method: text for (name, method), text in (extensions or {}).items() if name == dataset}
        for one in (_whole(part, where, common, seeds, confidence), _each(part, where, common, seeds, confidence)):
            made.append(_marked(one, notes))
    return made


def _marked(table: Table, notes: dict[str, str]) -> Table:
    """The table with a mark at the methods that have a note, and the notes in its caption."""
    if not notes:
        return table
    rows = [[r[0], Figure(f"{r[1]} {MARK}") if r[1].value in notes else r[1], *r[2:]] for r in table.rows]
    text = " ".join(f"{method}: {note}." for method, note in notes.items())
    return replace(table, rows=rows, caption=f"{table.caption} {MARK} Extension that no paper gives. {text}")


def _whole(part: pd.DataFrame, where: str, common: str, seeds: int, confidence: float) -> Table:
    shown = {what: label for what, label in WHOLE.items() if part[f"{what}_mean"].notna().any() or what == "accuracy"}
    tested, whole = part[f"{GAIN}_mean"].notna().any(), part.complete.all()
    best = part.groupby("fusion").accuracy_mean.idxmax() if part.accuracy_mean.notna().all() else []
    rows = []
    for i, row in part.iterrows():
        stands = supported(row, GAIN, confidence)
        top = stands and row[f"{GAIN}_mean"] > 0 and i in set(best)
        figures = {what: figure(read(row, what), seeds, strong=top and what == "accuracy") for what in shown}
        accuracy = figures.pop("accuracy")
        gain = [figure(read(row, GAIN), seeds, True, stands), Figure(p_value(row[f"{GAIN}_p_holm"]))] if tested else []
        probes = [figure(read(row, f"{m}/accuracy_probe"), seeds) for m in modalities_of(part)]
        cost = [plain(row["seconds_mean"], 0), plain(row["passes_mean"], 2)]
        names = map(Figure, [row["fusion"], row["method"], *([] if whole else [row["seeds"]])])
        rows.append([*names, accuracy, *gain, *probes, *figures.values(), *cost])
    columns = ["fusion", "method", *([] if whole else ["seeds"]), shown.pop("accuracy")]
    caption = common
    if tested:
        columns += [f"{MINUS} {BASELINE}", "p, corrected"]
        caption += (
            f" {MINUS} {BASELINE}: accuracy less that of {BASELINE}, points, same fusion, paired by seed; {FAMILY}."
            f" Bold: a difference with p below {1 - confidence:.2g}, and the best accuracy of a fusion if its gain is"
            " such."
        )
    columns += [f"{m} probe" for m in modalities_of(part)]
    columns += [*shown.values(), "training, s", f"passes / {BASELINE}"]
    caption += (
        " Probe: a linear classifier on the modality's frozen encoder. Best test epoch: accuracy by the papers' rule,"
        " which chooses on test. Training: mean seconds of a run, on a machine that ran others beside it; passes:"
        f" clips taken forward and backward over those of {BASELINE}. {NONE}:"
        " nothing to compare with."
    )
    return Table(f"Accuracy: {where}", caption, columns, rows, 2 if whole else 3)


def _each(part: pd.DataFrame, where: str, common: str, seeds: int, confidence: float) -> Table:
    tested = any(part[f"{m}/{PROBE_GAIN}_mean"].notna().any() for m in modalities_of(part))
    kinds = [GAP, PROBE_GAIN] if tested else [GAP]
    rows = []
    for row in part.to_dict("records"):
        for m in modalities_of(part):
            views = [read(row, f"{m}/{what}") for what in VIEWS]
            if all(math.isnan(view.mean) for view in views):
                continue  # a modality that this model does not have
            figures = [figure(view, seeds) for view in views]
            for what in (f"{m}/{kind}" for kind in kinds):
                figures.append(figure(read(row, what), seeds, True, supported(row, what, confidence)))
            rows.append([*map(Figure, (row["fusion"], row["method"], m)), *figures])
    caption = (
        f"{common} Share: the modality's part of the fusion's logits; removal: the fusion with the others taken"
        f" out; probe: a linear classifier on the encoder's features. Probe {MINUS} alone: that probe less the probe"
        f" of the model trained on this modality alone, in points, paired by seed ({NONE}: nothing to compare with)."
    )
    columns = ["fusion", "method", "modality", *VIEWS.values(), f"probe {MINUS} alone"]
    if tested:
        columns.append(f"probe {MINUS} {BASELINE}")
        caption += f" Probe {MINUS} {BASELINE}: less the probe of {BASELINE} with the same fusion."
    caption += f" Bold: p below {1 - confidence:.2g}; {FAMILY}."
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
        lines = [[_markdown(c) for c in table.columns]]
        lines += [[_marked_up(f, _markdown, "**", "**") for f in row] for row in table.rows]
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


def _marked_up(one: Figure, escape, before: str, after: str) -> str:
    value = f"{before}{escape(one.value)}{after}" if one.strong else escape(one.value)
    return f"{value} {escape(one.interval)}".rstrip()


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
        lines = [" & ".join(_marked_up(f, escape_latex, r"\textbf{", "}") for f in row) + r" \\" for row in table.rows]
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
