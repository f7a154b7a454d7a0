"""Reading lists of clips as they are found: any of the usual separators, with or without a header, from any system.

What a list may have without harm is put up with: a byte-order mark, Windows line ends, blank lines, quotes, spaces
around values. Rows that stand twice are used once and counted. All else is an error that names file and line.
"""

import csv
import io
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from pipeline_src.core import files
from pipeline_src.core.errors import UserError, listed
from pipeline_src.core.registry import closest
from pipeline_src.datasets.base import Clip

log = logging.getLogger(__name__)

SEPARATORS = ",;\t&"
NAMES = {",": "','", ";": "';'", "\t": "tab", "&": "'&'", " ": "space"}
CLIPS = "clips.csv"  # what a dataset's fetch stage lists its clips in


class Row(NamedTuple):
    file: Path
    line: int
    cells: tuple[str, ...]

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def read(
    file: Path, columns: tuple[str, ...], fix: str, separators: str = SEPARATORS, optional: str | None = None
) -> list[Row]:
    """The rows of a list with these columns, in order, each once.

    A first row that names the columns is a header, and may give them in another order; a column may have several
    names, `id|name`, and the `optional` one may be empty. `fix` says in the errors how to get a right list. Raises
    UserError.
    """
    text = _text(file, fix)
    separator = _separator(file, text, len(columns), columns, fix, separators)
    rows, seen, twice, order, line = [], {}, [], None, 0
    table = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        for cells in table:
            first, line = line + 1, table.line_num  # a quoted value may go over several lines
            cells = tuple(cell.strip() for cell in cells)
            while len(cells) > len(columns) and not cells[-1]:  # spreadsheets fill up short rows
                cells = cells[:-1]
            if not any(cells):
                continue
            if order is None:
                header = _header(cells, columns)
                order = header or range(len(columns))
                if header:
                    continue
            row = Row(file, first, cells)
            if len(cells) != len(columns):
                expected = f"expected {len(columns)} values ({_named(columns)})"
                raise UserError(f"{row.place}: {expected}, but got {len(cells)}; fix the line, or {fix}")
            row = row._replace(cells=tuple(cells[i] for i in order))
            for column, cell in zip(columns, row.cells, strict=True):
                if not cell and column != optional:
                    empty = column.split("|")[0]
                    raise UserError(f"{row.place}: expected a value for {empty}, but got none; fix the line, or {fix}")
            if row.cells in seen:
                twice.append(row.line)
                continue
            seen[row.cells] = row.line
            rows.append(row)
    except csv.Error as error:
        raise UserError(f"{file}:{table.line_num}: not a table: {error}; {fix}") from error
    if not rows:
        raise UserError(f"{file}: expected rows with {_named(columns)}, but got none; {fix}")
    if twice:
        log.warning(f"{file}  {len(twice)} rows stand twice and are used once: lines {listed(twice)}")
    return rows


def once(rows: Iterable[Row], key: Callable[[Row], str], fix: str) -> list[Row]:
    """The rows, if no two have one key. Raises UserError, naming both, as they contradict each other."""
    first: dict[str, Row] = {}
    for row in rows:
        other = first.setdefault(key(row), row)
        if other is not row:
            raise UserError(
                f"{row.place}: expected each clip once, but got {key(row)!r} with other values in {other.place}; "
                f"remove one, or {fix}"
            )
    return list(first.values())


def label(row: Row, value: str, classes: Iterable[str], fix: str) -> str:
    """The value, if it is a class. Raises UserError with the closest one."""
    if value not in classes:
        raise UserError(f"{row.place}: expected a class, but got {value!r}{closest(value, classes)}; {fix}")
    return value


def classes(rows: Iterable[Row], column: int, count: int, fix: str) -> tuple[str, ...]:
    """The labels of a column in alphabetical order. Raises UserError, naming the rarest, if they are not `count`."""
    rows = list(rows)
    counts = Counter(row.cells[column] for row in rows)
    if len(counts) != count:
        rare = min(counts, key=lambda name: (counts[name], name))
        place = next(row for row in rows if row.cells[column] == rare).place
        raise UserError(
            f"{rows[0].file}: expected {count} classes, but got {len(counts)}; the rarest is {rare!r}, "
            f"{counts[rare]} times, first in {place}; {fix}"
        )
    return tuple(sorted(counts))


def _text(file: Path, fix: str) -> str:
    try:
        raw = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{file}: expected a list, but got no file; {fix}") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}; {fix}") from None
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UserError(f"{file}:{line}: expected UTF-8, but got {error.reason}; save it as UTF-8, or {fix}") from None
    if "\0" in text:
        raise UserError(f"{file}: expected text, but got binary data; {fix}")
    return text


def _separator(file: Path, text: str, count: int, columns: tuple, fix: str, separators: str) -> str:
    """The separator that cuts most of the first lines into the right number of values."""
    sample = [line for line in text.splitlines() if line.strip(f"{separators} \t")][:200]
    if count == 1:
        return separators[0]

    def fits(separator: str) -> int:
        cut = csv.reader(sample, delimiter=separator, skipinitialspace=True)
        return sum(len(cells) == count or (len(cells) > count and not any(cells[count:])) for cells in cut)

    best = max(separators, key=fits)
    if sample and not fits(best):
        known = ", ".join(NAMES[s] for s in separators)
        raise UserError(
            f"{file}: expected lines of {count} values ({_named(columns)}) separated by {known}, "
            f"found {sample[0][:80]!r}; {fix}"
        )
    return best


def _header(cells: tuple[str, ...], columns: tuple[str, ...]) -> list[int] | None:
    """Where each column is, if the cells name the columns; None if they are values."""
    names = [cell.lower() for cell in cells]
    places = [next((names.index(n) for n in column.split("|") if n in names), None) for column in columns]
    return places if None not in places and len(set(places)) == len(names) else None


def _named(columns: tuple[str, ...]) -> str:
    return ", ".join(column.split("|")[0] for column in columns)


# --- files on disk ---------------------------------------------------------------------------------------------------


def stems(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """{name without suffix: path relative to `folder`} of every file with one of the suffixes, wherever below it.

    Raises UserError if two have one name, as it cannot be known which one is meant.
    """
    found: dict[str, Path] = {}
    for name, _ in files.below(folder, follow=True) if folder.is_dir() else ():
        path = Path(name)
        if path.suffix.lower() in suffixes:
            if path.stem in found:
                raise UserError(
                    f"{folder / path}: expected each clip's file once, but got {found[path.stem]} too; remove one"
                )
            found[path.stem] = path
    return found


def write_clips(folder: Path, clips: Iterable[Clip]) -> None:
    """List clips in clips.csv, the modalities' files in columns of their names."""
    with (folder / CLIPS).open("w", encoding="utf-8", newline="") as handle:
        table = csv.writer(handle, lineterminator="\n")
        for i, clip in enumerate(clips):
            if i == 0:
                table.writerow(["id", "label", "split", "group", *clip.files])
            table.writerow([*clip[:4], *(file.as_posix() for file in clip.files.values())])


def read_clips(folder: Path, modalities: tuple[str, ...]) -> Iterable[Clip]:
    """The clips that `write_clips` listed."""
    for row in read(folder / CLIPS, ("id", "label", "split", "group", *modalities), "run fetch again"):
        names = dict(zip(modalities, map(Path, row.cells[4:]), strict=True))
        yield Clip(*row.cells[:4], names)
