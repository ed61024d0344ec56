"""Nearest upsampling by 2 and 2x2 average pooling, in the type that comes in, differentiable to any
order: the transposes of one another."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.kernels import resample as kernels
from fastgan.ops import dispatch
from fastgan.ops.dispatch import Dispatcher
from fastgan.ops.norm.reference import dense

__all__ = ["average_pool", "upsample"]


def _unsupported(engine: str, dtype: torch.dtype, last: bool, large: bool) -> str | None:
    if engine != "triton":
        return None
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"{dtype} is not fp32, fp16 or bf16"
    if large:
        return "more than 2^31 elements"
    return None if last else "the input is not channels_last: the kernels would copy it"


_choose = Dispatcher("resample", ("triton", "reference"), _unsupported)


def _up(x: Tensor, factor: float, kernel: bool) -> Tensor:
    if kernel:
        return kernels.double(dense(x), factor)
    y = F.interpolate(x, scale_factor=2.0)
    return y if factor == 1.0 else y * factor


def _down(x: Tensor, factor: float, kernel: bool) -> Tensor:
    return kernels.halve(dense(x), factor) if kernel else F.avg_pool2d(x, 2) * (4 * factor)


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return _up(x, factor, True)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        known = dispatch.batched(g)
        return _down(g, ctx.factor, False) if known else _Down.apply(g, ctx.factor), None


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return _down(x, factor, True)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        known = dispatch.batched(g)
        return _up(g, ctx.factor, False) if known else _Up.apply(g, ctx.factor), None


def _kernel(x: Tensor, impl: str, elements: int) -> bool:
    if dispatch.pytorch_at_once(impl, x):
        return False
    last = x.stride()[1] == 1 or x.shape[1] == 1
    return _choose(impl, x, last or impl == "triton", elements >= 1 << 31) == "triton"


def upsample(x: Tensor, *, impl: str = "auto") -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W) in x's type: F.interpolate(x, scale_factor=2)."""
    return _Up.apply(x, 1.0) if _kernel(x, impl, 4 * x.numel()) else _up(x, 1.0, False)


def average_pool(x: Tensor, *, impl: str = "auto") -> Tensor:
    """(N, C, H, W) with even sides -> (N, C, H/2, W/2) in x's type: F.avg_pool2d(x, 2)."""
    return _Down.apply(x, 0.25) if _kernel(x, impl, x.numel()) else F.avg_pool2d(x, 2)
