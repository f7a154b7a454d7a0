"""What the pages share: the templates of this folder, and addresses that are relative to a page."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import jinja2

from pipeline_src.reports import wording


def environment(folder: Path) -> jinja2.Environment:
    """The templates, for a page that lies in `folder`."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["beside"] = lambda place: beside(folder, place)
    made.globals |= {"number": wording.number, "clock": wording.clock, "plural": wording.plural}
    return made


def beside(page: Path, folder: str) -> str:
    """The address of a folder in a page that lies in the folder `page`; both are relative to the working directory."""
    return quote(f"{Path(os.path.relpath(folder, page)).as_posix()}/")
