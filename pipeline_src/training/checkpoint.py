"""Checkpoints: tensors and a little JSON in one safetensors file, written whole or not at all; never a pickle.

The file's header holds a hash of all the rest, so that one that a power failure or a bad disk has changed is not used.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline_src.core import files

FORMAT = 3  # counted up when what a checkpoint holds changes
LEFT = ".tmp??????"  # what safetensors writes to; a process that was killed meanwhile leaves it


class DamagedError(Exception):
    """A file that is no whole checkpoint of this format; the message says what is wrong with it."""


def save(file: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors with `about` in the file's header."""
    write(file, on_host(tensors), json.dumps(about))


def write(file: Path, tensors: dict[str, Tensor], text: str) -> None:
    """The same of what `on_host` gave, and of JSON. Lets other threads go on: it reads no device. One process writes
    to a folder at a time.
    """
    for left in file.parent.glob(LEFT):
        files.remove(left)
    header = {"about": text, "format": str(FORMAT), "sha256": _hash(tensors, text)}
    with files.whole(file) as temporary:
        with _system_errors(temporary):
            save_file(tensors, temporary, metadata=header)
        _sort_header(temporary)


def on_host(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU. Those of a device come together, as the host waits for each copy."""
    away = {name: t.detach() for name, t in tensors.items() if t.device.type != "cpu"}
    there = _together(away) if away else {}
    return {
        name: there[name] if name in there else t.detach().clone(memory_format=torch.contiguous_format)
        for name, t in tensors.items()
    }


def _together(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a device as copies on the CPU, parts of one string of bytes. It is pinned, as a GPU writes to that
    several times faster, and PyTorch uses the memory again for the next copy when this one has gone.
    """
    order = sorted(tensors, key=lambda name: -tensors[name].element_size())  # each at a multiple of its numbers' size
    try:
        joined = torch.cat([tensors[name].contiguous().view(-1).view(torch.uint8) for name in order])
        whole = torch.empty(len(joined), dtype=torch.uint8, pin_memory=joined.device.type != "mps").copy_(joined)
    except torch.OutOfMemoryError:  # there is no room for them twice
        return {name: t.cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    parts = whole.split([tensors[name].nbytes for name in order])
    return {
        name: part.view(tensors[name].dtype).view(tensors[name].shape) for name, part in zip(order, parts, strict=True)
    }


@contextmanager
def _system_errors(file: Path) -> Iterator[None]:
    """Errors of the system have their number and the file, which safetensors says in its text at most."""
    try:
        yield
    except (SafetensorError, OSError) as error:
        code = re.search(r"os error (\d+)", str(error))
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(file)) if code else error from error


def _sort_header(file: Path) -> None:
    """Put the entries of a file's header in order: safetensors writes them in a random one, and equal runs are to have
    equal files.
    """
    with file.open("r+b") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        opened.seek(8)
        opened.write(text.ljust(length))


def load(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU, and what was written about them. Raises DamagedError, and OSError with the file's name."""
    file.open("rb").close()  # safetensors takes a file that may not be read for one that is not there
    try:
        with _system_errors(file), safe_open(file, "pt") as opened:
            header = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DamagedError(f"expected a whole safetensors file, but got: {error}") from error
    if header.get("format") != str(FORMAT):
        raise DamagedError(f"expected format {FORMAT}, but got {header.get('format')}")
    if header.get("sha256") != _hash(tensors, header.get("about", "")):
        raise DamagedError("expected the hash in its header, but got another: its content has changed")
    return tensors, json.loads(header["about"])


def _hash(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
