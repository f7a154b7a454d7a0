"""Your own files: a table, CSV or Parquet, with a row per sample and a column of paths per modality.

Columns: `id`, `label`, those that `modalities` names, and if you have them `split` (train, val, test) and `group`
(speaker, patient, video: what must not be on two sides of a split). Other columns are ignored. Paths are relative to
the folder. The recipe says how a file is read: media, a picture, an array (.npy), a text. A column of a Parquet file
may hold the arrays themselves, as lists of numbers or of lists of numbers, which the extractor `array` reads.

`task` says what a label is: one class (`classification`), any number of classes, separated by `;` (`multilabel`), or a
number (`regression`).

Without `split`, `test_fraction` of the samples become the test set, cut by group where there is a column `group`, else
by sample, and stratified by class, if a sample has one. Without a row of val, val is cut from train, as of every
dataset. Without `group`, every sample is a group of its own.
"""

import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
from pydantic import AfterValidator, Field, StringConstraints

from pipeline_src.core.errors import UserError, brief, listed
from pipeline_src.core.params import SEED, printable
from pipeline_src.core.registry import closest
from pipeline_src.datasets import lists, manifest
from pipeline_src.datasets.base import Clip, Dataset, FolderParams, datasets
from pipeline_src.media import cells
from pipeline_src.tasks.base import Label, tasks

log = logging.getLogger(__name__)

FIX = "fix the table"
KEYS = ("id", "label")  # columns that every table has
OPTIONAL = ("split", "group")
TAKEN = {*KEYS, *OPTIONAL, "duration", "checksum", "fused"}  # columns of the manifest, and the model of all modalities
SEPARATORS = ",;\t"
LONGEST = 100  # characters of an id or a label
LABEL = r"[\w .,:+=@&/()'-]+"
SHOWN = 50  # columns that an error considers


def _untaken(modalities: dict[str, str]) -> dict[str, str]:
    for name, column in modalities.items():
        if name in TAKEN or column in (*KEYS, *OPTIONAL):
            raise ValueError(f"expected other names than {', '.join(sorted(TAKEN))}")
    return modalities


def _inside(file: str) -> str:
    if ".." in PurePosixPath(printable(file)).parts:
        raise ValueError("expected a path inside of the folder")
    return file


Modality = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Column = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST), AfterValidator(printable)]


class TableParams(FolderParams):
    task: Literal["classification", "multilabel", "regression"] = Field(
        default="classification", description="what a label is: a class; classes, separated by `;`; a number"
    )
    file: Annotated[str, AfterValidator(_inside)] = Field(
        pattern=r"^[^/].{0,250}\.(csv|tsv|parquet)$",
        description="the table, relative to `folder`: .csv, .tsv, .parquet",
    )
    modalities: Annotated[dict[Modality, Column], AfterValidator(_untaken)] = Field(
        min_length=2, max_length=20, description="modality -> the table's column with the paths of its files"
    )
    test_fraction: float = Field(
        default=0.2,
        ge=0.001,
        lt=0.5,
        description="fraction of the samples cut off as test, if there is no column `split`",
    )
    test_seed: int = Field(default=0, ge=0, le=SEED, description="seed of that cut; `study.vary` leaves it as it is")


class Line(NamedTuple):
    """A row of the table, as text."""

    where: str  # for errors: the file, and whether lines or rows of it are counted
    number: int
    cells: dict[str, str]  # by column; empty where the table has nothing

    @property
    def place(self) -> str:
        return f"{self.where}{self.number}"


@datasets.register("table")
class Table(Dataset):
    Params = TableParams
    params: TableParams
    title = "Your own files"

    @property
    def task(self) -> str:  # type: ignore[override]
        return self.params.task

    @property
    def modalities(self) -> tuple[str, ...]:  # type: ignore[override]
        """In alphabetical order, as the order of a block's keys is not part of an address."""
        return tuple(sorted(self.params.modalities))

    @property
    def layout(self) -> str:  # type: ignore[override]
        columns = dict.fromkeys([*KEYS, *self.params.modalities.values()])
        return f"{self.params.file}    columns {', '.join(columns)}; optional: {', '.join(OPTIONAL)}"

    @property
    def sizes(self) -> dict[str, int]:  # type: ignore[override]
        """Samples by split; none where the table is not there or wrong, which the first job says."""
        try:
            return dict(Counter(self._splits))
        except UserError:
            return {}

    @property
    def cut(self) -> str:  # type: ignore[override]
        """A sentence on how the test set came to be, or nothing if the table says it."""
        if "split" in self._columns:
            return ""
        by = "no group is on two sides" if "group" in self._columns else "every sample is a group of its own"
        return (
            f"The table has no column split: {self.params.test_fraction:.0%} of the samples were cut off as test by "
            f"seed {self.params.test_seed}{', stratified by label' * (self.task == 'classification')}; {by}."
        )

    @cached_property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """The classes in alphabetical order, whole numbers by value; none where labels are numbers to predict."""
        if self.task == "regression":
            return ()
        labels = {name for label in self._labels for name in tasks[self.task].named(label)}
        if len(labels) < 2:
            raise UserError(f"{self._file}: expected at least two labels, but got {listed(labels)} alone; {FIX}")
        numbers = all(re.fullmatch(r"\d{1,9}", label) for label in labels)
        return tuple(sorted(labels, key=lambda label: (int(label) if numbers else 0, label)))

    @cached_property
    def _labels(self) -> list[Label]:
        """The label of every row, as the task has it."""
        read: dict[str, Callable[[str], Label]]
        read = {"classification": str, "regression": float, "multilabel": _listed}
        labels = {cell: read[self.task](cell) for cell in set(self._columns["label"])}
        return [labels[cell] for cell in self._columns["label"]]

    def clips(self, folder: Path) -> Iterable[Clip]:
        """One Clip per row. Raises UserError, naming file and row, for a cell that cannot be."""
        if self.cut:
            log.info(f"table {self.params.file}  {self.cut}")
        columns = self._columns
        paths = zip(*(columns[self.params.modalities[m]] for m in self.modalities), strict=True)
        groups = columns.get("group", columns["id"])
        for clip, label, split, group, names in zip(
            columns["id"], self._labels, self._splits, groups, paths, strict=True
        ):
            yield Clip(clip, label, split, group, dict(zip(self.modalities, map(Path, names), strict=True)))

    @property
    def _file(self) -> Path:
        assert self.folder is not None
        return self.folder / self.params.file

    @cached_property
    def _columns(self) -> dict[str, list[str]]:
        """The cells of the columns that are read, after every row has been checked."""
        paths = set(self.params.modalities.values())
        needed = [*KEYS, *sorted(paths)]
        parquet = self._file.suffix == ".parquet"
        lines = _parquet(self._file, Path(self.params.file), needed, self.task) if parquet else _csv(self._file, needed)
        columns: dict[str, list[str]] = {}
        first: dict[str, int] = {}  # id -> number of its row
        same: dict[str, str] = {}  # labels and splits: of equal ones, one is kept
        for line in lines:
            _check(line, paths, self.task)
            other = first.setdefault(line.cells["id"], line.number)
            if other != line.number:
                raise UserError(
                    f"{line.place}: expected each id once, but got {brief(line.cells['id'])} in {line.where}{other}, "
                    f"too; {FIX}"
                )
            for name, cell in line.cells.items():
                kept = same.setdefault(cell, cell) if name in ("label", "split") else cell
                columns.setdefault(name, []).append(kept)
        if not columns:
            raise UserError(f"{self._file}: expected rows with {', '.join(needed)}, but got none; {FIX}")
        return columns

    @cached_property
    def _splits(self) -> list[str]:
        """The split of every row."""
        if "split" in self._columns:
            splits = self._columns["split"]
            for needed in manifest.NEEDED:
                if needed not in splits:
                    raise UserError(
                        f"{self._file}: expected rows of train and of test in the column split, but got none of "
                        f"{needed}; add some, or remove the column to have the test set cut"
                    )
            return splits
        table = pd.DataFrame({"label": [tasks[self.task].stratum(label) for label in self._labels], "split": "train"})
        table["group"] = self._columns.get("group", self._columns["id"])
        try:
            cut = manifest.cut_val(table, self.params.test_fraction, self.params.test_seed)
        except UserError:
            raise UserError(
                f"{self._file}: expected enough samples to cut off {self.params.test_fraction:.0%} as test, but got "
                f"{len(table)} in {table.group.nunique()} groups; add samples or a column split, or raise test_fraction"
            ) from None
        return ["test" if split == "val" else "train" for split in cut]


def _listed(cell: str) -> tuple[str, ...]:
    """The classes of a cell of a multilabel table."""
    return tuple(dict.fromkeys(filter(None, (name.strip() for name in cell.split(";")))))


def _check(line: Line, paths: set[str], task: str) -> None:
    """Raises UserError if a cell of a row cannot be."""

    def complain(expected: str, column: str) -> None:
        raise UserError(f"{line.place}: expected {expected} in {column}, but got {brief(line.cells[column])}; {FIX}")

    for column, cell in line.cells.items():
        if not cell:
            raise UserError(f"{line.place}: expected a value in {column}, but got none; {FIX}")
        if not cell.isprintable():
            complain("printable characters alone", column)
    if len(line.cells["id"]) > LONGEST or not re.fullmatch(r"(?!\.)[\w.+=@ -]+", line.cells["id"]):
        complain(f"at most {LONGEST} letters, digits, spaces and . _ + = @ -", "id")
    if task == "regression":
        if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", line.cells["label"]):
            complain("a number", "label")
    elif task == "multilabel":
        names = _listed(line.cells["label"])
        if not names or any(len(name) > LONGEST or not re.fullmatch(LABEL, name) for name in names):
            complain(f"classes of at most {LONGEST} letters, digits and signs, separated by ;,", "label")
    elif len(line.cells["label"]) > LONGEST or not re.fullmatch(LABEL, line.cells["label"]):
        complain(f"at most {LONGEST} letters, digits, spaces and . , : + = @ & / ( ) ' _ -", "label")
    split = line.cells.get("split", "train")
    if split not in manifest.SPLITS:
        complain(f"{', '.join(manifest.SPLITS)}{closest(split, manifest.SPLITS).partition(' (known')[0]}", "split")
    for column in sorted(paths):
        path = PurePosixPath(line.cells[column])
        if path.is_absolute() or ".." in path.parts or "\\" in line.cells[column]:
            complain("a path relative to the folder, with / between folders and inside of it,", column)


def _csv(file: Path, needed: list[str]) -> Iterator[Line]:
    """The rows of a CSV file: UTF-8, a header, and the separator that the header has most of."""
    text = lists._text(file, FIX)
    header = text.partition("\n")[0]
    table = csv.reader(
        io.StringIO(text, newline=""), delimiter=max(SEPARATORS, key=header.count), skipinitialspace=True
    )
    names: list[str] = []
    line = 0
    try:
        for values in table:
            first, line = line + 1, table.line_num  # a quoted value may go over several lines
            cells = [value.strip() for value in values]
            if not any(cells):
                continue
            if not names:
                names = cells
                keep = _columns(f"{file}:{first}", names, needed)
                continue
            if len(cells) != len(names):
                raise UserError(
                    f"{file}:{first}: expected {len(names)} values as in the header, but got {len(cells)}; {FIX}"
                )
            yield Line(f"{file}:", first, {name: cells[i] for name, i in keep.items()})
    except csv.Error as error:
        raise UserError(f"{file}:{table.line_num}: expected a table, but got an error: {error}; {FIX}") from None


def _parquet(file: Path, shown: Path, needed: list[str], task: str) -> Iterator[Line]:
    """The rows of a Parquet file; whole numbers count as text, labels of a task may be numbers or lists. An array has
    the name of its cell in `shown`, the file's path in the folder.
    """
    import pyarrow
    import pyarrow.parquet

    if not file.is_file():
        raise UserError(f"{file}: expected a table, but got no file; {FIX}")
    try:
        schema = pyarrow.parquet.read_schema(file)
        keep = [*_columns(str(file), schema.names, needed)]
        arrays = [name for name in keep if name not in (*KEYS, *OPTIONAL) and cells.is_array(schema.field(name).type)]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _unreadable(file, error) from None
    for name in arrays:
        if PurePosixPath(name).name != name or "\\" in name:
            raise UserError(
                f"{file}: expected a column of arrays whose name has no / or \\, but got {brief(name)}; {FIX}"
            )
    for i, row in enumerate(_rows(file, [name for name in keep if name not in arrays]), start=1):
        row |= {name: cells.Cell(shown, name, i - 1).name.as_posix() for name in arrays}
        yield Line(f"{file}: row ", i, {name: _cell(row[name], f"{file}: row {i}", name, task) for name in keep})


def _rows(file: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, of which some thousands are held at a time."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(columns=columns):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> UserError:
    what = " ".join(str(error).split())[:200]
    return UserError(f"{file}: expected a Parquet table, but got an error: {what}; {FIX}")


def _cell(value: Any, place: str, column: str, task: str) -> str:
    label = task if column == "label" else ""
    if label == "multilabel" and isinstance(value, list) and all(isinstance(name, str) for name in value):
        value = ";".join(value)
    if value is not None and not isinstance(value, str | int | (float if label == "regression" else int)):
        raise UserError(
            f"{place}: expected text or a whole number in {column}, but got {brief(value)} ({type(value).__name__}); "
            f"{FIX}"
        )
    return "" if value is None else str(value).strip()


def _columns(place: str, names: list[str], needed: list[str]) -> dict[str, int]:
    """Where the columns that are read are. Raises UserError if one is missing or there twice."""
    for name in needed:
        if name not in names:
            likely = closest(name, names[:SHOWN]).partition(" (known")[0]
            got = f"{listed(names[:SHOWN], 10)}{'' if len(names) <= SHOWN else ' and more'}"
            raise UserError(f"{place}: expected a column {name!r}, but got {brief(got, 400)}{likely}; {FIX}")
    wanted = [name for name in (*needed, *OPTIONAL) if name in names]
    for name in wanted:
        if names.count(name) > 1:
            raise UserError(f"{place}: expected each column once, but got {name!r} {names.count(name)} times; {FIX}")
    return {name: names.index(name) for name in wanted}
