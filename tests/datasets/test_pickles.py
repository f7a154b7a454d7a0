"""Pickles are read without being run: plain data as it was, and everything else refused with nothing executed."""

import io
import os
import pickle
import pickletools
import struct
import sys

import numpy as np
import pytest

from pipeline_src.core.errors import UserError
from pipeline_src.datasets import pickles


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray):
        native = a.dtype.newbyteorder("=") == b.dtype.newbyteorder("=")  # most protocols lose the byte order
        return native and a.shape == b.shape and all(map(same, a.ravel().tolist(), b.ravel().tolist()))
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return (bytes(b) if isinstance(b, memoryview) else b) == a


DATA = {
    "train": {
        "vision": np.random.default_rng(0).normal(size=(4, 5, 3)).astype("f4"),
        "labels": np.array([[[-1.2]], [[0.0]], [[3.0]], [[-3.0]]]),
        "id": np.array([["abc", 1.5], ["d", 2]], dtype=object),
        "words": np.array(["x", "yyé"]),
        "big-endian": np.arange(3, dtype=">i4"),
        "columns first": np.asfortranarray(np.arange(12).reshape(3, 4)),
        "none": np.zeros((0, 3)),
        "large": np.arange(20_000.0).reshape(100, 200),
        "one": np.float32(3),
        "nested": np.array([np.arange(2), np.arange(3)], dtype=object),
    },
    "plain": [1, -(2**40), 2.5, None, True, "é", b"\xff\n", b"\xff" * 70_000, (1, (2, 3)), [[]], {"a": {}}, b""],
}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_is_read_as_it_was(tmp_path, protocol):
    file = tmp_path / "data.pkl"
    file.write_bytes(pickle.dumps(DATA, protocol=protocol))
    assert same(DATA, pickles.read(file))


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_both_names_of_numpys_module(tmp_path, module):
    file = tmp_path / "data.pkl"
    here = b"numpy._core.multiarray"
    content = pickle.dumps(np.arange(4), protocol=2)
    assert content.count(here) == 1
    file.write_bytes(content.replace(here, module.encode()))
    assert same(np.arange(4), pickles.read(file))


def python2(array: np.ndarray, key: bytes) -> bytes:
    """{key: array} as Python 2 wrote it in protocol 2: strings without an encoding, arrays as such strings."""
    data, kind = array.tobytes(), array.dtype.str.encode()

    def string(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    shape = b"(" + b"".join(b"K" + bytes([n]) for n in array.shape) + b"t"
    dtype = (
        b"cnumpy\ndtype\n"
        + string(kind[1:])
        + b"K\0K\1\x87R(K\3"
        + string(b"<")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    )
    new = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + string(b"b") + b"\x87Rq\1"
    return b"\x80\2}q\0" + string(key) + new + b"(K\1" + shape + dtype + b"\x89" + string(data) + b"tbs."


def test_pickles_of_python_2(tmp_path):
    array = np.arange(60, dtype="<f4").reshape(3, 4, 5)
    content = python2(array, b"vision")
    assert same({"vision": array}, pickle.loads(content, encoding="latin1"))  # it is what Python 2 meant
    file = tmp_path / "data.pkl"
    file.write_bytes(content)
    assert same({"vision": array}, pickles.read(file))


def test_a_npy_file_that_holds_a_pickle(tmp_path):
    np.save(tmp_path / "data.npy", {"train_image": np.arange(8).reshape(2, 4)}, allow_pickle=True)
    assert same({"train_image": np.arange(8).reshape(2, 4)}, pickles.read(tmp_path / "data.npy"))
    np.save(tmp_path / "plain.npy", np.arange(3))
    with pytest.raises(UserError, match=r"plain\.npy: expected a \.npy file of objects, but got int64"):
        pickles.read(tmp_path / "plain.npy")


# --- what must not run ------------------------------------------------------------------------------------------------


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def touching(folder) -> str:
    return f"touch {folder / 'executed'}"


def inside_an_array(item) -> np.ndarray:
    array = np.empty(2, dtype=object)
    array[:] = ["a", item]
    return array


MALICIOUS = {
    "a shell": lambda f: Call(os.system, touching(f)),
    "eval": lambda f: Call(eval, f"open({str(f / 'executed')!r}, 'w')"),
    "a shell deep inside": lambda f: {"train": {"vision": [1, (2, {"x": Call(os.system, touching(f))})]}},
    "a shell in an array of objects": lambda f: {"id": inside_an_array(Call(os.system, touching(f)))},
    "a shell as the state of an array": lambda f: Call(np.ndarray, (1,), state=Call(os.system, touching(f))),
    "getattr": lambda f: Call(getattr, "", "upper"),
    "a file": lambda f: Call(open, str(f / "executed"), "w"),
    "a loader of pickles": lambda f: Call(np.load, "x.npy"),
    "a class of another module": lambda f: Call(io.BytesIO, b"x"),
    "a huge array by its class": lambda f: Call(np.ndarray, (1 << 40,)),
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("kind", MALICIOUS)
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, kind, protocol):
    file = tmp_path / "data.pkl"
    file.write_bytes(pickle.dumps(MALICIOUS[kind](tmp_path), protocol=protocol))
    with pytest.raises(
        UserError, match=r"data\.pkl: expected a pickle of .* numbers only, but got (the name|a call of numpy\.ndarray)"
    ):
        pickles.read(file)
    assert [path.name for path in tmp_path.iterdir()] == ["data.pkl"]


def test_the_attack_is_real(tmp_path):
    """What the reader refuses does run where a pickle is loaded as such; else the tests above would show nothing."""
    pickle.loads(pickle.dumps(MALICIOUS["eval"](tmp_path)))
    assert (tmp_path / "executed").exists()


def test_the_refusal_names_what_was_found(tmp_path):
    file = tmp_path / "data.pkl"
    file.write_bytes(pickle.dumps(Call(eval, "1")))
    with pytest.raises(UserError, match=r"the name builtins\.eval; nothing of it was run"):
        pickles.read(file)


ARRAY = b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR"
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\n(tR"
STATE = b"(I1\n(I1\nt" + ARRAY + b"I00\nC\4abcdtb"
OBJECTS = EMPTY + b"(I1\n(I1\nt" + ARRAY.replace(b"f4", b"O8") + b"I00\n("  # then its items, and ltb
RAW = {
    "a registered extension": b"\x82\x01.",
    "a persistent object": b"Pabc\n.",
    "an instance": b"(ios\nsystem\n.",
    "an object": b"(cos\nsystem\no.",
    "a new object": b"cbuiltins\nobject\n)\x81.",
    "the registry of copies": b"ccopyreg\n_reconstructor\n(tR.",
    "a set": b"\x8f.",
    "more bytes than there are": b"B\xff\xff\xff\x7f" + b"x" * 9 + b".",
    "more text than there is": b"\x8d" + struct.pack("<Q", 1 << 62) + b".",
    "a huge number": b"\x8b" + struct.pack("<i", 1 << 30) + b".",
    "a number of endless digits": b"I" + b"9" * 5000 + b"\n.",
    "a huge place in the memo": b"Nr\xff\xff\xff\xffj\xfe\xff\xff\xff.",
    "an array larger than its data": b"cnumpy.core.multiarray\n_reconstruct\n(tR(I1\n(I1099511627776\nt"
    + ARRAY
    + b"I00\nC\4abcdtb.",
    "an array of a compound type": b"cnumpy\ndtype\n(S'V8'\nI0\nI1\ntR.",
    "a type changed into a compound one": ARRAY + b"(I3\nS'<'\nNS'x'\nNtb.",
    "bytes of any size": b"cbuiltins\nbytes\n(I1099511627776\ntR.",
    "a state for a function": b"cnumpy\ndtype\n}b.",
    "a state for a list": b"]}b.",
    "a function as data": b"](cnumpy\ndtype\ne.",
    "a function in a tuple as data": b"](cnumpy\ndtype\nte.",
    "an unfinished array": b"cnumpy.core.multiarray\n_reconstruct\n(tR.",
    "a list as a key": b"}]Ns.",
    "no end": b"]",
    "an end without a beginning": b"t.",
    "nothing to end": b".",
    "two values": b"NN.",
    "other bytes": b"\x89PNG\r\n",
    "a tuple as a key": b"}K\1K\1\x86Ns.",
    "a tuple as a key of several": b"}(K\1)Ku.",
    "a tuple as a key from a mark": b"()Nd.",
    "a deep tuple as a key": b"})" + b"\x85" * 200_000 + b"Ns.",
    "a tuple as a key that takes for ever to hash": b"})" + b"2\x86" * 64 + b"Ns.",
    "a list deep inside": b"]" * 200_000 + b"a" * 199_999 + b".",
    "arrays of objects deep inside": OBJECTS * 20_000 + b"N" + b"ltb" * 20_000 + b".",
    "a list in itself": b"]q\0h\0a.",
    "more bytes of an array than there are": b"\x96" + struct.pack("<Q", 1 << 40) + b".",
    "a frame larger than the file": b"\x95" + struct.pack("<Q", 1 << 50) + b"]" * 9,
    "numbers that are declared to be pointers": EMPTY
    + b"(I1\n(I1\nt"
    + ARRAY
    + b"(I3\nS'<'\nNNNI8\nI8\nI63\ntbI00\n]K\1atb.",
    "objects that are fewer than the array is long": OBJECTS.replace(b"(I1\nt", b"(I4\nt") + b"Nltb.",
    "an array filled twice": b"(" + EMPTY + STATE + STATE + b"t.",
    "an array of negative length": EMPTY + STATE.replace(b"I1\nt", b"I-1\nt") + b".",
    "a state for a number": b"K\1)b.",
    "a type as data": b"]" + ARRAY + b"a.",
}


@pytest.mark.parametrize("kind", RAW)
def test_anything_but_plain_data_is_refused(tmp_path, kind):
    file = tmp_path / "data.pkl"
    file.write_bytes(RAW[kind])
    with pytest.raises(UserError, match=r"data\.pkl: expected a pickle of arrays, strings and numbers only"):
        pickles.read(file)


@pytest.mark.parametrize("header", ["(" * 9000, "[" * 100, "{'descr': 'O', 'shape': ()}", "{'a':", "\0", "1" * 9000])
def test_headers_of_npy_files_that_do_harm(tmp_path, header):
    file = tmp_path / "data.npy"
    file.write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + b"N.")
    with pytest.raises(UserError, match=r"data\.npy: expected a \.npy file, but got .*; get the file again"):
        pickles.read(file)


def test_empty_and_missing_files(tmp_path):
    with pytest.raises(UserError, match=r"none\.pkl: expected a pickle of arrays, but got no file"):
        pickles.read(tmp_path / "none.pkl")
    (tmp_path / "empty.pkl").touch()
    with pytest.raises(UserError, match=r"empty\.pkl: expected a pickle, but got no more than 0 bytes"):
        pickles.read(tmp_path / "empty.pkl")


def test_a_pickle_cut_short_anywhere_is_refused(tmp_path):
    content = pickle.dumps({"a": np.arange(50), "b": ["x", (1, 2.5)]}, protocol=2)
    file = tmp_path / "data.pkl"
    for end in range(1, len(content), 3):
        file.write_bytes(content[:end])
        with pytest.raises(UserError):
            pickles.read(file)


def test_no_damage_gets_anything_but_data_or_a_refusal(tmp_path):
    """Files with damaged bytes: none runs anything, takes long, or ends in another error."""
    rng, modules = np.random.default_rng(0), set(sys.modules)
    content = pickle.dumps({"a": np.arange(9), "b": ["x", (1, 2.5)], "c": np.array(["u"], object)}, protocol=2)
    file = tmp_path / "data.pkl"
    for _ in range(200):
        damaged = bytearray(content)
        for at in rng.integers(len(content), size=rng.integers(1, 6)):
            damaged[at] = rng.integers(256)
        file.write_bytes(bytes(damaged))
        try:
            pickles.read(file)
        except UserError as error:
            assert len(str(error)) < 2000
    assert set(sys.modules) == modules


def test_every_instruction_that_builds_plain_data_is_carried_out():
    refused = {opcode.code for opcode in pickletools.opcodes} - set(map(chr, pickles.STEPS))
    assert refused == set("PQio") | set("\x81\x82\x83\x84\x8b\x8f\x90\x91\x92\x97\x98")
