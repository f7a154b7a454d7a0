"""`new`: writes a start that runs, as a study of your own files, a method, an encoder or another study."""

import csv
import json
import os
from pathlib import Path

from pipeline_src.core.errors import UserError, brief, plain
from pipeline_src.datasets import table
from pipeline_src.media import cells
from pipeline_src.media.base import MediaError
from pipeline_src.methods.base import methods
from pipeline_src.models.base import encoders
from pipeline_src.study import config, starts
from pipeline_src.study.schema import SCHEMAS

KINDS = ("dataset", "method", "encoder", "study")
SHIPPED = Path(__file__).parents[2] / "params.yaml"
PLUGINS = "mine"  # the folder that methods and encoders are written to

SOUND = "{{kind: fbank, sample_rate: 16000, bins: 40, frames: {frames}, window: hanning}} # 10 ms each, {source}"
IMAGE = "{kind: image, size: 32, color: rgb, fit: crop}"
FRAMES = "{kind: frames, count: 3, size: 32, pick: centers}"
ARRAY = "{{kind: array, length: {length}, features: {features}, non_finite: refuse}}"
TEXT = "{kind: tokens, length: 40, buckets: 5000}"
RESNET = "{kind: resnet, width: 16, depth: [1, 1, 1, 1]} # ResNet-18: width 64, depth [2, 2, 2, 2]"
TRANSFORMER = "{kind: transformer, width: 64, layers: 2, heads: 4, feedforward: 128, dropout: 0.1}"
WORDS = "{kind: embedding, words: 5001, width: 64}"
FILES = {  # suffixes: recipe, encoder
    (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".aac"): (SOUND, RESNET),
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif"): (IMAGE, RESNET),
    (".mp4", ".avi", ".mkv", ".mov", ".webm", ".flv"): (FRAMES, RESNET),
    (".npy",): (ARRAY, TRANSFORMER),
    (".txt",): (TEXT, WORDS),
}


def new(kind: str, name: str, folder: str | None) -> list[str]:
    """Write the start; returns what to do next. Raises UserError if the name cannot be, or a file is there already."""
    return {"dataset": _dataset, "method": _plugin, "encoder": _plugin, "study": _study}[kind](kind, name, folder)


def _study(_: str, name: str, folder: str | None) -> list[str]:
    """A study that differs from the shipped one in what its block `study` is changed to."""
    if folder is not None:
        raise UserError(f"--folder: expected none for a study, but got {plain(folder)}")
    _check_block_name(name)
    text = SHIPPED.read_text(encoding="utf-8")
    text = starts.EXTENDS.format(
        title=f"{name}: the default study, to be changed. Seeds 10 and up, as 0 to 2 chose its settings.",
        name=name,
        schema=_relative(SCHEMAS["extending"]),
        extends=_quoted(_relative(SHIPPED)),
        study=text[text.index("study:") :].partition("\n\n")[0] + "\n",
    )
    _write(f"{name}.yaml", text)
    return _steps(name)


def _dataset(_: str, name: str, folder: str | None) -> list[str]:
    """A study of the table in `folder`, whose columns of paths become modalities."""
    _check_block_name(name)
    place = Path(folder or f"media/{name}")
    if not place.is_dir():
        raise UserError(f"{place}: expected the folder of your files, but there is none; name it by --folder")
    tables = sorted(file for file in place.glob("*") if file.suffix in (".csv", ".tsv", ".parquet"))
    if len(tables) != 1:
        got = ", ".join(plain(file.name) for file in tables[:5]) or "none"
        raise UserError(f"{place}: expected one table (.csv, .tsv or .parquet) with id, label and paths, but got {got}")
    cells = _first_row(tables[0])
    found = {column: _reads(place / cell) for column, cell in cells.items() if column not in table.TAKEN}
    columns = {_modality(column): column for column, blocks in found.items() if blocks is not None}
    if len(columns) < 2:
        known = ", ".join(suffix for suffixes in FILES for suffix in suffixes)
        raise UserError(
            f"{tables[0]}: expected at least two columns with paths of files ({known}), but got "
            f"{', '.join(map(plain, columns.values())) or 'none'}; paths are relative to {place}"
        )
    blocks = {m: found[column] or ("", "") for m, column in columns.items()}
    text = starts.TABLE.format(
        title=f"{name}: the files that {tables[0]} lists.",
        name=name,
        schema=_relative(SCHEMAS["params"]),
        methods="joint, joint_unimodal" + (", ogm_ge, opm" if len(columns) == 2 else ""),
        folder=_quoted(str(place)),
        file=_quoted(tables[0].name),
        columns=", ".join(f"{m}: {_quoted(column)}" for m, column in columns.items()),
        recipe="\n".join(f"    {m}: {recipe}" for m, (recipe, _) in blocks.items()),
        encoders="\n".join(f"    {m}: {encoder}" for m, (_, encoder) in blocks.items()),
        augmentation="\n".join(f"    {m}: {{}}" for m in blocks),
    )
    _write(f"{name}.yaml", text)
    return [f"counterpoise check {name} --params {name}.yaml    # opens every file", *_steps(name)]


def _plugin(kind: str, name: str, folder: str | None) -> list[str]:
    """A method or an encoder in a folder of plug-ins, and its test."""
    place, registry = Path(folder or PLUGINS), methods if kind == "method" else encoders
    if not name.isidentifier() or name != name.lower() or name.startswith("_"):
        raise UserError(f"expected a name of small letters, digits and '_', but got {plain(name)!r}")
    if name in registry:
        raise UserError(f"expected a name that no {kind} has, but got {name!r} ({registry.module(name)})")
    if not place.resolve().name.isidentifier():
        raise UserError(f"--folder: expected a name of letters, digits and '_', but got {plain(place)}")
    code, test = (starts.METHOD, starts.METHOD_TEST) if kind == "method" else (starts.ENCODER, starts.ENCODER_TEST)
    words = {"name": name, "cls": name.title().replace("_", ""), "folder": place}
    _write(place / f"test_{name}.py", test.format(**words))
    _write(place / f"{name}.py", code.format(**words))
    use = (
        f"study: methods: [joint, {name}]"
        if kind == "method"
        else f"model: encoders: {{MODALITY: {{kind: {name}, features: 64}}}}"
    )
    return [f"python -m pytest {place}/test_{name}.py", f"in the params file: `plugins: [{place}]`, and in `{use}`"]


def _first_row(file: Path) -> dict[str, str]:
    """The first row of a table, by column; a study of the table reads it strictly."""
    import pandas as pd
    import pyarrow.parquet

    try:
        if file.suffix == ".parquet":
            schema = pyarrow.parquet.read_schema(file)
            arrays = [
                name for name in schema.names if name not in table.TAKEN and cells.is_array(schema.field(name).type)
            ]
            rows = pd.read_parquet(file, columns=[name for name in schema.names if name not in arrays]).head(1)
            rows = rows.assign(**{name: cells.Cell(Path(file.name), name, 0).name.as_posix() for name in arrays})
        else:
            rows = pd.read_csv(file, sep=None, engine="python", nrows=1, dtype=str, keep_default_na=False)
    except (pyarrow.ArrowException, OSError, ValueError, csv.Error) as error:  # pandas' own are ValueErrors
        said = brief(" ".join(str(error).split()), 200)
        raise UserError(f"{file}: expected a table, but got an error: {said}") from None
    if not len(rows):
        raise UserError(f"{file}: expected rows, but got none")
    return {str(column): str(value) for column, value in rows.iloc[0].items()}


def _reads(file: Path) -> tuple[str, str] | None:
    """Recipe and encoder of a file, by its suffix, or of an array; None if it is neither."""
    if cells.at(file) is not None:
        file = file.with_suffix(".npy")
    for suffixes, (recipe, encoder) in FILES.items():
        if file.suffix.lower() in suffixes:
            if recipe is SOUND:
                recipe = recipe.format(frames=_frames(file), source=f"as long as {plain(file.name)}")
            if recipe is ARRAY:
                length, features = _shape(file)
                recipe = recipe.format(length=length, features=features)
            return recipe, encoder
    return None


def _frames(file: Path) -> int:
    """Steps of 10 ms in a sound, at most 4 s."""
    from pipeline_src.media.decode import duration

    try:
        return min(400, max(16, round(100 * duration(file, "audio"))))
    except MediaError:
        return 100


def _shape(file: Path) -> tuple[int, int]:
    """Steps and features of an array."""
    import numpy as np

    cell = cells.at(file.with_suffix(""))
    try:
        shape = (np.load(file, mmap_mode="r", allow_pickle=False) if cell is None else cells.read(cell)).shape
    except (OSError, ValueError, EOFError, MediaError):
        shape = ()
    if len(shape) != 2 or 0 in shape:
        raise UserError(
            f"{file}: expected an array (steps, features), but got {shape or 'none'}; save a vector as (1, features)"
        )
    return shape[0], shape[1]


def _modality(column: str) -> str:
    """A column's name as a modality's."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in column.lower()).strip("._-")[:64]
    if not config.NAME.fullmatch(name) or name in table.TAKEN:
        raise UserError(f"expected a column whose name has letters or digits of ASCII, but got {plain(column)!r}")
    return name


def _quoted(text: str) -> str:
    """A YAML string of one line."""
    return json.dumps(text, ensure_ascii=False)


def _check_block_name(name: str) -> None:
    if not config.NAME.fullmatch(name) or "." in name:
        raise UserError(f"expected a name of at most 64 small letters, digits, '_' and '-', but got {plain(name)!r}")


def _relative(file: Path) -> str:
    return Path(os.path.relpath(file)).as_posix()


def _steps(name: str) -> list[str]:
    return [
        f"snakemake --cores all --config params={name}.yaml",
        f"results/studies/{name}/report.html",
    ]


def _write(file: str | Path, text: str) -> None:
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as handle:
            handle.write(text)
    except FileExistsError:
        raise UserError(f"{path}: expected no such file, but it is there; remove it or choose another name") from None
