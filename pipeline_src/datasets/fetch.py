"""Raw media: the fetch stage, which generates or converts them, and the downloads that a user starts.

The files of a published dataset are in a folder of the user. `obtain` downloads what may be downloaded, unpacks the
archives in the folder, and lists what the user must add.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.datasets import download
from pipeline_src.datasets.base import Dataset, no_folder

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Data

log = logging.getLogger(__name__)

OTHERS = (".rar", ".7z")  # formats that the standard library cannot unpack


def fetch(data: Data) -> None:
    """Fill the raw folder of a dataset of the plan; it appears whole, with files.json, or not at all."""
    source = data.dataset.folder
    if source is not None and not source.is_dir():
        raise UserError(no_folder(data.name, source))
    with files.whole(data.raw) as folder:
        folder.mkdir(parents=True)
        data.dataset.fetch(folder)
        files.write_sealed(folder / files.FILES, files.scan(folder, data.seen))


def obtain(data: Data) -> None:
    """Download and unpack into the user's folder of a dataset, and print what it must hold.

    Raises UserError if a download fails, after printing what to put where by hand, or if an archive is refused.
    """
    dataset, folder = data.dataset, data.dataset.folder
    folder.mkdir(parents=True, exist_ok=True)
    for item in dataset.downloads:
        there = (folder / item.file).exists()
        try:
            download.download(item, folder, dataset.params.mirror)
        except UserError:
            print(described(dataset))
            raise
        log.info(f"fetch {data.name}  {item.file}: {'present' if there else 'fetched'}, checksum right")
    done = _unpacked(folder)
    for archive in download.archives(folder):
        state = [archive.stat().st_size, archive.stat().st_mtime_ns]
        if done.get(archive.name) != state:
            count = download.unpack(archive, folder)
            log.info(f"fetch {data.name}  {archive.name}: unpacked, {count} new files")
            done[archive.name] = state
            files.write_json(folder / download.UNPACKED, done)
    for other in sorted(path for path in folder.iterdir() if path.name.lower().endswith(OTHERS)):
        log.warning(f"fetch {data.name}  {other.name}: unpack it yourself (unrar x, bsdtar -xf, 7z x) in {folder}")
    print(described(dataset))


def _unpacked(folder: Path) -> dict:
    """Archives that were unpacked before, and their state then. Damaged, it is forgotten: they are unpacked again."""
    with suppress(OSError, ValueError):
        recorded = json.loads((folder / download.UNPACKED).read_text(encoding="utf-8"))
        if isinstance(recorded, dict):
            return recorded
    return {}


def described(dataset: Dataset) -> str:
    """Source of a published dataset, and the files that belong in its folder."""
    facts = {"from": dataset.homepage, "licence": dataset.licence, "cite": dataset.citation}
    lines = [dataset.title, *(f"  {key:8} {value}" for key, value in facts.items() if value)]
    for item in dataset.downloads:
        there = (dataset.folder / item.file).exists()
        state = "fetched " if there else "missing "
        lines.append(f"  {state} {item.file} ({item.bytes:,} bytes)" + ("" if there else f" from {item.url}"))
    lines += ["  add to this folder what is missing:", f"    {dataset.folder}/"]
    return "\n".join([*lines, *(f"      {line}" for line in dataset.layout.strip("\n").splitlines())])


def absent(dataset: Dataset) -> list[Path]:
    """The downloads that are missing from the folder or have other content."""
    files_ = [(dataset.folder / item.file, item) for item in dataset.downloads]
    return [path for path, item in files_ if not path.is_file() or files.sha256(path) != item.sha256]
