"""A text as numbers of its words, without a vocabulary to build: the hashing trick (Weinberger et al., ICML 2009).

A word is a run of letters, digits and underscores, in small letters; its number is 1 + hash mod `buckets`, the same on
every machine, and 0 is padding. Two words may have the same number: each of V words shares its number with
(V - 1) / buckets others on average. The papers' text encoders have learnt vocabularies (BERT's, for FOOD-101), so
results with this one are comparable within a study, not with theirs.
"""

import hashlib
import re
from pathlib import Path

import numpy as np
from pydantic import Field

from pipeline_src.media.base import Extractor, ExtractorParams, MediaError, extractors

WORD = re.compile(r"\w+")


class TokensParams(ExtractorParams):
    length: int = Field(ge=1, le=100_000, description="words that a text is cut or filled up to")
    buckets: int = Field(ge=1, le=2**31 - 2, description="numbers that words are hashed to, 1 to this")


@extractors.register("tokens")
class Tokens(Extractor):
    """int32 (length,): numbers of the first words of a UTF-8 text file, padded with 0."""

    Params = TokensParams
    params: TokensParams
    layout = "tokens"
    dtype = np.dtype(np.int32)

    @property
    def shape(self) -> tuple[int]:
        return (self.params.length,)

    @property
    def vocabulary(self) -> int:
        """How many numbers there are, with 0 for padding."""
        return self.params.buckets + 1

    def probe(self, file: Path) -> float:
        """0: a text has no duration. Raises MediaError if it has no words."""
        _words(file)
        return 0.0

    def extract(self, file: Path) -> np.ndarray:
        """Raises MediaError if the file is missing, empty, not UTF-8, or has no words."""
        words = _words(file)[: self.params.length]
        numbers = [1 + bucket(word, self.params.buckets) for word in words]
        return np.array(numbers + [0] * (self.params.length - len(numbers)), self.dtype)


def bucket(word: str, buckets: int) -> int:
    """Hash of a word in [0, buckets)."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big") % buckets


def text_of(file: Path) -> str:
    """A text file's content. Raises MediaError if it is missing, empty or not UTF-8."""
    if not file.is_file():
        raise MediaError("missing file")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MediaError(f"not UTF-8: {error.reason} at byte {error.start}") from error
    if not text:
        raise MediaError("empty file")
    return text


def _words(file: Path) -> list[str]:
    words = WORD.findall(text_of(file).lower())
    if not words:
        raise MediaError("no words")
    return words
