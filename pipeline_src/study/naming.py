"""The name of a study's folder: one per params file, and no two files share one.

`params.yaml` -> params, `experiments/informativeness.yaml` -> experiments.informativeness. Any other path (outside of
the working directory, another suffix, other characters, a long name) gives what is readable of it and a hash of the
path. Names consist of letters, digits, `_`, `-` and `.`, which no shell, wildcard or file system reads otherwise.
"""

import hashlib
import os
import re
from pathlib import Path

PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9][A-Za-z0-9_-]*)*")
HASHED = re.compile(r".*-[0-9a-f]{10}")  # no plain name ends like this
LONGEST = 100  # characters


def study_name(file: str | Path) -> str:
    """The folder name of the study of a params file, by where the file lies relative to the working directory."""
    file = Path(file)
    path = Path(os.path.relpath(file.parent.resolve() / file.name))
    parts = [*path.parent.parts, path.stem]
    name = ".".join(parts)
    undotted = not any("." in part for part in parts)  # a dot divides folders
    if (
        path.suffix == ".yaml"
        and undotted
        and len(name) <= LONGEST
        and PLAIN.fullmatch(name)
        and not HASHED.match(name)
    ):
        return name
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", str(path.with_suffix(""))).strip("-")[-LONGEST:].lstrip("-") or "study"
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:10]
    return f"{readable}-{digest}"
