"""Resampling folded into the convolution beside it: 2.25 times fewer multiplications, and no
resampled tensor in memory.

    nearest upsampling x2, then 3x3 padding 1  = transposed convolution 4x4, stride 2, padding 1
                                                 (four dense 2x2 phases)
    3x3 padding 1, then average pooling 2x2    = convolution 4x4, stride 2, padding 1

Along each axis the four taps of the folded weight are sums of the three: an upsampled pair of
pixels is one pixel, a pooled pair of windows overlaps in two taps. Weights are summed in fp32 (or
their own wider type) and rounded once, where the convolution casts them; the fold is linear, so its
gradient is the transposed sum. The precedent is ProGAN's fused_scale (Karras et al. 2018).
"""

from __future__ import annotations

import functools
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels.activations import activation as activate
from fastgan.ops.conv.functional import conv2d, conv_transpose2d

# rows: tap of the folded 4x4 kernel; columns: tap of the 3x3 kernel
UPSAMPLE = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
AVERAGE = ((0.5, 0.0, 0.0), (0.5, 0.5, 0.0), (0.0, 0.5, 0.5), (0.0, 0.0, 0.5))


@functools.cache  # a captured graph reads it: never let go
def _matrix(
    rows: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    return torch.tensor(rows, dtype=dtype, device=device)


def _fold(weight: Tensor, rows: tuple[tuple[float, ...], ...]) -> Tensor:
    if weight.dim() != 4 or weight.shape[2:] != (3, 3):
        raise FastganError(
            f"only 3x3 convolutions fold with resampling, not a weight of {tuple(weight.shape)}"
        )
    wide = weight if weight.dtype == torch.float64 else weight.float()
    kind = (
        weight.device.type
    )  # products with 0, 1/2 and 1 in full precision; "meta" has no autocast
    apart = torch.amp.is_autocast_available(kind)
    with torch.autocast(kind, enabled=False) if apart else nullcontext():
        m = _matrix(rows, wide.dtype, weight.device)
        return torch.einsum("qa,oiab,rb->oiqr", m, wide, m)


def fold_upsample(weight: Tensor) -> Tensor:
    """[CO,CI,3,3] -> the [CI,CO,4,4] weight of the transposed convolution equal to upsampling and
    convolving; fp32 or float64."""
    return _fold(weight, UPSAMPLE).transpose(0, 1)


def fold_average(weight: Tensor) -> Tensor:
    """[CO,CI,3,3] -> the [CO,CI,4,4] weight of the strided convolution equal to convolving and
    averaging; fp32 or float64."""
    return _fold(weight, AVERAGE)


def _in_type(weight: Tensor, x: Tensor) -> Tensor:
    # under autocast the convolution itself rounds the fp32 sum; without it both must have one type,
    # as PyTorch asks
    return weight if torch.is_autocast_enabled(x.device.type) else weight.to(x.dtype)


def upsample_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    activation: str = "identity",
    slope: float = 0.01,
    impl: str = "auto",
) -> Tensor:
    """act(F.conv2d(F.interpolate(input, scale_factor=2), weight, padding=1)*scale + bias):
    [N,CI,H,W] -> [N,CO,2H,2W].

    impl "reference" is that expression; the others fold. Differentiable to any order. FastganError
    unless weight is [CO,CI,3,3].
    """
    if impl == "reference":
        w = weight if scale is None else weight * scale.to(weight.dtype)
        return activate(
            F.conv2d(F.interpolate(input, scale_factor=2, mode="nearest"), w, bias, padding=1),
            activation,
            slope,
        )
    w = _in_type(fold_upsample(weight), input)
    return conv_transpose2d(
        input, w, bias, 2, 1, scale=scale, activation=activation, slope=slope, impl=impl
    )


def conv2d_average(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    activation: str = "identity",
    slope: float = 0.01,
    impl: str = "auto",
) -> Tensor:
    """act(F.avg_pool2d(F.conv2d(input, weight, padding=1)*scale + bias, 2)): [N,CI,H,W] ->
    [N,CO,H//2,W//2].

    The activation comes after the pooling. impl and errors as in upsample_conv2d.
    """
    if impl == "reference":
        w = weight if scale is None else weight * scale.to(weight.dtype)
        return activate(F.avg_pool2d(F.conv2d(input, w, bias, padding=1), 2), activation, slope)
    w = _in_type(fold_average(weight), input)
    return conv2d(input, w, bias, 2, 1, scale=scale, activation=activation, slope=slope, impl=impl)
