"""The base of every block of parameters: strict, frozen, and each field says which stage's address it enters."""

import re
import urllib.parse
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from pipeline_src.core.stages import Stage

# Limits of numbers, so that what a library cannot hold is refused before the first job.
SEED = 2**32 - 1  # the largest seed of NumPy and scikit-learn; the tables' integers hold more
LARGE, SMALL = 1e30, 1e-30  # of a factor: float32, in which PyTorch computes, ends at 3e38 and 1e-38
EPOCHS = 100_000  # also of a step between epochs
CLIPS = 2**20  # of a batch
WIDTH = 8192  # channels or features of a layer; the weights of one convolution between two such layers are 2.4 GB
CHARACTERS = 4000  # of a path; Linux takes 4095 bytes

Variable = Literal["split", "data"]  # the val cut; what is drawn when the data are generated


@dataclass(frozen=True)
class Affects:
    """Metadata of a field: the stage whose address its value enters, and so the addresses of all stages after it.

    None: no address holds the value, because no result depends on it, or because what it names counts by content.
    """

    stage: Stage | None


@dataclass(frozen=True)
class Varies:
    """Metadata of a field of a dataset that is a seed: what it fixes, which a study can let vary (`study.vary`)."""

    what: Variable


def varying(section: type["Section"], what: str) -> list[str]:
    """The fields of a class of parameters that are marked Varies(what)."""
    marks = {name: field.metadata for name, field in section.model_fields.items()}
    return [name for name, of in marks.items() if any(isinstance(mark, Varies) and mark.what == what for mark in of)]


class Section(BaseModel):
    """A block of params.yaml. No key that it does not name, no other type, no NaN; nobody changes it afterwards.

    Every field affects the class's `affects`, unless it says otherwise: `Annotated[int, Affects(None)]`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    affects: ClassVar[Stage | None]

    @classmethod
    def stage_of(cls, field: str) -> Stage | None:
        """The stage whose address a field enters."""
        said = [mark.stage for mark in cls.model_fields[field].metadata if isinstance(mark, Affects)]
        return said[-1] if said else cls.affects

    def values(self, stage: Stage) -> dict[str, Any]:
        """The fields that enter the address of a stage, as JSON holds them."""
        return self.model_dump(include={name for name in type(self).model_fields if self.stage_of(name) == stage})


def unique(values: list) -> list:
    """Validator: no value twice."""
    if len(set(values)) != len(values):
        raise ValueError("expected each value once")
    return values


def ascending(values: list) -> list:
    """Validator: [low, high]."""
    if values != sorted(values):
        raise ValueError("expected [low, high]")
    return values


def printable(text: str) -> str:
    """Validator: a path or name that a message can show and a system call can take."""
    if not text.isprintable():
        raise ValueError("expected printable characters alone")
    return text


def storage_address(text: str) -> str:
    """Validator: an address of storage. One with credentials is refused, as parameters are shown and recorded."""
    if "@" in text or re.search(r"(?i)(key|secret|token|password|\bsig|signature)\w*=", text):  # never shown
        raise PydanticCustomError("secret", "an address without credentials; put them into the environment or ~/.aws")
    # All that pyarrow opens: the first shard is sent only after hours of extraction, perhaps.
    if text and not re.fullmatch(r"((s3|gs|gcs|abfss?)://[^/?#]|(hdfs|viewfs)://|file:///)[!-~]*", text):
        raise ValueError("expected an address such as s3://bucket/prefix (or gs://, abfs://, hdfs://, file:///folder)")
    return text


def address(text: str) -> str:
    """Validator: an address of the web. One with a password is refused, as parameters are shown and recorded."""
    if not text:
        return text
    try:
        parts = urllib.parse.urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid, parts = False, None
    if "@" in text:  # never shown: what is before it may be a password
        raise PydanticCustomError("secret", "an address without a user and a password; put them into ~/.netrc")
    if not valid or not re.fullmatch(r"[!-~]+", text):
        raise ValueError("expected an address that begins with https:// or http://")
    return text
