"""The convolution family in plain PyTorch: float64-capable, differentiable to any order, and the
formulas the kernels implement.

    z = act_in(x*s + t)
    y = act_out(conv(z, w)*scale + bias + residual)
    mean, var of y per channel (and group)
    g  = (dy + dmean/n + dvar*2/n*(y - mean)) * act_out'(y)
    dw = wgrad(z, g)*scale
    dp = dgrad(g, w)*scale*act_in'(x*s + t)
    dx = dp*s    ds = sum(dp*x)    dt = sum(dp)

BatchNorm's backward is the chain rule through (mean, var) out of one convolution and (s, t) into
the next. `linear` names the three plain convolutions (conv, dgrad, wgrad) the formulas are built
from: PyTorch's, or the registered ones of ops.conv.autograd.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels.activations import Formula, activation, row
from fastgan.kernels.conv.spec import ConvSpec, Fusion
from fastgan.ops import low_weights


class ConvOps(Protocol):
    """A convolution, its data gradient and its weight gradient: each one's derivatives are the
    other two."""

    def conv(self, x: Tensor, w: Tensor, spec: ConvSpec) -> Tensor: ...
    def dgrad(self, g: Tensor, w: Tensor, spec: ConvSpec, size: tuple[int, int]) -> Tensor: ...
    def wgrad(self, x: Tensor, g: Tensor, spec: ConvSpec) -> Tensor: ...


class TorchConvOps:
    """PyTorch's convolutions. All tensors of one type."""

    def conv(self, x: Tensor, w: Tensor, spec: ConvSpec) -> Tensor:
        if spec.transposed:
            return F.conv_transpose2d(x, w, None, spec.stride, spec.padding, spec.output_padding)
        return F.conv2d(x, w, None, spec.stride, spec.padding)

    def dgrad(self, g: Tensor, w: Tensor, spec: ConvSpec, size: tuple[int, int]) -> Tensor:
        if spec.transposed:
            return F.conv2d(g, w, None, spec.stride, spec.padding)
        least = ConvSpec(True, spec.kernel, spec.stride, spec.padding).output_size(
            g.shape[2], g.shape[3]
        )
        extra = (size[0] - least[0], size[1] - least[1])
        return F.conv_transpose2d(g, w, None, spec.stride, spec.padding, extra)

    def wgrad(self, x: Tensor, g: Tensor, spec: ConvSpec) -> Tensor:
        small, large = (x, g) if spec.transposed else (g, x)
        w = small.new_empty(1).expand(small.shape[1], large.shape[1], *spec.kernel)
        # a weight of any value: PyTorch reads only its shape here
        back = torch.ops.aten.convolution_backward
        return back(
            small,
            large,
            w,
            None,
            spec.stride,
            spec.padding,
            (1, 1),
            False,
            (0, 0),
            1,
            (False, True, False),
        )[1]


TORCH = TorchConvOps()


def wide(x: Tensor) -> Tensor:
    """fp32, or float64 where x is."""
    return x if x.dtype == torch.float64 else x.float()


def spread(vector: Tensor, x: Tensor) -> Tensor:
    """[C] or [groups, C] against x [N, C, H, W], group by group."""
    rows = vector.reshape(-1, x.shape[1])
    return (rows if rows.shape[0] == 1 else rows.repeat_interleave(x.shape[0] // rows.shape[0], 0))[
        :, :, None, None
    ]


def group_sums(p: Tensor, like: Tensor) -> Tensor:
    """Sums of p [N, C, H, W] over pixels and the images of a group, in the shape of `like` ([C] or
    [groups, C])."""
    groups = like.numel() // p.shape[1]
    return p.reshape(groups, p.shape[0] // groups, p.shape[1], -1).sum((1, 3)).reshape(like.shape)


def _from_output(name: str) -> Formula:
    found = row(name).from_output
    if found is None:
        raise FastganError(
            f"{name} cannot be fused behind a convolution: its derivative needs more than its "
            "output"
        )
    return found


def operand(x: Tensor, s: Tensor | None, t: Tensor | None, fusion: Fusion) -> Tensor:
    """z in x's type."""
    if s is None or t is None:
        return (
            x
            if fusion.act_in == "identity"
            else activation(wide(x), fusion.act_in, fusion.slope_in).to(x.dtype)
        )
    return activation(wide(x) * spread(s, x) + spread(t, x), fusion.act_in, fusion.slope_in).to(
        x.dtype
    )


def moments_of(y: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """mean and biased variance [groups, C] of y, in fp32 or float64."""
    rows = wide(y).reshape(groups, y.shape[0] // groups, y.shape[1], -1)
    var, mean = torch.var_mean(rows, (1, 3), correction=0)
    return mean, var


def conv_forward(
    x: Tensor,
    w: Tensor,
    s: Tensor | None,
    t: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    residual: Tensor | None,
    spec: ConvSpec,
    fusion: Fusion,
    moments: bool,
    linear: ConvOps = TORCH,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """y in x's type, and mean, var [groups, CO] or None."""
    y = linear.conv(
        operand(x, s, t, fusion), low_weights.cast(w if scale is None else w * scale, x.dtype), spec
    )
    if bias is not None or residual is not None or fusion.act_out != "identity":
        p = wide(y) if bias is None else wide(y) + wide(bias)[None, :, None, None]
        p = p if residual is None else p + wide(residual)
        y = activation(p, fusion.act_out, fusion.slope_out).to(x.dtype)
    return (y, *(moments_of(y, fusion.groups) if moments else (None, None)))


def gradient(
    dy: Tensor,
    y: Tensor,
    mean: Tensor | None,
    dmean: Tensor | None,
    dvar: Tensor | None,
    fusion: Fusion,
) -> Tensor:
    """g in y's type."""
    if dmean is None and dvar is None and fusion.act_out == "identity":
        return dy.to(y.dtype)
    n = y.numel() // (y.shape[1] * fusion.groups)
    g = wide(dy)
    if dmean is not None:
        g = g + spread(dmean, y) / n
    if dvar is not None and mean is not None:
        g = g + spread(dvar, y) * (2 / n) * (wide(y) - spread(mean, y))
    return (g * _from_output(fusion.act_out)(wide(y), fusion.slope_out)).to(y.dtype)


def conv_dgrad(
    g: Tensor,
    w: Tensor,
    x: Tensor,
    s: Tensor | None,
    t: Tensor | None,
    scale: Tensor | None,
    spec: ConvSpec,
    fusion: Fusion,
    linear: ConvOps = TORCH,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """dx in x's type; ds, dt shaped as s, t."""
    dp = wide(
        linear.dgrad(
            g, (w if scale is None else w * scale).to(g.dtype), spec, (x.shape[2], x.shape[3])
        )
    )
    if s is None or t is None:
        return (
            (dp * row(fusion.act_in).derivative(wide(x), fusion.slope_in)).to(x.dtype),
            None,
            None,
        )
    p = wide(x) * spread(s, x) + spread(t, x)
    dp = dp * row(fusion.act_in).derivative(p, fusion.slope_in)
    return (dp * spread(s, x)).to(x.dtype), group_sums(dp * wide(x), s), group_sums(dp, t)


def conv_wgrad(
    x: Tensor,
    g: Tensor,
    s: Tensor | None,
    t: Tensor | None,
    spec: ConvSpec,
    fusion: Fusion,
    linear: ConvOps = TORCH,
) -> Tensor:
    """dw, before any 1/sigma, in fp32 (float64 for float64 inputs)."""
    return wide(linear.wgrad(operand(x, s, t, fusion), g.to(x.dtype), spec))


def backward(
    needs: tuple[bool, ...],
    dy: Tensor,
    dmean: Tensor | None,
    dvar: Tensor | None,
    x: Tensor,
    w: Tensor,
    s: Tensor | None,
    t: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    residual: Tensor | None,
    y: Tensor,
    mean: Tensor | None,
    spec: ConvSpec,
    fusion: Fusion,
    linear: ConvOps = TORCH,
) -> tuple[Any, ...]:
    """Gradients of (x, w, s, t, bias, scale, residual), None where `needs` says so. Differentiable:
    this is what R1 goes through."""
    g = gradient(dy, y, mean, dmean, dvar, fusion)
    dx = ds = dt = dw = dscale = None
    if needs[0] or needs[2] or needs[3]:
        dx, ds, dt = conv_dgrad(g, w, x, s, t, scale, spec, fusion, linear)
    if needs[1] or needs[5]:
        raw = conv_wgrad(x, g, s, t, spec, fusion, linear)
        dscale = (
            (raw * wide(w.to(x.dtype))).sum().reshape(scale.shape).to(scale.dtype)
            if scale is not None and needs[5]
            else None
        )
        dw = (raw if scale is None else raw * scale).to(w.dtype) if needs[1] else None
    dbias = wide(g).sum((0, 2, 3)).to(bias.dtype) if bias is not None and needs[4] else None
    return (
        dx,
        dw,
        ds,
        dt,
        dbias,
        dscale,
        None if residual is None or not needs[6] else g.to(residual.dtype),
    )
