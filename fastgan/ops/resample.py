"""Nearest upsampling by 2 and 2x2 average pooling of (N, C, H, W) maps, and torch.nn's modules on
them.

    upsample2   y[2i + a, 2j + b] = x[i, j]                     a, b in {0, 1}
    avg_pool2   y[i, j] = sum_ab x[2i + a, 2j + b] / 4

Both are linear, and each is the adjoint of the other up to a factor of 4, so derivatives of every
order are the same two kernels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.errors import FastganError
from fastgan.kernels import resample as kernel
from fastgan.kernels.common import INTERPRET
from fastgan.kernels.conv.spec import pair
from fastgan.ops.dispatch import Dispatcher, batched, eager, plain, pytorch_at_once

TYPES = (torch.float32, torch.float16, torch.bfloat16)
MOST_PIXELS = 2**30


def _check(x: Tensor, op: str) -> None:
    if x.dim() != 4 or not x.is_floating_point():
        raise FastganError(f"{op} takes floating (N, C, H, W) maps, not {tuple(x.shape)} {x.dtype}")


def upsample2_reference(x: Tensor) -> Tensor:
    # autocast widens interpolation to fp32: of copies, going back is exact
    return F.interpolate(x, scale_factor=2.0, mode="nearest").to(x.dtype)


def avg_pool2_reference(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2)


@torch.library.custom_op("fastgan::resample", mutates_args=())
def _resample(x: Tensor, up: bool, factor: float) -> Tensor:
    return kernel.resample(x, up, factor)


@_resample.register_fake
def _(x: Tensor, up: bool, factor: float) -> Tensor:
    n, c, h, w = x.shape
    shape = (n, c, 2 * h, 2 * w) if up else (n, c, h // 2, w // 2)
    return x.new_empty(shape).contiguous(memory_format=torch.channels_last)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.up, ctx.factor = inputs


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
    return _run(g, not ctx.up, ctx.factor), None, None


_resample.register_autograd(_backward, setup_context=_setup_context)


class _Resample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, up: bool, factor: float) -> Tensor:
        ctx.up, ctx.factor = up, factor
        return kernel.resample(x, up, factor)

    backward = staticmethod(_backward)


_eager_resample = eager(_Resample)


def _run(x: Tensor, up: bool, factor: float) -> Tensor:
    if batched(x):
        return upsample2_reference(x) * factor if up else avg_pool2_reference(x) * (4 * factor)
    return _eager_resample(x, up, factor) if plain(x) else _resample(x, up, factor)


def _unsupported(engine: str, dtype: torch.dtype, dense: bool, even: bool, few: bool) -> str | None:
    if engine != "triton":
        return None
    if dtype not in TYPES:
        return f"no kernel takes {dtype}"
    if not dense:
        return "the input must be channels_last without gaps"
    if not even:
        return "the input's sides must be even"
    return None if few else "the map has over 2^30 pixels"


_choose_up = Dispatcher("upsample2", ("triton", "reference"), _unsupported)
_choose_pool = Dispatcher("avg_pool2", ("triton", "reference"), _unsupported)


def _dense(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def upsample2(x: Tensor, *, impl: str = "auto") -> Tensor:
    """Nearest upsampling by 2: (N, C, H, W) -> (N, C, 2H, 2W) in x's type, also under autocast,
    which would make PyTorch's own fp32.

    Differentiable to any order; the backward adds in fp32 and rounds once. `impl="auto"` takes the
    kernel for dense channels_last fp32, fp16 and bf16 on a GPU, else PyTorch. Raises FastganError
    for another rank or an integer type.
    """
    _check(x, "upsample2")
    if pytorch_at_once(impl, x):
        return upsample2_reference(x)
    few = x.shape[0] * x.shape[2] * x.shape[3] < MOST_PIXELS
    if _choose_up(impl, x, _dense(x), True, few) == "reference":
        return upsample2_reference(x)
    return _run(x, True, 1.0)


def avg_pool2(x: Tensor, *, impl: str = "auto") -> Tensor:
    """Mean of each 2x2: (N, C, H, W) -> (N, C, H/2, W/2) in x's type; added in fp32, rounded once.

    An odd last row or column is left out, as by F.avg_pool2d; the kernel takes even sides alone.
    Otherwise as :func:`upsample2`.
    """
    _check(x, "avg_pool2")
    if pytorch_at_once(impl, x):
        return avg_pool2_reference(x)
    n, _, h, w = x.shape
    even, few = h % 2 == w % 2 == 0, n * h * w < 4 * MOST_PIXELS
    if _choose_pool(impl, x, _dense(x), even, few) == "reference":
        return avg_pool2_reference(x)
    return _run(x, False, 0.25)


def doubles(m: nn.Module) -> bool:
    """Whether a module is nearest upsampling by 2."""
    known = type(m) in (nn.Upsample, nn.UpsamplingNearest2d, Upsample) and m.mode == "nearest"
    return known and m.size is None and m.scale_factor in (2, 2.0, (2, 2), (2.0, 2.0))


def halves(m: Any) -> bool:
    """Whether a module is plain 2x2 average pooling."""
    if type(m) not in (nn.AvgPool2d, AvgPool2d) or m.ceil_mode or m.divisor_override is not None:
        return False
    return pair(m.kernel_size) == (2, 2) and pair(m.stride) == (2, 2) and pair(m.padding) == (0, 0)


def _kernel_takes(x: Tensor) -> bool:
    return (x.is_cuda or INTERPRET) and x.dim() == 4 and x.is_floating_point() and _dense(x)


class Upsample(nn.Upsample):
    """torch.nn.Upsample on :func:`upsample2`: nearest, by 2, of channels_last maps on a GPU; else
    PyTorch's own."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 2H, 2W)."""
        if _kernel_takes(input) and doubles(self):
            return upsample2(input)
        return super().forward(input)


class AvgPool2d(nn.AvgPool2d):
    """torch.nn.AvgPool2d on :func:`avg_pool2`: 2x2 of channels_last maps on a GPU; else PyTorch's
    own."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H/2, W/2)."""
        if _kernel_takes(input) and halves(self):
            return avg_pool2(input)
        return super().forward(input)
