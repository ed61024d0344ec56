"""Streams, events and graphs: who knows of whose work, and what a capture allows."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

PERMITTED = "CUDA error: operation not permitted when stream is capturing"
INVALIDATED = "CUDA error: operation failed due to a previous error during capture"
ISOLATION = "CUDA error: dependency created on uncaptured work in another stream"
UNJOINED = "CUDA error: capturing stream has unjoined work"

_RealGenerator = torch.Generator
_count = itertools.count()
_here = threading.local()
_everything: list[Stream] = []
_host: dict[Stream, int] = {}
_capturing: list[Capture] = []


_made: weakref.WeakValueDictionary[int, Generator] = weakref.WeakValueDictionary()
"""By the address of the C++ generator: operators see another Python object of it."""


class _AnyGenerator(type(_RealGenerator)):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, _RealGenerator)


class Generator(_RealGenerator, metaclass=_AnyGenerator):
    """torch.Generator, of the CPU or of the GPU that is not there. The GPU's may not be read or set
    during a capture, and is `stuck` after one that failed: it draws no more until it gets another
    state
        (`graphsafe_set_state`).
    """

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls, "cpu")
        made.place, made.stuck = torch.device(device), False
        _made[made._cdata] = made
        return made

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", 0) if self.place.type == "cuda" else self.place

    def _free(self) -> None:
        if self.place.type == "cuda" and current().capture is not None:
            current().capture.fail(
                "Cannot call CUDAGeneratorImpl's state functions during CUDA graph capture."
            )

    def manual_seed(self, seed: int) -> Generator:
        self._free()
        super().manual_seed(seed)
        return self

    def seed(self) -> int:
        self._free()
        return super().seed()

    def get_state(self) -> Tensor:
        self._free()
        return super().get_state()

    def set_state(self, state: Tensor) -> Generator:
        self._free()
        super().set_state(state)
        return self

    def graphsafe_get_state(self) -> Generator:
        made = Generator(self.place)
        made.raw_set_state(self.raw_state())
        return made

    def graphsafe_set_state(self, state: Generator) -> Generator:
        self.raw_set_state(state.raw_state())
        self.stuck = state.stuck
        return self

    def draws(self) -> None:
        if self.stuck and current().capture is None:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")

    def raw_state(self) -> Tensor:
        return super().get_state()

    def raw_set_state(self, state: Tensor) -> None:
        super().set_state(state)


GENERATOR = Generator("cuda")


def device_of(generator: Any) -> torch.device:
    """Where a generator that an operator was given draws."""
    return _made.get(generator._cdata, generator).device


@contextlib.contextmanager
def in_the_defaults_place() -> Iterator[None]:
    """Inside, the CPU's generator is the GPU's."""
    kept = torch.default_generator.get_state()
    torch.default_generator.set_state(GENERATOR.raw_state())
    try:
        yield
    finally:
        GENERATOR.raw_set_state(torch.default_generator.get_state())
        torch.default_generator.set_state(kept)


class Stream:
    """Work in order. `knows` is, for each other stream, up to where its work is done before what
    comes next here."""

    def __init__(self, device: Any = None, priority: int = 0, **_: Any) -> None:
        self.device = torch.device("cuda", 0)
        self.cuda_stream = next(_count)
        self.ticks = 0
        self.knows: dict[Stream, int] = {}
        self.capture: Capture | None = None
        _everything.append(self)

    def is_capturing(self) -> bool:
        return self.capture is not None

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        self.host_waits("synchronize")

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if event.capture is not None:
            if self.capture is None and event.capture in _capturing:
                self.capture = event.capture
                event.capture.joined.append(self)
        elif self.capture is not None and event.stream is not None:
            self.capture.fail(ISOLATION)
        _learn(self.knows, event.knows)

    def wait_stream(self, stream: Stream) -> None:
        self.wait_event(stream.record_event())

    def host_waits(self, why: str) -> None:
        """The host waits for all that was launched here."""
        if self.capture is not None:
            self.capture.fail(f"{PERMITTED} ({why})")
        for capture in _capturing:
            capture.disturbed(why)
        _learn(_host, {**self.knows, self: self.ticks})

    def reads_host(self, tensor: Tensor) -> None:
        """An asynchronous copy from pinned memory, launched next."""
        from mock_cuda.memory import record

        found = record(tensor)
        if found is not None and found.place == "pinned":
            found.read[self] = self.ticks + 1

    def orders(self, read: Iterable[Any], written: Iterable[Any]) -> None:
        """A launch that reads and writes storages: raises where another stream's work on them may
        not be done."""
        if self.capture is not None and self.capture.invalid:
            raise RuntimeError(INVALIDATED)
        self.ticks += 1
        read, written = list(read), list(written)
        if self.capture is not None:
            self.capture.read.update(dict.fromkeys(read))
            self.capture.written.update(dict.fromkeys(written))
        for found in read:
            if found.place != "cuda":
                continue
            if found.written is not None:
                self._after(*found.written)
            found.read[self] = self.ticks
        for found in written:
            for stream, tick in found.read.items():
                self._after(stream, tick)
            found.written, found.read = (self, self.ticks), {}

    def _after(self, stream: Stream, tick: int) -> None:
        if stream is not self and max(self.knows.get(stream, 0), _host.get(stream, 0)) < tick:
            raise RuntimeError(
                "mock CUDA: a stream uses memory that another stream's work may not be done with"
            )

    def __enter__(self) -> Stream:
        raise TypeError("use torch.cuda.stream(...)")


def _learn(known: dict[Stream, int], news: dict[Stream, int]) -> None:
    for stream, tick in news.items():
        known[stream] = max(known.get(stream, 0), tick)


DEFAULT = Stream()


def current(device: Any = None) -> Stream:
    return getattr(_here, "stream", DEFAULT)


def host_knows(stream: Stream) -> int:
    return _host.get(stream, 0)


def synchronize(device: Any = None) -> None:
    for capture in _capturing:
        capture.disturbed("synchronize")
    for stream in _everything:
        stream.host_waits("synchronize")


def allocates(stream: Stream, how: str) -> None:
    """New memory while a capture is under way: from its own pool for its streams, else a call that
    may break it."""
    if stream.capture is None:
        for capture in _capturing:
            capture.disturbed(f"{how} for a stream that is not captured")
    elif how == "cudaHostAlloc":
        stream.capture.fail(f"{PERMITTED} ({how})")


class stream:
    """torch.cuda.stream: a block on another stream."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        self.before = current()
        if self.stream is not None:
            _here.stream = self.stream

    def __exit__(self, *error: Any) -> None:
        _here.stream = self.before


class Event:
    def __init__(
        self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> None:
        self.timed, self.at = enable_timing, 0.0
        self.stream: Stream | None = None
        self.capture: Capture | None = None
        self.knows: dict[Stream, int] = {}

    def record(self, stream: Stream | None = None) -> None:
        self.stream = stream or current()
        self.capture = self.stream.capture
        self.knows = {**self.stream.knows, self.stream: self.stream.ticks}
        self.at = time.perf_counter()

    def wait(self, stream: Stream | None = None) -> None:
        (stream or current()).wait_event(self)

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        if self.capture is not None:
            raise RuntimeError(PERMITTED)
        for capture in _capturing:
            capture.disturbed("an event's synchronize", event=True)
        _learn(_host, self.knows)

    def elapsed_time(self, other: Event) -> float:
        if not (self.timed and other.timed):
            raise RuntimeError("Both events must be created with argument 'enable_timing=True'.")
        return (other.at - self.at) * 1e3


class Capture:
    """What is being recorded, and whether it may still become a graph."""

    def __init__(self, mode: str) -> None:
        self.mode, self.thread = mode, threading.get_ident()
        self.invalid = False
        self.joined: list[Stream] = []
        self.read: dict[Any, None] = {}
        self.written: dict[Any, None] = {}
        self.calls: list[Callable[[], None]] = []
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._random = GENERATOR.raw_state()

    def fail(self, why: str) -> None:
        self.invalid = True
        raise RuntimeError(why)

    def disturbed(self, why: str, event: bool = False) -> None:
        """An unsafe call elsewhere: from other threads it matters in the global mode alone. Waiting
        for an event is safe."""
        if not event and (
            self.mode == "global"
            or (self.mode == "thread_local" and self.thread == threading.get_ident())
        ):
            self.fail(f"{PERMITTED} ({why})")

    def keep(self, written: Sequence[Tensor]) -> None:
        """A capture runs nothing: memory that was there before is put back at its end."""
        from mock_cuda.memory import below

        with below():
            for value in written:
                storage = value.untyped_storage()
                if storage._cdata not in self._kept:
                    whole = torch.empty(0, dtype=torch.uint8).set_(storage)
                    self._kept[storage._cdata] = (whole, whole.clone())

    def add(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """An operator, to be repeated on the same memory."""
        from mock_cuda.memory import _drawing, flat

        args, kwargs = _aliases(args), _aliases(kwargs)
        outputs = [t.detach() for t in flat(result)]

        def repeat() -> None:
            with _drawing(func, kwargs):
                results = func(*args, **kwargs)
            for old, new in zip(outputs, flat(results), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)

        self.calls.append(repeat)

    def end(self) -> None:
        from mock_cuda.memory import below

        with below():
            for value, before in self._kept.values():
                value.copy_(before)
            GENERATOR.raw_set_state(self._random)


def _aliases(value: Any) -> Any:
    """The same memory without autograd's graph, and deaf to later set_."""
    from mock_cuda.memory import below

    if isinstance(value, Tensor):
        with below():
            return value.detach()
    if isinstance(value, (list, tuple)):
        return type(value)(_aliases(v) for v in value)
    if isinstance(value, dict):
        return {k: _aliases(v) for k, v in value.items()}
    return value


_pools: dict[Any, weakref.WeakSet[CUDAGraph]] = {}
_used: set[Any] = set()
_handles = itertools.count(1)


def graph_pool_handle() -> tuple[int, int]:
    return (0, next(_handles))


class CUDAGraph:
    """torch.cuda.CUDAGraph; torch's own `torch.cuda.graph` drives it."""

    def __init__(self, keep_graph: bool = False) -> None:
        self._pool: Any = None
        self._capture: Capture | None = None
        self._stream: Stream | None = None
        self._ready = False

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global", **_: Any) -> None:
        self._stream = current()
        if self._ready:
            raise RuntimeError(
                "This CUDAGraph instance already owns a captured graph: create a new instance."
            )
        if self._stream is DEFAULT:
            raise RuntimeError("CUDA graphs must be captured on a non-default stream.")
        if self._stream.capture is not None:
            raise RuntimeError("CUDA error: the stream is already capturing")
        users = _pools.setdefault(pool, weakref.WeakSet()) if pool is not None else None
        if users is not None and pool in _used and not users:
            raise RuntimeError(
                "it->second->use_count > 0 INTERNAL ASSERT FAILED: the pool's graphs are gone"
            )  # as with a GPU while the pool's memory isn't all returned
        self._pool = pool
        self._capture = self._stream.capture = Capture(capture_error_mode)
        self._capture.joined.append(self._stream)
        _capturing.append(self._capture)

    def capture_end(self) -> None:
        assert self._capture is not None
        if current() is not self._stream:
            raise RuntimeError("Capture must end on the same stream it began on.")
        capture = self._capture
        _capturing.remove(capture)
        unjoined = any(
            s.ticks > self._stream.knows.get(s, 0) for s in capture.joined if s is not self._stream
        )
        for joined in capture.joined:
            joined.capture = None
            _learn(_host, {joined: joined.ticks})  # recorded, not run: nobody has to wait for it
        capture.end()
        if capture.invalid or unjoined:
            GENERATOR.stuck = True
        if capture.invalid:
            raise RuntimeError(
                INVALIDATED
            )  # torch.cuda.graph then leaves its stream the current one, as with a GPU
        if unjoined:
            raise RuntimeError(UNJOINED)
        self._ready = True
        if self._pool is not None:
            _pools[self._pool].add(self)
            _used.add(self._pool)

    def replay(self) -> None:
        from mock_cuda.memory import below

        if not self._ready:
            raise RuntimeError("Called CUDAGraph::replay without a preceding successful capture.")
        here = current()
        if here.capture is not None:
            here.capture.fail(PERMITTED)
        here.orders(self._capture.read, self._capture.written)
        with below(), torch.no_grad():
            for repeat in self._capture.calls:
                repeat()

    def pool(self) -> tuple[int, int]:
        return (1, 0)

    def reset(self) -> None:
        self._capture, self._ready = None, False
