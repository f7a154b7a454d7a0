"""Published pickles, read as data: arrays, strings, numbers, dicts, lists and tuples.

A pickle is a program, and loading one can run any command. This reader is Python's own, restricted as its documentation
advises: `find_class` knows a few names, and each of them stands for a function of this file that checks its arguments
(NumPy's own functions trust theirs). Instructions that plain data does not need are removed. The C version of the
reader cannot check the keys of dicts before it hashes them, so this is the Python version.

Strings that Python 2 wrote are decoded as latin-1. Reading takes as much memory as the file has bytes.
"""

import io
import math
import mmap
import pickle
import re
import struct
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_src.core.errors import UserError, plain

DEPTH = 32  # levels of containers; published files have five
KEYS = (str, int, float, type(None))
PLAIN = (bool, complex, bytes, list, tuple, dict, np.ndarray, *KEYS)
REFUSED = """PERSID BINPERSID INST OBJ NEWOBJ NEWOBJ_EX EMPTY_SET ADDITEMS FROZENSET EXT1 EXT2 EXT4 LONG4
NEXT_BUFFER READONLY_BUFFER"""
DAMAGED = (ValueError, TypeError, LookupError, AttributeError, AssertionError, OverflowError, EOFError, MemoryError)


class RefusedError(Exception):
    """Something in a pickle that is not plain data; the message names it."""


def read(file: Path) -> Any:
    """The content of a pickle, or of a .npy file that holds one. Raises UserError if it holds more than plain data."""
    if file.exists() and not file.is_file():
        raise UserError(f"{file}: expected a pickle of arrays, but got a folder, a pipe or a device; name the file")
    try:
        with file.open("rb") as handle:
            start = _npy_header(handle, file)
            if handle.seek(0, io.SEEK_END) <= start:
                raise UserError(f"{file}: expected a pickle, but got no more than {start} bytes; get the file again")
            content = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)  # a short file ends a read; no allocation
    except FileNotFoundError:
        raise UserError(f"{file}: expected a pickle of arrays, but got no file") from None
    content.seek(start)
    try:
        value = _Reader(content, encoding="latin-1").data()
    except (RefusedError, pickle.UnpicklingError, struct.error, *DAMAGED) as error:
        raise UserError(
            f"{file}: expected a pickle of arrays, strings and numbers only, but got "
            f"{error if isinstance(error, RefusedError) else f'damaged data ({type(error).__name__}: {error})'}; "
            "nothing of it was run: do not open it with anything else, get the file again from its publisher"
        ) from None
    return value.item() if start and isinstance(value, np.ndarray) and value.shape == () else value


def _npy_header(handle: io.BufferedReader, file: Path) -> int:
    """Where the pickle begins in a .npy file; 0 if it is none."""
    magic = handle.read(6)
    handle.seek(0)
    if magic != np.lib.format.MAGIC_PREFIX:
        return 0
    try:
        version = np.lib.format.read_magic(handle)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        _, _, dtype = header(handle)
    except (SyntaxError, tokenize.TokenError, RecursionError, *DAMAGED) as error:
        what = plain(" ".join(str(error).split()), 200)
        raise UserError(f"{file}: expected a .npy file, but got {what}; get the file again") from None
    if not dtype.hasobject:
        raise UserError(f"{file}: expected a .npy file of objects, but got {dtype}; get the file again")
    return handle.tell()


class _DType:
    """Stands for `numpy.dtype`, whose state could declare numbers to be pointers."""

    def __init__(self, code: str, *_: Any):
        if not re.fullmatch(r"[<>|=]?([biufc][1-9]\d?|[SU][1-9]\d*|b1|O8?)", code):
            raise RefusedError(f"an array of type {code!r}")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _, order, *compound = state  # (version, byte order, subtype, names, fields, size, alignment, flags)
        if order not in tuple("<>|=") or compound[:3] != [None] * 3:
            raise RefusedError("an array of a compound type")
        self.value = self.value.newbyteorder(order)


class _Array(np.ndarray):
    """Stands for the empty array that NumPy makes first; its state brings shape, type and data, which are compared."""

    complete = False

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        dtype, shape = dtype.value, tuple(shape)
        if self.complete or not all(type(n) is int and n >= 0 for n in shape):
            raise RefusedError(f"an array of shape {shape!r}")
        count = len(data) if dtype.hasobject else len(data) / dtype.itemsize
        if not isinstance(data, list if dtype.hasobject else bytes | str) or math.prod(shape) != count:
            raise RefusedError(f"an array {shape} of {dtype} whose data has another length")
        np.ndarray.__setstate__(self, (1, shape, dtype, fortran, data))  # type: ignore[arg-type]
        self.complete = True


def _array(*_: Any) -> _Array:
    return np.ndarray.__new__(_Array, 0, "b")


def _from_buffer(data: bytes, dtype: _DType, shape: tuple, order: str = "C") -> _Array:
    array = _array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _not_called(*_: Any) -> None:
    """What `_reconstruct` is told to make; called by itself, it makes arrays of any size."""
    raise RefusedError("a call of numpy.ndarray")


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for older protocols."""
    if encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"text encoded as {encoding!r}")
    return text.encode("latin-1")


NAMES = {
    "numpy.core.multiarray._reconstruct": _array,
    "numpy.core.multiarray.scalar": lambda dtype, data: _from_buffer(data, dtype, ()).item(),
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.dtype": _DType,
    "numpy.ndarray": _not_called,
    "_codecs.encode": _encode,
    "builtins.bytes": lambda: b"",  # of older protocols; the real one makes any size
    "__builtin__.bytes": lambda: b"",
}


def _build(reader: Any) -> None:
    if not isinstance(reader.stack[-2], _Array | _DType):
        raise RefusedError(f"a state for a {type(reader.stack[-2]).__name__}")
    ALL[pickle.BUILD[0]](reader)


def _with_keys(code: bytes, keys: slice) -> Callable[[Any], None]:
    """The instruction, which puts items into a dict. Hashing nested tuples can crash Python, or never end."""

    def step(reader: Any) -> None:
        if not all(type(key) in KEYS for key in reader.stack[keys]):
            raise RefusedError("a key that is no string or number")
        ALL[code[0]](reader)

    return step


ALL: dict[int, Any] = pickle._Unpickler.dispatch
STEPS = ALL | {
    pickle.BUILD[0]: _build,
    pickle.SETITEM[0]: _with_keys(pickle.SETITEM, slice(-2, -1)),
    pickle.SETITEMS[0]: _with_keys(pickle.SETITEMS, slice(None, None, 2)),
    pickle.DICT[0]: _with_keys(pickle.DICT, slice(None, None, 2)),
    pickle.BYTEARRAY8[0]: ALL[pickle.BINBYTES8[0]],  # the other allocates before it reads
}
for name in REFUSED.split():
    del STEPS[getattr(pickle, name)[0]]


class _Reader(pickle._Unpickler):
    dispatch = STEPS
    stack: list[Any]
    metastack: list[Any]

    def data(self) -> Any:
        """The value that the file holds, once it is known to be nothing but data."""
        value = self.load()
        if self.stack or self.metastack:
            raise RefusedError("more than one value")
        level = [value]
        for _ in range(DEPTH):  # an object that several containers hold is looked at once a level
            level = list({id(item): item for parent in level for item in _items(parent)}.values())
        if level:
            raise RefusedError(f"containers nested more than {DEPTH} deep")
        return value

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module.replace('numpy._core.', 'numpy.core.')}.{name}"  # _core is the name in NumPy 2
        if full not in NAMES:
            raise RefusedError(f"the name {full}")
        return NAMES[full]


def _items(value: Any) -> Any:
    """What a container holds. Raises RefusedError if the value is not data."""
    if isinstance(value, _Array):
        if not value.complete:
            raise RefusedError("an unfinished array")
        return value.ravel().tolist() if value.dtype.hasobject else ()
    if type(value) not in PLAIN:
        raise RefusedError(f"a {type(value).__name__} as a value")
    return value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
