"""A device of the tests, `strict`: tensors that lie on the CPU and claim to be elsewhere.

Whoever treats them as a GPU does not allow, or makes the host wait for it, is noted in `Watch.problems` with file and
line:

    anywhere        tensors of two devices in one operation, a generator of another device than its numbers,
                    an operation in another thread than that which trains, whose numbers may have changed by then,
                    a pinned buffer that is copied from before its last copy is known to have ended,
                    a tensor that a side stream copied and that is used before it is there, or not kept for its user,
                    a gradient that goes back through an LSTM in evaluation mode, for which cuDNN has an error
                    a thread that waits for an event before it has set its device
    inside a step   reading a value back (`.item()`, `.cpu()`, `.tolist()`, `bool`), shapes that depend on values
                    (boolean masks, `nonzero`, `unique`), uploads that block, as their memory is not pinned or they are
                    not `non_blocking`

The numbers are those of the CPU. Nothing here runs later than it is asked to: streams and events are accounts of who
may rely on what.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from tests.training import strict_autocast, strict_lstm, strict_module
from tests.training.strict_module import NAME, Generator, Stream, device, module

CPU = torch.device("cpu")
aten = torch.ops.aten
READS = {aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.allclose}
SIZES = {  # shapes that depend on values
    aten.nonzero,
    aten.nonzero_numpy,
    aten.argwhere,
    aten.masked_select,
    aten._unique,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
    aten.multinomial,  # without replacement it looks at the sum
}
HOST = {aten.is_pinned, aten._pin_memory, aten.record_stream}


class Strict(Tensor):
    """A tensor `inner` of the CPU that says it is on the device; `born` is set where a side stream made it."""

    inner: Tensor
    born: tuple[Stream, int] | None
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor, born: tuple[Stream, int] | None = None) -> Strict:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=device(),
            requires_grad=inner.requires_grad,
        )
        made.inner, made.born, made.kept_for = inner, born, set()
        return made

    def __repr__(self) -> str:
        return f"Strict({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return module.watch.run(op, args, kwargs or {})


OURS = (__file__, strict_autocast.__file__, strict_lstm.__file__, strict_module.__file__)
_set_up = False


class Watch(TorchDispatchMode):
    """Runs every operation on the tensors inside, and notes in `problems` what a GPU would not do or wait for.

    `inside` says whether a step is under way.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else PyTorch imports its compiler to keep away from this

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.trains = False, threading.get_ident()
        self.problems: dict[str, None] = {}  # in order, each once
        self.operations = self.reads = 0  # on tensors of the device, and of these copies to the CPU
        self.pinned: dict[int, Tensor] = {}  # by the address of the storage
        self.copying: dict[int, tuple[int, int]] = {}  # pinned storage -> the copy that it is the source of

    def __torch_dispatch__(self, op: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return self.run(op, args, kwargs or {})

    def note(self, problem: str) -> None:
        self.problems[f"{_where()}: {problem}"] = None

    def waits(self, problem: str) -> None:
        if self.inside:
            self.note(f"{problem} inside a step")

    def run(self, op: Any, args: tuple, kwargs: dict) -> Any:
        """One operation: its result, on the device that it belongs to."""
        tensors = _tensors(args) + _tensors(kwargs.values())
        strict = [x for x in tensors if isinstance(x, Strict)]
        plain = [x for x in tensors if not isinstance(x, Strict)]
        name = op.overloadpacket
        if name in HOST:
            return self._host(name, args)
        asked = kwargs.get("device")
        asked = None if asked is None else torch.device(asked)
        if name in (aten._to_copy, aten.copy_):
            target = (asked or (device() if strict else CPU)) if name is aten._to_copy else args[0].device
            self._copied(op, target, args, kwargs)
        else:
            target = asked or (device() if strict else CPU)
            if strict:
                self._checked(op, name, strict, plain, args)
        self.operations += bool(strict)
        if strict and threading.get_ident() != self.trains:
            self.note(f"{op} in another thread than that which trains")
        for x in strict:
            self._there(x)
        inner_args = [_bare(x) for x in args]
        inner_kwargs = {name: _bare(x) for name, x in kwargs.items()}
        pin = inner_kwargs.pop("pin_memory", False)
        out = self._drawn(op, target, inner_args, inner_kwargs)
        if pin:
            self.pinned[out.untyped_storage().data_ptr()] = out
        if target == CPU or target.type == "cpu":
            return out
        born = next((x.born for x in strict if x.born), None) if _is_view(op) else None
        if born is None and (stream := module.current_stream()) is not module._streams[0]:
            born = stream, stream.issued
        known = {id(x.inner): x for x in strict}

        def wrapped(x: Any) -> Any:
            if isinstance(x, Tensor):
                return known[id(x)] if id(x) in known else Strict(x, born)
            return type(x)(map(wrapped, x)) if isinstance(x, (list, tuple)) else x

        return wrapped(out)

    def _drawn(self, op: Any, target: torch.device, args: list, kwargs: dict) -> Any:
        """The result; a random one without a generator is drawn from the device's own."""
        own = torch.Tag.nondeterministic_seeded in op.tags and target.type == NAME
        if not own or isinstance(kwargs.get("generator"), torch.Generator):
            return op(*args, **kwargs)
        before = torch.get_rng_state()
        torch.set_rng_state(module.rng)
        try:
            return op(*args, **kwargs)
        finally:
            module.rng = torch.get_rng_state()
            torch.set_rng_state(before)

    def _host(self, name: Any, args: tuple) -> Any:
        x = args[0]
        if name is aten.record_stream:
            x.kept_for.add(args[1].stream_id)
            return None
        if name is aten.is_pinned:
            return not isinstance(x, Strict) and self._is_pinned(x)
        copy = x.clone()
        self.pinned[copy.untyped_storage().data_ptr()] = copy
        return copy

    def _is_pinned(self, x: Tensor) -> bool:
        return x.untyped_storage().data_ptr() in self.pinned

    def _copied(self, op: Any, target: torch.device, args: tuple, kwargs: dict) -> None:
        """A copy, of `args`' last tensor."""
        source = args[-1] if op.overloadpacket is aten._to_copy else args[1]
        if not isinstance(source, Tensor) or source.device.type == target.type:
            return
        if isinstance(source, Strict):
            self.reads += 1
            self.waits("a tensor is read back from the device")
            return self.ended(None)
        given = args[2] if op.overloadpacket is aten.copy_ and len(args) > 2 else False
        asynchronous = kwargs.get("non_blocking", given)
        if not (asynchronous and self._is_pinned(source)):
            return self.waits(
                "an upload blocks, as it is not " + ("of pinned memory" if asynchronous else "non_blocking")
            )
        key, stream = source.untyped_storage().data_ptr(), module.current_stream()
        if key in self.copying:
            self.note("a pinned buffer is copied again, though nobody waited for its last copy")
        stream.issued += 1
        self.copying[key] = stream.stream_id, stream.issued

    def ended(self, marks: dict[int, int] | None) -> None:
        """The host has waited for copies {stream: how many}; None: for all."""
        for key, (stream, number) in list(self.copying.items()):
            if marks is None or number <= marks.get(stream, 0):
                del self.copying[key]

    def _there(self, x: Strict) -> None:
        """Whether a tensor that a side stream made may be used on the current one."""
        if x.born is None or x.born[0] is (now := module.current_stream()):
            return
        stream, number = x.born
        if now.seen.get(stream.stream_id, 0) < number:
            self.note("a tensor is used before the copy that fills it has ended")
        elif now.stream_id not in x.kept_for:
            self.note("a tensor of a side stream is used without record_stream, its memory may be given away")

    def _checked(self, op: Any, name: Any, strict: list[Strict], plain: list[Tensor], args: tuple) -> None:
        indices = [x for x in args[1] if x is not None] if name in (aten.index, aten.index_put, aten.index_put_) else []
        if any(not isinstance(x, Strict) for x in indices):
            self.waits(f"{op} uploads an index")
        masked = any(x.dtype in (torch.bool, torch.uint8) for x in indices)
        if masked and not (name is not aten.index and args[2].numel() == 1):
            self.waits(f"{op} with a boolean mask")
        if name in READS:
            self.waits(f"{op} reads a value back")
        elif name in SIZES or (name is aten.repeat_interleave and len(args) == 1):
            self.waits(f"{op} has a result whose shape depends on values")
        elif _looks(name):
            self.waits(f"{op} looks at its result")
        wrong = [x for x in plain if x.dim() and not any(x is i for i in indices)]
        # A number on the CPU goes along with the operation, but not where it is written to or joined to tensors.
        numbers = [x for x in plain if not x.dim()]
        joined = name in (aten.cat, aten.stack, aten.index_select, aten.gather, aten.scatter, aten.masked_fill)
        if wrong or (numbers and (joined or (op._schema.is_mutable and args and args[0] is numbers[0]))):
            self.note(f"{op} of tensors on {NAME} and on the CPU")


class _Generators(TorchFunctionMode):
    """Checks the generators that are passed, which reach an operation as other objects; uploads of `torch.tensor`."""

    def __init__(self, watch: Watch):
        super().__init__()
        self.watch = watch

    def __torch_function__(self, call: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        generator = kwargs.get("generator")
        if generator is None:
            generator = next((x for x in args if isinstance(x, torch.Generator)), None)
        asked = kwargs.get("device")
        if generator is not None:
            of = next((x.device for x in args if isinstance(x, Tensor)), CPU) if asked is None else torch.device(asked)
            if of.type != generator.device.type:
                self.watch.note(f"{_name(call)} on {of.type} with a generator of {generator.device.type}")
        if call is Tensor.tolist and isinstance(args[0], Strict):
            self.watch.waits("tolist reads values back")
            return args[0].inner.tolist()
        if call is Tensor.new_tensor and isinstance(args[0], Strict):
            return torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)).to(device())
        if call in (torch.tensor, torch.as_tensor) and asked is not None and torch.device(asked).type == NAME:
            made = call(*args, **{k: v for k, v in kwargs.items() if k != "device"})
            return made if isinstance(made, Strict) else made.to(asked)
        if _name(call) == "lstm" and isinstance(args[0], Strict):
            return strict_lstm.lstm(*args)
        return call(*args, **kwargs)


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among values, and in the lists among them."""
    found = []
    for x in values:
        if isinstance(x, Tensor):
            found.append(x)
        elif isinstance(x, (list, tuple)):
            found += [y for y in x if isinstance(y, Tensor)]
    return found


def _bare(x: Any) -> Any:
    if isinstance(x, Strict):
        return x.inner
    if isinstance(x, (list, tuple)):
        return [_bare(y) for y in x]
    return CPU if isinstance(x, torch.device) else x


def _name(call: Any) -> str:
    return getattr(call, "__name__", str(call))


@functools.cache
def _looks(name: Any) -> bool:
    """Whether it is one of linear algebra that looks at its result, to raise an error."""
    return "linalg" in str(name) and not any(fine in str(name) for fine in ("norm", "cross", "diagonal", "matmul"))


@functools.cache
def _is_view(op: Any) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in op._schema.returns)


def _where() -> str:
    """File and line of who called, the innermost that is neither PyTorch's nor this file's."""
    frame, last = sys._getframe(1), "the backward pass"
    while frame is not None:
        file = frame.f_code.co_filename
        if "/torch/" not in file and file not in OURS and not file.startswith("<"):
            _, package, inside = file.rpartition("/pipeline_src/")
            return f"{package[1:] + inside or file}:{frame.f_lineno}"
        frame = frame.f_back
    return last


@contextmanager
def watched() -> Iterator[Watch]:
    """The device is there, and what is done is watched."""
    global _set_up
    if not _set_up:
        _setup_privateuseone_for_python_backend(NAME, module)
        strict_autocast.register()
        _set_up = True
    watch = Watch()
    module.watch, before = watch, torch.Generator
    torch.Generator = Generator
    try:
        # In the thread of the caller: PyTorch's threads for backward passes are started once, for the devices of then.
        with torch.autograd.set_multithreading_enabled(False), _Generators(watch), watch:
            yield watch
    finally:
        torch.Generator = before
        with suppress(AttributeError):
            del module.watch
