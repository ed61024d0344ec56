"""Graph backends: the CUDA one, and a recording on the CPU that behaves like it, so that capture is
testable without a GPU."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import ScriptObject, Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastgan.distributed.context import DistributedContext
from fastgan.errors import FastganError


class Graph(Protocol):
    """A captured function: `replay` repeats its work on the same memory."""

    def warm_up(self, function: Callable[[], Any], times: int) -> None: ...

    def capture(self, function: Callable[[], Any]) -> Any: ...

    def replay(self) -> None: ...


class CudaGraph:
    """torch.cuda.CUDAGraph. Warm-up happens on a side stream; capture does not disturb other
    threads that use the device (thread_local).
    """

    def __init__(self, pool: Any = None) -> None:
        self.graph = torch.cuda.CUDAGraph()
        self.pool = pool
        self.captured = False

    def warm_up(self, function: Callable[[], Any], times: int) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(times):
                function()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()

    def capture(self, function: Callable[[], Any]) -> Any:
        gc.collect()
        torch.cuda.synchronize()
        try:
            with torch.cuda.graph(self.graph, pool=self.pool, capture_error_mode="thread_local"):
                output = function()
        except BaseException:
            end_capture(torch.device("cuda", torch.cuda.current_device()))
            raise
        self.captured = True
        return output

    def replay(self) -> None:
        self.graph.replay()


def end_capture(device: torch.device) -> None:
    """After a capture that failed: the device's generator, which torch leaves believing that it is
    being captured and which would refuse every draw from then on, goes on with a state of its own
    at the same seed.
    """
    generator = torch.cuda.default_generators[device.index or 0]
    fresh = torch.Generator(device)
    fresh.manual_seed(generator.initial_seed())
    generator.graphsafe_set_state(fresh.graphsafe_get_state())


class RecordedGraph:
    """Records every operator with its arguments and writes the results of a replay into the same
    tensors.

    What a CUDA graph bakes in is baked in here too: addresses, Python scalars, control flow. Random
    operators draw anew, as CUDA's do.
    """

    def __init__(self, pool: Any = None) -> None:
        self.calls: list[tuple[Any, tuple, dict, list[Tensor]]] = []

    def warm_up(self, function: Callable[[], Any], times: int) -> None:
        for _ in range(times):
            function()

    def capture(self, function: Callable[[], Any]) -> Any:
        with _Recorder(self.calls):
            return function()

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, outputs in self.calls:
                result = func(*args, **kwargs)
                _wait(result)
                fresh = _tensors(result)
                for old, new in zip(outputs, fresh, strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)


def graph_backend(
    mode: str, device: torch.device, ranks: DistributedContext
) -> Callable[[], Graph] | None:
    """What makes a run's graphs: None for eager steps. "auto" is on where there is a GPU. Raises
    FastganError."""
    if mode not in ("auto", "on", "off"):
        raise FastganError(f"graph must be auto, on or off, not {mode!r}")
    if mode == "on" and device.type != "cuda":
        raise FastganError("graph='on' needs a GPU: use auto or off here")
    if mode == "off" or device.type != "cuda" or (mode == "auto" and ranks.world > 1):
        return None
    return CudaGraphs()


class CudaGraphs:
    """Makes graphs that share a memory pool for as long as one of them lives: a pool whose graphs
    are all gone must not be captured into again."""

    def __init__(self) -> None:
        self._made: weakref.WeakSet[CudaGraph] = weakref.WeakSet()
        self._pool: Any = None

    def __call__(self) -> CudaGraph:
        if not any(graph.captured for graph in self._made):
            self._pool = torch.cuda.graph_pool_handle()
        graph = CudaGraph(self._pool)
        self._made.add(graph)
        return graph


class _Recorder(TorchDispatchMode):
    def __init__(self, calls: list) -> None:
        super().__init__()
        self.calls = calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # Detached aliases: the recording must not hold autograd graphs, nor be changed by later
        # set_ or grad bookkeeping.
        self.calls.append(
            (func, _aliases(args), _aliases(kwargs or {}), [t.detach() for t in _tensors(result)])
        )
        return result


def _aliases(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, (list, tuple)):
        return type(value)(_aliases(v) for v in value)
    if isinstance(value, dict):
        return {k: _aliases(v) for k, v in value.items()}
    return value


def _wait(value: Any) -> None:
    """For collectives that were begun: what waited for them was no operator."""
    if isinstance(value, (list, tuple)):
        for v in value:
            _wait(v)
    elif isinstance(value, ScriptObject) and hasattr(value, "wait"):
        value.wait()


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in _tensors(v)]
    return []
