"""A bias for each channel of (N, C, H, W) maps: where channels lie innermost PyTorch adds it, and
sums its gradient, slowly.

    y[n, c, h, w] = x[n, c, h, w] + b[c]        db[c] = sum over n, h, w of dy

The kernels are the norms': their last pass without statistics, and their backward's sums.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels.norm import backward_sums
from fastgan.kernels.norm import forward as norm
from fastgan.ops.dispatch import Dispatcher, batched, pytorch_at_once
from fastgan.ops.norm.reference import dense

TYPES = (torch.float32, torch.float16, torch.bfloat16)
MOST = 2**31


def add_bias_reference(x: Tensor, bias: Tensor) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    return (x.to(wide) + bias.to(wide)[:, None, None]).to(x.dtype)


class _AddBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        ctx.dtype = bias.dtype
        return norm.apply(dense(x), None, bias.contiguous(), None, None, 0.0, "identity", 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (g,) = grads
        need = ctx.needs_input_grad
        if not need[1]:
            return g, None
        total = g.sum((0, 2, 3), dtype=torch.float32) if batched(g) else _ChannelSum.apply(g)
        return g if need[0] else None, total.to(ctx.dtype)


class _ChannelSum(torch.autograd.Function):
    """fp32 (C,) of g (N, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, g: Tensor) -> Tensor:
        ctx.shape, ctx.dtype = g.shape, g.dtype
        rows = dense(g)
        given = (None, None, None, None)
        return backward_sums.reduce(rows, rows, *given, 0.0, "identity", 0.0, False)[1][0, 0]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0].to(ctx.dtype)[:, None, None].expand(ctx.shape)


def _unsupported(engine: str, dtype: torch.dtype, innermost: bool, few: bool) -> str | None:
    if engine != "triton":
        return None
    if dtype not in TYPES:
        return f"no kernel takes {dtype}"
    if not innermost:
        return "the input must be channels_last without gaps"
    return None if few else "the input has 2^31 elements or more"


_choose = Dispatcher("add_bias", ("triton", "reference"), _unsupported)


def add_bias(x: Tensor, bias: Tensor, *, impl: str = "auto") -> Tensor:
    """x (N, C, H, W) + bias (C,) for each channel, in x's type, added in fp32 and rounded once.

    Differentiable to any order; the bias's gradient is summed in fp32. `impl="auto"` takes the
    kernels for channels_last fp32, fp16 and bf16 on a GPU, else PyTorch. Raises FastganError where
    the shapes don't fit.
    """
    if x.dim() != 4 or not x.is_floating_point() or bias.shape != x.shape[1:2]:
        raise FastganError(
            f"add_bias takes floating (N, C, H, W) maps and a bias (C,), not {tuple(x.shape)} "
            f"{x.dtype} and {tuple(bias.shape)}"
        )
    if pytorch_at_once(impl, x):
        return add_bias_reference(x, bias)
    innermost = x.is_contiguous(memory_format=torch.channels_last)
    if _choose(impl, x, innermost, x.numel() < MOST) == "reference":
        return add_bias_reference(x, bias)
    return _AddBias.apply(x, bias)
