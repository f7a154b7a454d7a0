"""Shards in storage such as S3, by the file systems of pyarrow.

An object is a shard, byte for byte. On this machine a listing is in its place, a small Arrow file under the shard's
name: its rows, but of a tensor only the SHA-256 of the unit that holds it. A unit is a run of rows of a modality, of
UNIT bytes or one row: what one request reads. So nothing that storage answers is trusted before it is verified.

An object's name ends with its hash. Nobody writes other bytes under a name, whoever shares the storage. Credentials are
found by pyarrow (environment, ~/.aws, the machine's role); an address that holds some is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from pipeline_src.core import checksums, files
from pipeline_src.core.errors import UserError, plain

log = logging.getLogger(__name__)
T = TypeVar("T")

UNIT = 256 << 10  # bytes that a request reads at least, if the modality has as many in a record batch
KEY = b"storage"  # of a listing's metadata
DIGEST = pa.binary(32)
BLOCK, READERS = 8 << 20, 4  # of whole objects: bytes of a request, requests at a time
# pyarrow itself asks 30 times in 6 seconds; this is for what takes longer, about 90 seconds in all.
TRIES, FIRST, LONGEST = 8, 0.5, 30.0  # how often a request is made; seconds before the second, and at most
REFUSED = re.compile(r"ACCESS_DENIED|FORBIDDEN|INVALID_ACCESS_KEY|SIGNATURE|UNRECOGNIZED_CLIENT|code 40[13]", re.I)
SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")


class Stored(NamedTuple):
    """Where a shard's object is and what it holds."""

    base: str  # address of the storage, with what pyarrow must know of the server
    key: str  # of the object, below the path of the address
    sha256: str
    bytes: int
    every: dict[str, int]  # rows of a unit, by modality
    offsets: dict[str, list[int]]  # where in the object a modality begins, by record batch

    @property
    def address(self) -> str:
        """The object, for people."""
        return f"{self.base.partition('?')[0].rstrip('/')}/{self.key}"


class ClosedError(Exception):
    """Nobody waits for the answer any more."""


class Storage:
    """A place in storage, by its address; objects are named below it. Several threads may ask."""

    def __init__(self, base: str):
        self.base, self._files = base, dict[str, Any]()

    @cached_property
    def _place(self) -> tuple[Any, str]:
        import pyarrow.fs as pafs  # loads the libraries of every kind of storage

        try:
            system, path = pafs.FileSystem.from_uri(self.base)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(f"{self.base}: expected an address that pyarrow opens, but got: {_said(error)}; "
                            "correct the dataset's `storage`, see docs/data.md") from None  # fmt: skip
        return system, path.rstrip("/")

    def name(self, key: str) -> str:
        return f"{self.base.partition('?')[0].rstrip('/')}/{key}"

    def tried(self, key: str, action: Callable[[], T], closing: threading.Event | None = None) -> T:
        """What `action` gives; again after errors, TRIES times in all. Raises UserError, which names the object."""
        event = closing or threading.Event()
        said = ""
        for n in range(TRIES):
            try:
                return action()
            except FileNotFoundError:
                raise UserError(f"{self.name(key)}: expected an object in storage, but got none; {AGAIN}") from None
            except (OSError, pa.ArrowException) as error:
                said = _said(error)
            self._files.pop(key, None)
            if REFUSED.search(said):
                raise UserError(f"{self.name(key)}: expected storage to allow it, but got: {said}; "
                                "check the credentials (environment, ~/.aws) and what they may do")  # fmt: skip
            if n + 1 < TRIES:
                log.info(f"{self.name(key)}  {said}; again, {n + 1} of {TRIES} tries done")
                # Not the global generator: results depend on it.
                if event.wait(random.SystemRandom().uniform(0.5, 1) * min(LONGEST, FIRST * 2**n)):
                    raise ClosedError
        raise UserError(f"{self.name(key)}: expected an answer of storage in {TRIES} tries, but got: {said}; "
                        "see that it can be reached, then start again: what was finished is kept")  # fmt: skip

    def read(self, key: str, offset: int, size: int, digest: bytes | None, closing: threading.Event | None) -> bytes:
        """Bytes of an object with the SHA-256 `digest`. Raises UserError, or ClosedError if `closing` is set."""

        def once() -> bytes:
            held = self._opened(key).read_at(size, offset)
            if len(held) != size or (digest is not None and hashlib.sha256(held).digest() != digest):
                raise OSError(f"{len(held)} of {size} bytes from {offset}, not those that were stored")
            return held

        return self.tried(key, once, closing)

    def _opened(self, key: str) -> Any:
        opened = self._files.get(key)
        if opened is None:
            system, path = self._place
            opened = self._files[key] = system.open_input_file(f"{path}/{key}")
        return opened

    def size(self, key: str) -> int | None:
        """Bytes of an object, or None if there is none."""

        def once() -> int | None:
            system, path = self._place  # of S3, a request: where the bucket is
            return system.get_file_info(f"{path}/{key}").size

        return self.tried(key, once)

    def write(self, key: str, file: Path) -> None:
        """Upload a file."""

        def once() -> None:
            system, path = self._place
            if system.type_name == "local":
                system.create_dir(f"{path}/{key}".rpartition("/")[0], recursive=True)
            with file.open("rb") as opened, system.open_output_stream(f"{path}/{key}") as sink:
                while block := opened.read(BLOCK):
                    sink.write(block)
            written = system.get_file_info(f"{path}/{key}").size
            if written != file.stat().st_size:
                raise OSError(f"{written} of {file.stat().st_size} bytes written")

        self.tried(key, once)

    def remove(self, key: str) -> None:
        """Remove an object, if it is there."""
        if self.size(key) is not None:
            system, path = self._place
            self.tried(key, lambda: system.delete_file(f"{path}/{key}"))


AGAIN = "delete its listing (data/cache/...) and the cache.json beside it, and run snakemake again"


def _said(error: BaseException) -> str:
    """An error in one line, without credentials."""
    text = " ".join(str(error).split())
    for name in SECRETS:
        if len(secret := os.environ.get(name, "")) > 3:  # a shorter one would be found in words
            text = text.replace(secret, "***")
    return plain(text, 300)


def put(file: Path, base: str, folder: str, name: str) -> None:
    """Upload a shard, as `folder`/`name` with its hash, and write its listing in its place."""
    sha256, size, storage = files.sha256(file), file.stat().st_size, Storage(base)
    key = f"{folder}/{name}-{sha256[:16]}.arrow"
    if storage.size(key) != size or _digest(storage, key, size) != sha256:  # else it is there already
        storage.write(key, file)
        log.info(f"stored {storage.name(key)}  {size / 1e6:,.1f} MB")
    with pa.memory_map(str(file)) as mapped:
        start, reader = mapped.read_buffer(1).address, pa.ipc.open_file(mapped)
        schema, batches = reader.schema, [reader.get_batch(i) for i in range(reader.num_record_batches)]
        kinds = {name: schema.field(name).type for name in schema.names}
        tensors = {m: kind for m, kind in kinds.items() if isinstance(kind, pa.FixedShapeTensorType)}
        every = {m: max(1, UNIT // max(1, _row_bytes(kind))) for m, kind in tensors.items()}
        offsets = {m: [batch[m].to_numpy_ndarray().ctypes.data - start for batch in batches] for m in tensors}
        about = Stored(base, key, sha256, size, every, offsets)
        seal = {files.CHECKSUM.encode(): checksums.SEAL.encode(), KEY: json.dumps(about._asdict()).encode()}
        fields = [(name, DIGEST if name in tensors else kind) for name, kind in kinds.items()]
        listing = pa.schema(fields, metadata={**(schema.metadata or {}), **seal})
        file.unlink()  # what is mapped stays readable
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, listing) as writer:
            for batch in batches:
                columns = [_digests(batch[m], every[m]) if m in tensors else batch[m] for m in kinds]
                writer.write_batch(pa.record_batch(columns, schema=listing))
    checksums.seal(file)


def _row_bytes(kind: pa.FixedShapeTensorType) -> int:
    return int(np.prod(kind.shape)) * kind.value_type.bit_width // 8


def _digests(tensor: pa.FixedShapeTensorArray, every: int) -> pa.Array:
    """Of each row, the SHA-256 of its unit."""
    values, digests = tensor.to_numpy_ndarray(), list[bytes]()
    for first in range(0, len(values), every):
        unit = values[first : first + every]
        digests += [hashlib.sha256(unit).digest()] * len(unit)
    return pa.array(digests, DIGEST)


def stored(schema: pa.Schema) -> Stored | None:
    """Where a shard is, by the schema of its listing; None by its own."""
    about = (schema.metadata or {}).get(KEY)
    return None if about is None else Stored(**json.loads(about))


def listed(file: Path) -> Stored | None:
    """What the listing of a shard says; None if the file is no listing, or cannot be read."""
    with suppress(OSError, pa.ArrowInvalid), pa.memory_map(str(file)) as mapped:
        return stored(pa.ipc.open_file(mapped).schema)
    return None


def move(file: Path, base: str, folder: str, name: str, fix: str) -> bool:
    """Have a finished shard lie at an address, or on this disk (none); whether it lay elsewhere. The object that it was
    before stays: others may read it.
    """
    about = listed(file)
    if base == ("" if about is None else about.base):
        return False
    checksums.verify(file, fix)
    with files.whole(file) as temporary:
        if about is None:
            shutil.copyfile(file, temporary)
        else:
            fetch(about, temporary)
        if base:
            put(temporary, base, folder, name)
    return True


def _blocks(storage: Storage, key: str, size: int) -> Iterator[bytes]:
    """An object from its beginning, a few blocks ahead."""
    with ThreadPoolExecutor(READERS, "storage") as pool:
        for first in range(0, size, READERS * BLOCK):
            starts = range(first, min(size, first + READERS * BLOCK), BLOCK)
            yield from pool.map(lambda at: storage.read(key, at, min(BLOCK, size - at), None, None), starts)


def _digest(storage: Storage, key: str, size: int) -> str:
    digest = hashlib.sha256()
    for block in _blocks(storage, key, size):
        digest.update(block)
    return digest.hexdigest()


def fetch(about: Stored, target: Path) -> None:
    """Write a shard, whole and verified, to a file. Raises UserError if its object is not as it was stored."""
    digest = hashlib.sha256()
    with target.open("wb") as opened:
        for block in _blocks(Storage(about.base), about.key, about.bytes):
            opened.write(block)
            digest.update(block)
    if digest.hexdigest() != about.sha256:
        raise _damaged(about)


def verify(about: Stored) -> int:
    """Read an object whole; its bytes. Raises UserError if it is missing or not as it was stored."""
    storage = Storage(about.base)
    size = storage.size(about.key)
    if size is None:
        raise UserError(f"{about.address}: expected an object in storage, but got none; {AGAIN}")
    if size != about.bytes or _digest(storage, about.key, size) != about.sha256:
        raise _damaged(about)
    return size


def _damaged(about: Stored) -> UserError:
    return UserError(f"{about.address}: expected the object as it was stored, but got other bytes; {AGAIN}")


@contextmanager
def copied(about: Stored, beside: Path) -> Iterator[Path]:
    """A shard as a file for as long as the block lasts, in a hidden file beside its listing."""
    copy = beside.with_name(f".{beside.name}.copy")
    try:
        with files.whole(copy) as temporary:
            fetch(about, temporary)
        yield copy
    finally:
        copy.unlink(missing_ok=True)
