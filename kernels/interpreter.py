"""Triton's interpreter without work whose answer nobody reads."""

from __future__ import annotations

import dataclasses


def lighten() -> None:
    """Takes the overflow check of integers out of the interpreter, where its answer is dropped.

    Triton's interpreter computes each sum, difference and product of integers again in int64 and
    compares it with the type's range (``TritonSemantic.binary_op_sanitize_overflow_impl``). What
    it finds goes to ``device_assert``, which does nothing unless ``options.debug`` is set. That
    is half of an interpreted kernel's time. With ``debug`` set the check stays.
    """
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    options = builder.options
    if getattr(options, "sanitize_overflow", False) and not options.debug:
        builder.options = dataclasses.replace(options, sanitize_overflow=False)
