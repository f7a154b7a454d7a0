"""A text as the numbers of a model's own tokenizer, from its tokenizer.json (the library `tokenizers`): what an encoder
of kind `huggingface` reads.

A token has the tokenizer's number plus 1, and 0 is padding, whatever the tokenizer's own padding is. The tokenizer's
special tokens are added, and a long text is cut so that they stay. `sha256` is the file's checksum: a recipe counts by
it, wherever the file is.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.core.params import CHARACTERS, Affects, printable
from pipeline_src.media.base import Extractor, ExtractorParams, MediaError, extractors
from pipeline_src.media.tokens import text_of


class TokenizerParams(ExtractorParams):
    length: int = Field(ge=2, le=100_000, description="tokens that a text is cut or filled up to")
    file: Annotated[
        Annotated[str, Field(max_length=CHARACTERS), AfterValidator(printable)],
        Affects(None),
        Field(description="the model's tokenizer.json"),
    ]
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="checksum of `file`, by which the recipe counts")


@extractors.register("tokenizer")
class Tokenizer(Extractor):
    """int32 (length,): tokens of a UTF-8 text file, padded with 0."""

    Params = TokenizerParams
    params: TokenizerParams
    layout = "tokens"
    dtype = np.dtype(np.int32)

    @property
    def shape(self) -> tuple[int]:
        return (self.params.length,)

    @property
    def vocabulary(self) -> int:
        """How many numbers there are, with 0 for padding."""
        return self._tokenizer.get_vocab_size() + 1

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            from tokenizers import Tokenizer as Library
        except ImportError as error:
            raise UserError(
                "expected the package tokenizers for the extractor 'tokenizer', but got none; install it: "
                "python -m pip install --no-deps --require-hashes -r envs/pretrained.txt"
            ) from error
        path = Path(self.params.file)
        if not path.is_file():
            raise UserError(f"{path}: expected the tokenizer.json that the recipe names, but got no such file")
        if (found := files.sha256(path)) != self.params.sha256:
            raise UserError(f"{path}: expected the recipe's sha256 {self.params.sha256}, but got {found}")
        try:
            tokenizer = Library.from_file(str(path))
        except Exception as error:  # the library raises nothing more special
            raise UserError(f"{path}: expected a tokenizer.json, but got: {error}") from error
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.params.length)
        return tokenizer

    def probe(self, file: Path) -> float:
        """0: a text has no duration. Raises MediaError if it is empty."""
        _text(file)
        return 0.0

    def extract(self, file: Path) -> np.ndarray:
        """Raises MediaError if the file is missing, empty, or not UTF-8."""
        numbers = [1 + number for number in self._tokenizer.encode(_text(file)).ids]
        return np.array(numbers + [0] * (self.params.length - len(numbers)), self.dtype)


def _text(file: Path) -> str:
    text = text_of(file)
    if not text.strip():
        raise MediaError("no words")
    return text
