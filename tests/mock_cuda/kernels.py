"""Triton's kernels, interpreted, on tensors that say `cuda`: one launch each, on a stream, repeated by a graph."""

from __future__ import annotations

from typing import Any

import torch
from mock_cuda import streams
from mock_cuda.memory import below, flat, place, record
from torch import Tensor

LAUNCHED: list[str] = []
"""The names of the kernels that ran, in order."""


def _tensors(value: Any) -> list[Tensor]:
    """Tensors among a launch's arguments, descriptors' bases included."""
    if hasattr(value, "base") and hasattr(value, "block_shape"):
        return [value.base]
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in _tensors(v)]
    return list(flat(value))


def install() -> None:
    import triton
    import triton.experimental.gluon  # asks the switch below when it is imported, which torch does late
    from triton.runtime import interpreter, jit

    run = interpreter.GridExecutor.__call__
    decorate = jit.jit

    def launch(executor: Any, *args: Any, **kwargs: Any) -> None:
        name = executor.fn.__name__
        tensors = _tensors(list(args) + list(kwargs.values()))
        if not tensors or getattr(streams._here, "inside", False):
            return run(executor, *args, **kwargs)
        for i, tensor in enumerate(tensors):
            if place(tensor) == "host":
                raise ValueError(f"Pointer argument (at {i}) cannot be accessed from Triton (cpu tensor?)")
        records = [r for t in tensors if (r := record(t)) is not None]
        stream = streams.current()
        stream.orders(records, [])  # which of them it writes, a launch does not say
        LAUNCHED.append(name)
        if stream.capture is not None:
            stream.capture.keep(tensors)

        def repeat() -> None:
            with below():
                run(executor, *args, **kwargs)

        repeat()
        if stream.capture is not None:
            stream.capture.calls.append(repeat)
        return None

    def interpreted(fn: Any = None, **options: Any) -> Any:
        if fn is None:
            return lambda given: interpreted(given, **options)
        triton.knobs.runtime.interpret = True
        try:
            return decorate(fn, **options)
        finally:
            triton.knobs.runtime.interpret = False

    interpreter.GridExecutor.__call__ = launch
    triton.jit = interpreted
    triton.knobs.runtime.interpret = False  # the product sees a machine that compiles
    assert torch.cuda.is_available()
