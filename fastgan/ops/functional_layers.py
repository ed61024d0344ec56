"""What a step computes on a GPU by other kernels than PyTorch's, which are slow for images that lie
channels innermost: the bias of a convolution and its gradient, and nearest upsampling and 2x2
average pooling where a forward calls them as functions.

Inside :class:`FunctionalLayers` the functions of torch.nn are taken by their arguments; networks
stay as they are. Upsampling stays in the type that comes in, where autocast would make it fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fastgan.kernels.norm import backward_sums
from fastgan.kernels.norm import forward as norm
from fastgan.ops import dispatch
from fastgan.ops.norm.reference import dense
from fastgan.ops.resample import avg_pool2, upsample2

TWO = (2, 2.0, (2, 2), (2.0, 2.0), [2, 2], [2.0, 2.0])


class _Bias(torch.autograd.Function):
    """(y (N, C, H, W) in 16 bits or fp32, b (C,)) -> y + b in y's type, added in fp32; the gradient
    of b, fp32 sums rounded to b's type, is one reading of y's."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, b: Tensor) -> Tensor:
        ctx.kind = b.dtype
        return norm.apply(dense(y), None, b.contiguous(), None, None, 0.0, "identity", 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (g,) = grads
        need = ctx.needs_input_grad
        if not need[1]:
            return g, None
        total = g.sum((0, 2, 3)) if dispatch.batched(g) else _ChannelSum.apply(g)
        return g if need[0] else None, total.to(ctx.kind)


class _ChannelSum(torch.autograd.Function):
    """fp32 (C,) of g (N, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, g: Tensor) -> Tensor:
        ctx.shape, ctx.kind = g.shape, g.dtype
        rows = dense(g)
        given = (None, None, None, None)
        return backward_sums.reduce(rows, rows, *given, 0.0, "identity", 0.0, False)[1][0, 0]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0].to(ctx.kind)[:, None, None].expand(ctx.shape)


def channels_innermost(x: Any) -> bool:
    """Whether the kernels take it: images on a GPU, channels_last, of a type they know."""
    return (
        isinstance(x, Tensor)
        and x.is_cuda
        and x.dim() == 4
        and x.stride()[1] == 1
        and x.shape[1] > 1
        and x.numel() < 1 << 31
        and x.dtype in (torch.float32, torch.float16, torch.bfloat16)
    )


class FunctionalLayers(TorchFunctionMode):
    """Enter it last: what it calls is seen by the modes entered before."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        taken = TAKEN.get(func)
        if taken is not None and not dispatch.transformed():
            result = taken(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return func(*args, **kwargs)


def _conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **named: Any
) -> Any:
    if bias is None or not channels_innermost(input):
        return NotImplemented
    y = torch.conv2d(input, weight, None, *rest, **named)
    return _Bias.apply(y, bias)


def _avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    plain = kernel_size in TWO and (stride in TWO or not stride) and padding in (0, (0, 0), [0, 0])
    if not plain or divisor_override or not channels_innermost(input):
        return NotImplemented
    return NotImplemented if input.shape[2] % 2 or input.shape[3] % 2 else avg_pool2(input)


def _interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    *rest: Any,
    **named: Any,
) -> Any:
    wanted = size is None and scale_factor in TWO and mode == "nearest"
    if not wanted or rest or any(named.values()) or not channels_innermost(input):
        return NotImplemented
    return upsample2(input)


TAKEN: dict[Any, Callable[..., Any]] = {
    torch.conv2d: _conv2d,
    torch._C._nn.avg_pool2d: _avg_pool2d,
    F.interpolate: _interpolate,
}
