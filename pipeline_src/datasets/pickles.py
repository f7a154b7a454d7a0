"""Published pickles, read without running them: arrays, strings, numbers, dicts, lists and tuples, and nothing else.

A pickle is a program: loading one can run any command. This reader carries out only the instructions that build plain
data, on a stack of its own; of the functions that a pickle may call it knows NumPy's few for arrays, which are
replaced by checks of its own. Whatever else stands in the file, it stops and names it, and nothing was executed. Large
arrays are views on the mapped file, so that a file larger than memory can be read; sizes are checked against what the
file holds before anything is allocated.

Strings of Python 2 are given as bytes, the keys of dicts as str.
"""

import codecs
import math
import mmap
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_src.core.errors import UserError

MARK = object()
NUMPY = re.compile(r"numpy\.(_?core)\.(multiarray|numeric)")  # NumPy 1 says core, NumPy 2 _core
KINDS = "biufcSUO"


class RefusedError(Exception):
    """What stands in a pickle that is not plain data; the message names it."""


def read(file: Path) -> Any:
    """The content of a pickle, or of a .npy file that holds one. Raises UserError if it holds more than plain data."""
    try:
        with file.open("rb") as handle:
            start = _npy_header(handle, file)
            size = handle.seek(0, 2)
            if size <= start:
                raise UserError(f"{file}: expected a pickle, but got no more than {size} bytes; get the file again")
            content = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise UserError(f"{file}: expected a pickle of arrays, but got no file") from None
    machine = _Machine(content, start)
    try:
        value = machine.run()
    except (
        RefusedError,
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        AttributeError,
        OverflowError,
        struct.error,
    ) as error:
        raise UserError(
            f"{file}: expected a pickle of arrays, strings and numbers only, but got at byte {machine.at}: "
            f"{error or type(error).__name__}; nothing of it was run: do not open it with anything else, "
            "get the file again from its publisher"
        ) from None
    if start and isinstance(value, np.ndarray) and value.shape == ():
        return value.item()
    return value


def _npy_header(handle, file: Path) -> int:
    """Where the pickle begins in a .npy file; 0 if it is none."""
    magic = handle.read(6)
    handle.seek(0)
    if magic != np.lib.format.MAGIC_PREFIX:
        return 0
    try:
        version = np.lib.format.read_magic(handle)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        _, _, dtype = header(handle)
    except (ValueError, KeyError) as error:
        raise UserError(f"{file}: not a .npy file: {error}; get the file again") from None
    if not dtype.hasobject:
        raise UserError(f"{file}: expected a .npy file of objects, but got {dtype}; get the file again")
    return handle.tell()


class _Function:
    """A function that a pickle may name; it cannot be changed by the pickle."""

    __slots__ = ("call", "name")

    def __init__(self, name: str, call):
        self.name, self.call = name, call


class _DType:
    """A dtype as a pickle builds it: first made, then told its byte order."""

    def __init__(self, code, *_flags):
        code = _text(code)
        if not re.fullmatch(rf"[<>|=]?[{KINDS}]\d*", code):
            raise RefusedError(f"an array of type {code!r}")
        self.value = np.dtype(code)

    def build(self, state) -> "_DType":
        # (version, byte order, subtype, names, fields, size, alignment, flags): only plain types
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise RefusedError("an array of a compound type")
        order = _text(state[1])
        if order not in tuple("<>|="):
            raise RefusedError(f"a byte order {order!r}")
        self.value = self.value.newbyteorder(order)
        return self


class _Array:
    """An array as a pickle builds it: first empty, then told shape, type and data."""

    def __init__(self, *_arguments):
        self.value = None

    def build(self, state) -> np.ndarray:
        _, shape, dtype, fortran, data = state
        self.value = _filled(data, dtype, shape, "F" if fortran else "C")
        return self.value


def _filled(data, dtype, shape, order: str = "C") -> np.ndarray:
    if not isinstance(dtype, _DType):
        raise RefusedError("an array without a type")
    dtype = dtype.value
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise RefusedError(f"an array of shape {shape!r}")
    count = math.prod(shape)
    if dtype.hasobject:
        if not isinstance(data, list) or len(data) != count:
            raise RefusedError("an array of objects that is not as long as it says")
        array = np.empty(count, dtype)
        for i, item in enumerate(data):  # an item may be an array: it is not to be spread
            array[i] = item
    else:
        data = data.encode("latin-1") if isinstance(data, str) else data
        if not isinstance(data, bytes | bytearray | memoryview) or len(data) != count * dtype.itemsize:
            raise RefusedError(f"an array of {count} values of {dtype} that does not hold as many")
        array = np.frombuffer(data, dtype) if count * dtype.itemsize else np.zeros(count and 0, dtype)
    return array.reshape(shape, order=order)


def _scalar(dtype, data) -> Any:
    return _filled(data, dtype, ())[()]


def _from_buffer(data, dtype, shape, order="C") -> np.ndarray:
    return _filled(data, dtype, shape, _text(order))


def _encode(text, encoding) -> bytes:
    """How Python 3 writes bytes for older protocols."""
    if _text(encoding) not in ("latin1", "latin-1"):
        raise RefusedError(f"text encoded as {encoding!r}")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    return b""


def _text(value) -> str:
    return str(value, "latin-1") if isinstance(value, bytes | memoryview) else value


def _known(module: str, name: str) -> _Function:
    """The stand-in of a function that may be called. Raises RefusedError for any other."""
    match NUMPY.sub("numpy.core", module), name:
        case "numpy.core", "_reconstruct":
            call = _Array
        case "numpy.core", "scalar":
            call = _scalar
        case "numpy.core", "_frombuffer":
            call = _from_buffer
        case "numpy", "dtype":
            call = _DType
        case "numpy", "ndarray":  # named as what to reconstruct, never called
            call = None
        case "_codecs", "encode":
            call = _encode
        case "__builtin__" | "builtins", "bytes":  # older protocols' b""; with arguments it may be asked for any size
            call = _no_bytes
        case _:
            raise RefusedError(f"the name {module}.{name}")
    return _Function(f"{module}.{name}", call)


class _Arguments(tuple):
    """A tuple with something in it that is no data: arguments for a known function, which checks them."""


PLAIN = (type(None), bool, int, float, complex, str, bytes, memoryview, list, tuple, dict, np.ndarray, np.generic)
VIEW = 1 << 16  # bytes from which data stays in the mapped file


class _Machine:
    """The part of the pickle machine that builds plain data; one method per group of instructions."""

    def __init__(self, content: mmap.mmap, at: int):
        self.content, self.data, self.at = content, memoryview(content), at
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            code = self.take(1)
            if code == b".":
                break
            step = STEPS.get(bytes(code))
            if step is None:
                raise RefusedError(f"the instruction {bytes(code)!r}")
            step(self)
        value = self.stack.pop()
        if self.stack:
            raise RefusedError("more than one value")
        return self.plain(value)

    # reading

    def take(self, count: int) -> memoryview:
        if not 0 <= count <= len(self.data) - self.at:
            raise RefusedError(f"{count} bytes where the file has {len(self.data) - self.at} left")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> bytes:
        end = self.content.find(b"\n", self.at)
        if end < 0:
            raise RefusedError("a line without an end")
        return bytes(self.take(end + 1 - self.at)[:-1])

    def counted(self, form: str) -> Any:
        data = self.take(self.number(form))
        return data if len(data) >= VIEW else bytes(data)

    # the stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def plain(self, value: Any) -> Any:
        """The value, if it is data; what is being built, or names a function, may not be kept in data."""
        if isinstance(value, _Array) and value.value is not None:
            return value.value
        if not isinstance(value, PLAIN) or isinstance(value, _Arguments):
            raise RefusedError("a function or an unfinished array as a value")
        return value

    def marked(self) -> list:
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is MARK:
                items = self.stack[i + 1 :]
                del self.stack[i:]
                return items
        raise RefusedError("an end without a beginning")

    def top(self, kind: type) -> Any:
        value = self.stack[-1]
        if type(value) is not kind:
            raise RefusedError(f"items for a {kind.__name__} that is none")
        return value

    def append(self, items: list) -> None:
        self.top(list).extend(map(self.plain, items))

    def set_items(self, items: list) -> None:
        target = self.top(dict)
        if len(items) % 2:
            raise RefusedError("a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            key = _text(key) if isinstance(key, bytes) else key
            if not isinstance(key, str | int | float | tuple | type(None)):
                raise RefusedError("a key that is no string or number")
            target[key] = self.plain(value)

    def dict_of(self) -> None:
        items = self.marked()
        self.push({})
        self.set_items(items)

    def tuple_of(self, items: list) -> None:
        items = [item.value if isinstance(item, _Array) and item.value is not None else item for item in items]
        plain = all(isinstance(item, PLAIN) and not isinstance(item, _Arguments) for item in items)
        self.push(tuple(items) if plain else _Arguments(items))

    def last(self, count: int) -> list:
        if len(self.stack) < count:
            raise RefusedError("too few values")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    # the memo

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        value = self.memo[index]
        self.push(value.value if isinstance(value, _Array) and value.value is not None else value)

    # functions

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push(_known(_text(module), _text(name)))

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Function) or function.call is None or not isinstance(arguments, tuple):
            raise RefusedError("a call of something that may not be called")
        self.push(function.call(*arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack.pop()
        if not isinstance(target, _Array | _DType):
            raise RefusedError(f"a state for a {type(target).__name__}")
        self.push(target.build(state))


def _int(line: bytes) -> int | bool:
    return {b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line.rstrip(b"L"))


def _quoted(line: bytes) -> bytes:
    if len(line) < 2 or line[:1] not in b"'\"" or line[-1:] != line[:1]:
        raise RefusedError("a string without quotes")
    return codecs.escape_decode(line[1:-1])[0]


STEPS = {
    b"\x80": lambda m: m.take(1),  # protocol
    b"\x95": lambda m: m.take(8),  # frame
    b"(": lambda m: m.push(MARK),
    b"0": lambda m: m.stack.pop(),
    b"1": lambda m: m.marked(),
    b"2": lambda m: m.push(m.stack[-1]),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": lambda m: m.push(_int(m.line())),
    b"L": lambda m: m.push(_int(m.line())),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": lambda m: m.push(int.from_bytes(m.take(m.number("<B")), "little", signed=True)),
    b"F": lambda m: m.push(float(m.line())),
    b"G": lambda m: m.push(m.number(">d")),
    b"S": lambda m: m.push(_quoted(m.line())),
    b"T": lambda m: m.push(m.counted("<i")),
    b"U": lambda m: m.push(m.counted("<B")),
    b"B": lambda m: m.push(m.counted("<I")),
    b"C": lambda m: m.push(m.counted("<B")),
    b"\x8e": lambda m: m.push(m.counted("<Q")),
    b"\x96": lambda m: m.push(m.counted("<Q")),
    b"V": lambda m: m.push(str(m.line(), "raw-unicode-escape")),
    b"X": lambda m: m.push(str(m.counted("<I"), "utf-8", "surrogatepass")),
    b"\x8c": lambda m: m.push(str(m.counted("<B"), "utf-8", "surrogatepass")),
    b"\x8d": lambda m: m.push(str(m.counted("<Q"), "utf-8", "surrogatepass")),
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b")": lambda m: m.push(()),
    b"l": lambda m: m.push(list(map(m.plain, m.marked()))),
    b"d": lambda m: m.dict_of(),
    b"t": lambda m: m.tuple_of(m.marked()),
    b"\x85": lambda m: m.tuple_of(m.last(1)),
    b"\x86": lambda m: m.tuple_of(m.last(2)),
    b"\x87": lambda m: m.tuple_of(m.last(3)),
    b"a": lambda m: m.append(m.last(1)),
    b"e": lambda m: m.append(m.marked()),
    b"s": lambda m: m.set_items(m.last(2)),
    b"u": lambda m: m.set_items(m.marked()),
    b"g": lambda m: m.get(int(m.line())),
    b"h": lambda m: m.get(m.number("<B")),
    b"j": lambda m: m.get(m.number("<I")),
    b"p": lambda m: m.put(int(m.line())),
    b"q": lambda m: m.put(m.number("<B")),
    b"r": lambda m: m.put(m.number("<I")),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"c": lambda m: m.push(_known(str(m.line(), "latin-1"), str(m.line(), "latin-1"))),
    b"\x93": lambda m: m.stack_global(),
    b"R": lambda m: m.reduce(),
    b"b": lambda m: m.build(),
}
