"""Models that another library saved in a folder: they count by their content. Imports no torch."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.core.fingerprint import fingerprint
from pipeline_src.core.params import CHARACTERS, Affects, printable
from pipeline_src.models.base import EncoderParams

CONFIG = "config.json"
INSTALL = "python -m pip install --no-deps --require-hashes -r envs/pretrained.txt"


class SavedParams(EncoderParams):
    """An encoder from a folder with config.json and, if it starts from weights, one of `weights_files`."""

    folder: Annotated[
        Annotated[str, Field(max_length=CHARACTERS), AfterValidator(printable)],
        Affects(None),
        Field(description="local folder of the saved model; it counts by its content"),
    ]
    weights: bool = Field(default=True, description="start from the folder's weights; false: from random ones")

    def weights_sha256(self) -> str | None:
        """Hash of config.json, and of the weights if it starts from them. Raises UserError if a file is missing."""
        parts = {CONFIG: files.sha256(self.file(CONFIG))}
        if self.weights:
            weights = self.weights_file()
            parts[weights.name] = files.sha256(weights)
        return fingerprint(**parts)

    def file(self, *names: str) -> Path:
        """The first of these files that the folder has."""
        for name in names:
            if (path := Path(self.folder) / name).is_file():
                return path
        raise UserError(f"{self.folder}: expected a folder with {' or '.join(names)}, but got none")

    def weights_file(self) -> Path:
        return self.file("model.safetensors")

    def config(self) -> dict[str, Any]:
        path = self.file(CONFIG)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path}: expected JSON, but got {error}") from error
        if not isinstance(found, dict):
            raise UserError(f"{path}: expected the configuration of a model, but got {type(found).__name__}")
        return found


def installed(package: str, kind: str) -> str | None:
    """What to say if an encoder's kind needs a package that is not installed, or None."""
    if importlib.util.find_spec(package) is not None:
        return None
    return f"expected the package {package} for an encoder of kind {kind!r}, but got none; install it: {INSTALL}"
