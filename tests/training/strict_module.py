"""The module of the test device (see `strict`): the streams, events and generators that the program asks for."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._C._autograd import DeviceType

NAME = "strict"


class Stream(torch.Stream):
    """A queue of copies: `issued` of them so far; `seen` {stream: how many of its copies this one waits for}."""

    _count = 0

    def __new__(cls, *_: Any, **__: Any) -> Stream:
        cls._count += 1
        return super().__new__(cls, stream_id=cls._count, device_index=0, device_type=int(DeviceType.PrivateUse1))

    def __init__(self, *_: Any, **__: Any) -> None:
        self.issued, self.seen = 0, {}

    def wait_stream(self, other: Stream) -> None:
        self.seen[other.stream_id] = other.issued

    def wait_event(self, event: Event) -> None:
        for name, count in event.marks.items():
            self.seen[name] = max(count, self.seen.get(name, 0))

    def __hash__(self) -> int:
        return self.stream_id


class Event:
    """What a stream had been asked for when it was recorded."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.marks: dict[int, int] = {}

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or module.current_stream()
        self.marks = {stream.stream_id: stream.issued}

    def synchronize(self) -> None:
        """The host waits: what was copied until then may be written again."""
        if threading.current_thread() is not threading.main_thread() and not hasattr(module.threads, "device"):
            module.watch.note("a thread waits for an event and has not set its device, so it does on the first one")
        module.watch.ended(self.marks)

    def query(self) -> bool:
        self.synchronize()
        return True


class Generator(torch.Generator):
    """A generator of any device; that of the test device draws as the CPU's."""

    def __new__(cls, where: Any = "cpu") -> Generator:
        return super().__new__(cls, "cpu")

    def __init__(self, where: Any = "cpu") -> None:
        self._where = torch.device(where)

    @property
    def device(self) -> torch.device:
        return self._where


class Module:
    """What PyTorch and the program ask of a device's module, `torch.strict`."""

    Stream, Event = Stream, Event
    watch: Any  # strict.Watch

    def __init__(self) -> None:
        self.rng = torch.Generator().manual_seed(1).get_state()
        self._streams = [Stream()]
        self.threads = threading.local()  # the device that each thread has set

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def set_device(self, device: torch.device) -> None:
        assert device.index is not None, "torch.cuda.set_device wants a number"
        self.threads.device = device

    def manual_seed_all(self, seed: int) -> None:
        self.rng = torch.Generator().manual_seed(seed).get_state()

    def get_rng_state(self, device: Any = None) -> Tensor:
        return self.rng.clone()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        self.rng = state.clone()

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def synchronize(self, device: Any = None) -> None:
        self.watch.waits("the device is waited for")
        self.watch.ended(None)

    def current_stream(self, device: Any = None) -> Stream:
        return self._streams[-1]

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self._streams.append(stream)
        try:
            yield
        finally:
            self._streams.pop()


module = Module()


@functools.cache
def device() -> torch.device:
    return torch.device(NAME, 0)
