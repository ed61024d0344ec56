"""Triton's kernels, interpreted, on tensors that say `cuda`: one launch each, on a stream, repeated
by a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mock_cuda import streams
from mock_cuda.memory import below, flat, place, record

LAUNCHED: list[str] = []
"""The names of the kernels that ran, in order."""

LET_BEGIN = ("moments_kernel", "merge_moments_kernel", "reduce_kernel", "merge_sums_kernel")
"""Kernels that let the next one begin early."""


def _tensors(value: Any) -> list[Tensor]:
    """Tensors among a launch's arguments, descriptors' bases included."""
    if hasattr(value, "base") and hasattr(value, "block_shape"):
        return [value.base]
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in _tensors(v)]
    return list(flat(value))


def _convert(general: Any) -> Any:
    """Between float32 and bfloat16 the interpreter cuts bits off, where a GPU rounds to nearest
    even."""
    import triton.language as tl

    def convert(data: Any, from_type: Any, to_type: Any, rounding: Any) -> Any:
        if from_type == tl.bfloat16 and to_type == tl.float32:
            return data.astype(np.uint32) << 16
        if from_type != tl.float32 or to_type != tl.bfloat16:
            return general(data, from_type, to_type, rounding)
        bits = np.ascontiguousarray(data).view(np.uint32)
        rounded = ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)
        return np.where(np.isnan(data), np.uint16(0x7FC0), rounded)

    return convert


def _dot(general: Any) -> Any:
    """The interpreter multiplies bfloat16 as the integers that hold it."""
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    def dot(builder: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        if a.dtype.scalar == tl.bfloat16:
            a, b = (
                TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32)
                for x in (a, b)
            )
        return general(builder, a, b, d, *rest)

    return dot


def _sum(reduction: Any, value: Any) -> Any:
    """As a tree, which is how a GPU adds; see fastgan/verify/interpreter.py."""
    from fastgan.verify.interpreter import tree_sum

    data = value.handle.data
    axis, flat_data = (0, data.reshape(-1)) if reduction.axis is None else (reduction.axis, data)
    out = tree_sum(flat_data, axis)
    if reduction.keep_dims:
        out = out.reshape((1,) * data.ndim) if reduction.axis is None else np.expand_dims(out, axis)
    return reduction.to_tensor(out, value.dtype)


def install() -> None:
    import triton

    # asks the switch below when it is imported, which torch does late
    import triton.experimental.gluon
    from triton.runtime import interpreter, jit

    from fastgan.kernels.interpreter import lighten

    lighten()
    run = interpreter.GridExecutor.__call__
    decorate = jit.jit

    def launch(executor: Any, *args: Any, **kwargs: Any) -> None:
        name = executor.fn.__name__
        # one kernel after the other is one of the orders it allows, behind one that lets it begin
        if kwargs.pop("launch_pdl", False) and not (LAUNCHED and LAUNCHED[-1] in LET_BEGIN):
            raise RuntimeError(f"{name} may begin before {LAUNCHED[-1:]} has written its inputs")
        tensors = _tensors(list(args) + list(kwargs.values()))
        if not tensors:
            return run(executor, *args, **kwargs)
        for i, tensor in enumerate(tensors):
            if place(tensor) == "host":
                raise ValueError(
                    f"Pointer argument (at {i}) cannot be accessed from Triton (cpu tensor?)"
                )
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

    interpreter._convert_float = _convert(interpreter._convert_float)
    interpreter.InterpreterBuilder.create_dot = _dot(interpreter.InterpreterBuilder.create_dot)
    interpreter.ReduceOps.sum = _sum
    for name in ("gdc_wait", "gdc_launch_dependents"):
        setattr(triton.language.extra.cuda, name, lambda: None)
    interpreter.GridExecutor.__call__ = launch
    triton.jit = interpreted
    triton.knobs.runtime.interpret = False  # the product sees a machine that compiles
    assert torch.cuda.is_available()
