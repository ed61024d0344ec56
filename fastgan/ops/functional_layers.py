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

from fastgan.ops import dispatch
from fastgan.ops.bias import add_bias
from fastgan.ops.resample import avg_pool2, upsample2

TWO = (2, 2.0, (2, 2), (2.0, 2.0), [2, 2], [2.0, 2.0])


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
    return add_bias(y, bias)


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
