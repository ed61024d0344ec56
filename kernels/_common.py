"""What every kernel shares: the Triton guard and version branches, data types, and the activation table with its one jitted pair.

Kernel files write ``from ._common import tl, triton`` and decorate with ``@triton.jit`` unconditionally: where Triton is
missing both names are stand-ins, the module still imports, and a launch raises :class:`FastganError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from fastgan.errors import FastganError

try:
    import triton
    import triton.language as tl

    has_triton = True
except Exception:  # none on Windows, macOS and CPU-only wheels, or a broken one: the reference path serves them
    has_triton = False

    class _Absent:
        """Takes any attribute, call, decoration or annotation; refuses a launch."""

        def __getattr__(self, name: str) -> Any:
            return self

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self

        def __getitem__(self, grid: Any) -> Any:
            raise FastganError('Triton is not installed: use impl="auto" or impl="reference", or pip install triton')

    triton: Any = _Absent()  # type: ignore[no-redef]
    tl: Any = _Absent()  # type: ignore[no-redef]

__all__ = [
    "ACTIVATIONS",
    "INTERPRET",
    "TRITON_VERSION",
    "Activation",
    "act",
    "act_grad",
    "act_grad2",
    "activation",
    "cdiv",
    "has_triton",
    "next_power_of_2",
    "tl",
    "tl_dtype",
    "triton",
    "triton_minor",
]


def _version() -> tuple[int, int]:
    if not has_triton:
        return (0, 0)
    major, minor = triton.__version__.split(".")[:2]
    return int(major), int(minor)


TRITON_VERSION = _version()
"""(major, minor) of the installed Triton; (0, 0) without. Verdicts on spills and the best configurations change with the minor
version.
"""

INTERPRET = has_triton and bool(triton.knobs.runtime.interpret)
"""True when this process runs kernels in Triton's interpreter (TRITON_INTERPRET=1 was set before the first import): CPU
tensors are then welcome.
"""


def triton_minor() -> str:
    """The key under which tuning tables and compiled reports are kept: ``"3.7"``, or ``"none"`` without Triton."""
    return f"{TRITON_VERSION[0]}.{TRITON_VERSION[1]}" if has_triton else "none"


def cdiv(a: int, b: int) -> int:
    """ceil(a / b) for positive integers."""
    return -(-a // b)


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is at least n (1 for n <= 1): Triton block sizes must be powers of two."""
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

TORCH_DTYPES: dict[str, torch.dtype] = {name: dtype for dtype, name in DTYPE_NAMES.items()} | {"tf32": torch.float32}


def tl_dtype(dtype: torch.dtype) -> Any:
    """The ``triton.language`` dtype of a torch dtype, for constexpr arguments that name an output type."""
    names = {torch.bool: "int1"}
    return getattr(tl, names.get(dtype) or str(dtype).removeprefix("torch."))


# The activation table is data; the two jitted functions below spell the same rows in Triton.


@dataclass(frozen=True)
class Activation:
    """One row: the PyTorch reference, and whether the kernel's own mask (p > 0) decides the derivative (piecewise linear) or
    not.
    """

    name: str
    fn: Callable[[torch.Tensor, float], torch.Tensor]
    masked: bool
    zero_preserving: bool = True


ACTIVATIONS: dict[str, Activation] = {
    a.name: a
    for a in (
        Activation("identity", lambda x, slope: x, masked=False),
        Activation("relu", lambda x, slope: F.relu(x), masked=True),
        Activation("leaky_relu", lambda x, slope: F.leaky_relu(x, slope), masked=True),
        Activation("tanh", lambda x, slope: torch.tanh(x), masked=False),
        Activation("sigmoid", lambda x, slope: torch.sigmoid(x), masked=False, zero_preserving=False),
        Activation("silu", lambda x, slope: F.silu(x), masked=False),
    )
}


def activation(x: torch.Tensor, name: str = "identity", slope: float = 0.01) -> torch.Tensor:
    """The reference: applies the activation ``name`` to a float tensor of any shape; ``slope`` is leaky_relu's. Differentiable
    to any order.
    """
    if name not in ACTIVATIONS:
        raise FastganError(f"unknown activation {name!r}: choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name].fn(x, slope)


@triton.jit
def _tanh(x):
    # 1 - 2/(e^2|x| + 1) cancels near zero, so a polynomial in x^2 (weighted least squares on [0, 0.6], 3e-9) takes over there
    z = x * x
    small = x + x * (z * (-0.3333329751 + z * (0.133319153 + z * (-0.053783293 + z * (0.02079461771 + z * -0.005893945303)))))
    large = 1.0 - 2.0 / (tl.exp(2.0 * tl.abs(x)) + 1.0)
    return tl.where(tl.abs(x) < 0.6, small, tl.where(x < 0, -large, large))


@triton.jit
def act(p, ACT: tl.constexpr, SLOPE: tl.constexpr):
    """activation(p) in fp32; ``ACT`` is a name of :data:`ACTIVATIONS`. NaN stays NaN, as in PyTorch."""
    p = p.to(tl.float32)
    if ACT == "relu":
        p = tl.where(p <= 0, 0.0, p)
    elif ACT == "leaky_relu":
        p = tl.where(p > 0, p, p * SLOPE)
    elif ACT == "tanh":
        p = _tanh(p)
    elif ACT == "sigmoid":
        p = tl.sigmoid(p)
    elif ACT == "silu":
        p = p * tl.sigmoid(p)
    else:
        tl.static_assert(ACT == "identity", "unknown activation")
    return p


@triton.jit
def act_grad(p, ACT: tl.constexpr, SLOPE: tl.constexpr):
    """d activation / dp at the pre-activation p, in fp32: the same comparison as :func:`act`, so that forward and backward
    masks agree.
    """
    p = p.to(tl.float32)
    if ACT == "relu":
        d = tl.where(p <= 0, 0.0, 1.0)
    elif ACT == "leaky_relu":
        d = tl.where(p > 0, 1.0, SLOPE)
    elif ACT == "tanh":
        y = _tanh(p)
        d = 1.0 - y * y
    elif ACT == "sigmoid":
        y = tl.sigmoid(p)
        d = y * (1.0 - y)
    elif ACT == "silu":
        y = tl.sigmoid(p)
        d = y * (1.0 + p * (1.0 - y))
    else:
        tl.static_assert(ACT == "identity", "unknown activation")
        d = tl.full(p.shape, 1.0, tl.float32)
    return d


@triton.jit
def act_grad2(p, ACT: tl.constexpr):
    """d^2 activation / dp^2 at the pre-activation p, in fp32 (zero for the piecewise linear ones): what R1 and gradient
    penalties need.
    """
    p = p.to(tl.float32)
    if ACT == "tanh":
        y = _tanh(p)
        d = -2.0 * y * (1.0 - y * y)
    elif ACT == "sigmoid":
        y = tl.sigmoid(p)
        d = y * (1.0 - y) * (1.0 - 2.0 * y)
    elif ACT == "silu":
        y = tl.sigmoid(p)
        d = y * (1.0 - y) * (2.0 + p * (1.0 - 2.0 * y))
    else:
        d = tl.zeros(p.shape, tl.float32)
    return d


def log2_distance(a: int, b: int) -> float:
    """How many doublings lie between two positive sizes: the distance of the nearest-bucket lookup."""
    return abs(math.log2(max(a, 1) / max(b, 1)))
