"""Lists of clips, as CSV with the separator of the published file, UTF-8 and no header.

A row that occurs twice is used once and counted. Every error names file and line.
"""

import csv
import io
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from pipeline_src.core import files
from pipeline_src.core.errors import UserError, brief, listed
from pipeline_src.core.registry import closest
from pipeline_src.datasets.base import Clip

log = logging.getLogger(__name__)

CLIPS = "clips.csv"  # the list of a dataset whose fetch stage writes its files


class Row(NamedTuple):
    file: Path
    line: int
    cells: tuple[str, ...]

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def read(
    file: Path, columns: tuple[str, ...], fix: str, separator: str = ",", header: bool = False, optional: str = ""
) -> list[Row]:
    """The rows of a list with these columns, in order, each once.

    With `header`, the first row must name the columns. Cells of the column `optional` may be empty. `fix` says in the
    errors how to get a right list. Raises UserError.
    """
    rows: dict[tuple[str, ...], Row] = {}
    twice, line = [], 0
    table = csv.reader(io.StringIO(_text(file, fix), newline=""), delimiter=separator, skipinitialspace=True)
    try:
        for values in table:
            first, line = line + 1, table.line_num  # a quoted value may go over several lines
            cells = tuple(value.strip() for value in values)
            if not any(cells):
                continue
            row = Row(file, first, cells)
            if len(cells) != len(columns):
                expected = f"expected {len(columns)} values ({', '.join(columns)}) separated by {separator!r}"
                raise UserError(f"{row.place}: {expected}, but got {len(cells)}; fix the line, or {fix}")
            if header:
                if cells != columns:
                    raise UserError(
                        f"{row.place}: expected {separator.join(columns)}, but got {separator.join(cells)}; {fix}"
                    )
                header = False
                continue
            for column, cell in zip(columns, cells, strict=True):
                if not cell and column != optional:
                    raise UserError(f"{row.place}: expected a value for {column}, but got none; fix the line, or {fix}")
            if rows.setdefault(cells, row) is not row:
                twice.append(first)
    except csv.Error as error:
        raise UserError(f"{file}:{table.line_num}: expected a table, but got an error: {error}; {fix}") from None
    if not rows:
        raise UserError(f"{file}: expected rows with {', '.join(columns)}, but got none; {fix}")
    if twice:
        log.warning(f"{file}  {len(twice)} rows occur twice and are used once: lines {listed(twice)}")
    return list(rows.values())


def once(rows: Iterable[Row], key: Callable[[Row], str], fix: str) -> list[Row]:
    """The rows. Raises UserError, naming both places, if two rows have the same key."""
    first: dict[str, Row] = {}
    for row in rows:
        other = first.setdefault(key(row), row)
        if other is not row:
            raise UserError(
                f"{row.place}: expected each clip once, but got {brief(key(row))} with other values in {other.place}; "
                f"remove one, or {fix}"
            )
    return list(first.values())


def label(row: Row, value: str, classes: Iterable[str], fix: str) -> str:
    """The value. Raises UserError, with the closest class, if it is no class."""
    if value not in classes:
        raise UserError(f"{row.place}: expected a class, but got {brief(value)}{closest(value, classes)}; {fix}")
    return value


def classes(rows: Iterable[Row], column: int, count: int, fix: str) -> tuple[str, ...]:
    """The labels of a column in alphabetical order. Raises UserError, naming the rarest, if they are not `count`."""
    rows = list(rows)
    counts = Counter(row.cells[column] for row in rows)
    if len(counts) != count:
        rare = min(counts, key=lambda name: (counts[name], name))
        place = next(row for row in rows if row.cells[column] == rare).place
        raise UserError(
            f"{rows[0].file}: expected {count} classes, but got {len(counts)}; the rarest is {brief(rare)}, "
            f"{counts[rare]} times, first in {place}; {fix}"
        )
    return tuple(sorted(counts))


def _text(file: Path, fix: str) -> str:
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise UserError(f"{file}: expected a list, but got a pipe or a device; {fix}")
    try:
        text = file.read_bytes().decode("utf-8-sig")  # OGM-GE's lists begin with a byte-order mark
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{file}: expected a list, but got no file; {fix}") from None
    except OSError as error:
        raise UserError(f"{file}: expected a list, but got {error.strerror}; {fix}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{file}:{line}: expected UTF-8, but got {error.reason}; save it as UTF-8, or {fix}") from None
    if "\0" in text:
        raise UserError(f"{file}: expected text, but got binary data; {fix}")
    return text


# --- files on disk ---------------------------------------------------------------------------------------------------


def stems(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """{name without suffix: path relative to `folder`} of every file with these suffixes, at any depth.

    Raises UserError if two files have the same name, as either could be meant.
    """
    paths: dict[str, Path] = {}
    for name, _ in files.below(folder, follow=True) if folder.is_dir() else ():
        path = Path(name)
        if path.suffix.lower() in suffixes:
            if path.stem in paths:
                raise UserError(
                    f"{folder / path}: expected each clip's file once, but got {paths[path.stem]} too; remove one"
                )
            paths[path.stem] = path
    return paths


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
    columns = ("id", "label", "split", "group", *modalities)
    for row in read(folder / CLIPS, columns, "run fetch again", header=True):
        names = dict(zip(modalities, map(Path, row.cells[4:]), strict=True))
        clip, label, split, group = row.cells[:4]
        yield Clip(clip, label, split, group, names)
