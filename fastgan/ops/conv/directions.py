"""A convolution whose forward, input gradient and weight gradient each run by the engine that a
tuning table measured fastest, differentiable to any order.

The tables name them `conv2d.forward`, `conv2d.dgrad` and `conv2d.wgrad` (and those of
`conv_transpose2d`), by the shape of the whole: `fastgan tune` writes them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from fastgan.kernels import tuning
from fastgan.kernels.common import DTYPE_NAMES
from fastgan.kernels.conv.spec import ConvSpec
from fastgan.ops import dispatch, low_weights
from fastgan.ops.conv.autograd import RegisteredConvOps

DIRECTIONS = ("forward", "dgrad", "wgrad")
Shape = tuple[tuple[str, int], ...]

_wanted = True


@contextlib.contextmanager
def whole() -> Iterator[None]:
    """Within the block one engine runs all three directions of a convolution, to compare."""
    global _wanted
    before, _wanted = _wanted, False
    try:
        yield
    finally:
        _wanted = before


def engines(op: str, x: Tensor, shape: Shape) -> str | None:
    """The engines of the three directions, such as "cudnn triton cudnn", for a convolution that
    cuDNN would run whole; None where no table knows better."""
    if not _wanted or dispatch.missing("triton", x.device):
        return None
    away = x.is_cuda and x.device.index != torch.cuda.current_device()
    return None if away else _engines(op, DTYPE_NAMES.get(x.dtype, ""), shape, x.device)


@tuning.kept
def _engines(op: str, kind: str, shape: Shape, device: torch.device) -> str | None:
    found = [tuning.engine(f"{op}.{name}", kind, dict(shape), device) for name in DIRECTIONS]
    return " ".join(e or "cudnn" for e in found) if "triton" in found else None


def convolution(
    x: Tensor, w: Tensor, bias: Tensor | None, spec: ConvSpec, precision: str, chosen: str
) -> Tensor:
    """conv2d or conv_transpose2d of x (N, Ci, H, W) in x's type, channels innermost. chosen: as
    :func:`engines` returns it; precision: how fp32 products are formed, "ieee" or "tf32"."""
    y = RegisteredConvOps(precision, chosen).conv(x, low_weights.cast(w, x.dtype), spec)
    return y if bias is None else y + bias.to(y.dtype)[:, None, None]
