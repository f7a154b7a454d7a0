"""What was worked out from sources, kept from process to process: a syntax tree takes longer than a hash.

It is kept by the hash of all that it depends on, so it never grows old.
"""

import atexit
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from pipeline_src.core import files
from pipeline_src.core.errors import UserError

MEMORY = Path("data/seen/sources")  # no output: it may be lost; only where there is a folder data/
KEPT = 2000


def remembered(parts: list[Any], compute: Callable[[], list[Any]]) -> list[Any]:
    """What `compute` gives, [text, list], for parts that JSON can hold; computed once on a machine."""
    key, known = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(), _known()
    if key not in known:
        known[key] = compute()
        _save_at_exit()
    return known[key]


@cache
def _known() -> dict[str, list[Any]]:
    return _read()


def _read() -> dict[str, list[Any]]:
    """What is in the file; nothing of a file that is none of ours."""
    try:
        found = files.read_json(MEMORY)
        return {key: [text, names] for key, (text, names) in found.items() if type(text) is str and type(names) is list}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


@cache
def _save_at_exit() -> None:
    atexit.register(_save)


def _save() -> None:
    """Add what is new to the file; the oldest go."""
    if MEMORY.parents[1].is_dir():
        with suppress(UserError, OSError):
            files.write_text(MEMORY, json.dumps(dict([*{**_read(), **_known()}.items()][-KEPT:])))
