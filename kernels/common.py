"""What every kernel shares: the Triton guard and version branches, and data types.

Kernel files write ``from fastgan.kernels.common import tl, triton`` and decorate with
``@triton.jit`` unconditionally: where Triton is missing both names are stand-ins, the module still
imports, and a launch raises
:class:`FastganError`.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from fastgan.errors import FastganError
from fastgan.kernels import interpreter

try:
    import triton
    import triton.language as tl

    has_triton = True
except (
    Exception
):  # none on Windows, macOS and CPU-only wheels, or a broken one: the reference path serves them
    has_triton = False

    class _Absent:
        """Takes any attribute, call, decoration or annotation; refuses a launch."""

        def __getattr__(self, name: str) -> Any:
            return self

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self

        def __getitem__(self, grid: Any) -> Any:
            raise FastganError(
                'Triton is not installed: use impl="auto" or impl="reference", or pip install '
                "triton"
            )

    triton: Any = _Absent()  # type: ignore[no-redef]
    tl: Any = _Absent()  # type: ignore[no-redef]

__all__ = [
    "INTERPRET",
    "TRITON_VERSION",
    "cdiv",
    "has_triton",
    "next_power_of_2",
    "tl",
    "triton",
    "triton_minor",
]


def _version() -> tuple[int, int]:
    if not has_triton:
        return (0, 0)
    major, minor = triton.__version__.split(".")[:2]
    return int(major), int(minor)


TRITON_VERSION = _version()
"""(major, minor) of the installed Triton; (0, 0) without. Verdicts on spills and the best
configurations change with the minor version.
"""

INTERPRET = has_triton and bool(triton.knobs.runtime.interpret)
"""True when this process runs kernels in Triton's interpreter (TRITON_INTERPRET=1 was set before
the first import): CPU tensors are then welcome.
"""
if INTERPRET:
    interpreter.lighten()


def triton_minor() -> str:
    """The key under which tuning tables and compiled reports are kept: ``"3.7"``, or ``"none"``
    without Triton."""
    return f"{TRITON_VERSION[0]}.{TRITON_VERSION[1]}" if has_triton else "none"


def cdiv(a: int, b: int) -> int:
    """ceil(a / b) for positive integers."""
    return -(-a // b)


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is at least n (1 for n <= 1): Triton block sizes must be
    powers of two."""
    return 1 << max(n - 1, 0).bit_length()


DTYPE_NAMES: dict[torch.dtype, str] = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.uint8: "u8",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.bool: "i1",
}
"""Triton's spelling of a dtype, as signatures, tuning tables and reports write it."""

TORCH_DTYPES: dict[str, torch.dtype] = {name: dtype for dtype, name in DTYPE_NAMES.items()} | {
    "tf32": torch.float32
}


def log2_distance(a: int, b: int) -> float:
    """How many doublings lie between two positive sizes: the distance of the nearest-bucket
    lookup."""
    return abs(math.log2(max(a, 1) / max(b, 1)))
