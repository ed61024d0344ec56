"""Twice and half the side of images that lie channels innermost: nearest upsampling and 2x2 sums,
times a factor; one reading and one writing. Each is the other's transpose."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.kernels.common import cdiv, tl, triton

DEFAULT = {"BLOCK": 1024, "num_warps": 4}


@triton.jit(do_not_specialize=["TOTAL", "W"])
def double_kernel(x_ptr, y_ptr, TOTAL, W, C, factor, BLOCK: tl.constexpr):
    """y[row, ox, c] = factor x[row // 2, ox // 2, c]; rows are those of all images, W is x's
    width. All offsets fit 32 bits: callers see to it."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    keep = at < TOTAL
    c, pixel = at % C, at // C
    row, ox = pixel // (2 * W), pixel % (2 * W)
    x = tl.load(x_ptr + ((row // 2) * W + ox // 2) * C + c, mask=keep, other=0.0)
    tl.store(y_ptr + at, (x.to(tl.float32) * factor).to(y_ptr.dtype.element_ty), mask=keep)


@triton.jit(do_not_specialize=["TOTAL", "W"])
def halve_kernel(x_ptr, y_ptr, TOTAL, W, C, factor, BLOCK: tl.constexpr):
    """y[row, ox, c] = factor (the sum of its four pixels of x); W is y's width."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    keep = at < TOTAL
    c, pixel = at % C, at // C
    row, ox = pixel // W, pixel % W
    first = (row * 4 * W + ox * 2) * C + c
    sum = tl.load(x_ptr + first, mask=keep, other=0.0).to(tl.float32)
    sum += tl.load(x_ptr + first + C, mask=keep, other=0.0).to(tl.float32)
    sum += tl.load(x_ptr + first + 2 * W * C, mask=keep, other=0.0).to(tl.float32)
    sum += tl.load(x_ptr + first + 2 * W * C + C, mask=keep, other=0.0).to(tl.float32)
    tl.store(y_ptr + at, (sum * factor).to(y_ptr.dtype.element_ty), mask=keep)


def _new(x: Tensor, height: int, width: int) -> Tensor:
    shape = (x.shape[0], x.shape[1], height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def double(x: Tensor, factor: float = 1.0) -> Tensor:
    """(N, C, H, W), NHWC in memory -> (N, C, 2H, 2W), each pixel four times, times factor."""
    y = _new(x, 2 * x.shape[2], 2 * x.shape[3])
    total = y.numel()
    double_kernel[(cdiv(total, DEFAULT["BLOCK"]),)](
        x, y, total, x.shape[3], x.shape[1], factor, **DEFAULT
    )
    return y


def halve(x: Tensor, factor: float = 1.0) -> Tensor:
    """(N, C, 2H, 2W), NHWC in memory -> (N, C, H, W): fp32 sums of 2x2 pixels, times factor."""
    y = _new(x, x.shape[2] // 2, x.shape[3] // 2)
    total = y.numel()
    halve_kernel[(cdiv(total, DEFAULT["BLOCK"]),)](
        x, y, total, y.shape[3], x.shape[1], factor, **DEFAULT
    )
    return y
