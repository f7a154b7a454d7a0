"""The results as files: CSV with every digit, Markdown and LaTeX as people read them."""

from collections.abc import Callable, Iterable

import pandas as pd

from pipeline_src.reports.tables import Entry, Table
from pipeline_src.reports.wording import MARK, MINUS, NONE


def csv(table: pd.DataFrame) -> str:
    """The accuracy table as CSV, every digit kept, empty where there is no value."""
    return table.to_csv(index=False, lineterminator="\n")


def markdown(tables: Iterable[Table]) -> str:
    """Tables as Markdown that is also readable as plain text."""
    texts = []
    for table in tables:
        lines = [[_markdown(c) for c in table.columns]]
        lines += [[_marked_up(entry, _markdown, "**", "**") for entry in row] for row in table.rows]
        width = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rule = ["-" * w if i < table.names else "-" * (w - 1) + ":" for i, w in enumerate(width)]
        text = "\n".join(_line(line, width, table.names) for line in (lines[0], rule, *lines[1:]))
        texts.append(f"## {_markdown(table.title)}\n\n{_markdown(table.caption)}\n\n{text}\n")
    return "\n".join(texts)


def _line(entries: list[str], width: list[int], names: int) -> str:
    padded = [
        text.ljust(w) if i < names else text.rjust(w) for i, (text, w) in enumerate(zip(entries, width, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


def _marked_up(entry: Entry, escape: Callable[[str], str], before: str, after: str) -> str:
    value = f"{before}{escape(entry.value)}{after}" if entry.strong else escape(entry.value)
    return f"{value} {escape(entry.interval)}".rstrip()


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


def latex(tables: Iterable[Table]) -> str:
    """Tables as LaTeX floats, scaled to the line; the document needs the packages booktabs and graphicx."""
    texts = ["% needs \\usepackage{booktabs,graphicx}\n"]
    for table in tables:
        rows = [" & ".join(_marked_up(e, escape_latex, r"\textbf{", "}") for e in row) + r" \\" for row in table.rows]
        lines = [
            r"\begin{table}",
            rf"  \caption{{{escape_latex(f'{table.title}. {table.caption}')}}}",
            r"  \resizebox{\linewidth}{!}{%",
            rf"  \begin{{tabular}}{{{'l' * table.names}{'r' * (len(table.columns) - table.names)}}}",
            r"    \toprule",
            "    " + " & ".join(map(escape_latex, table.columns)) + r" \\",
            r"    \midrule",
            *(f"    {row}" for row in rows),
            r"    \bottomrule",
            r"  \end{tabular}}",
            r"\end{table}",
            "",
        ]
        texts.append("\n".join(lines))
    return "\n".join(texts)
