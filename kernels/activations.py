"""The one table of activations, which `accelerate`, the operators, `fastgan verify` and its
ahead-of-time forms read.

To add one: a row of :data:`ACTIVATIONS`, and its branch in each of the jitted functions below it
(`output_slope` only where the output tells the derivative). Every other place raises on a name that
is not here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgan.errors import FastganError
from fastgan.kernels.common import tl, triton

Formula = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Activation:
    """One row. Formulas take (tensor, slope) of any shape and floating type and are differentiable
    to any order.

    fn: the activation. derivative: d fn / dp at the pre-activation p; the second derivative is
        autograd's of it.
    from_output: the derivative at p from fn(p) alone, or None where the output does not tell it:
    only activations that have it are fused behind a convolution. negative: of piecewise linear ones
    the derivative below zero, a function of slope; rounding decides the sign of p there. parameter:
    the argument and module attribute that `slope` is. module: torch.nn's class. forms: what else a
    forward may call: functions, and names of Tensor's methods, in place included.
    """

    name: str
    fn: Formula
    derivative: Formula
    from_output: Formula | None = None
    negative: Callable[[float], float] | None = None
    parameter: str | None = None
    module: type[nn.Module] | None = None
    forms: tuple[Any, ...] = ()


def _leaky_slope(v: Tensor, slope: float) -> Tensor:
    return torch.where(v > 0, v.new_ones(()), slope)  # two Python numbers would give fp32


def _silu_slope(p: Tensor, slope: float) -> Tensor:
    z = torch.sigmoid(p)
    return z * (1 + p * (1 - z))


ACTIVATIONS: dict[str, Activation] = {
    a.name: a
    for a in (
        Activation(
            "identity",
            lambda p, slope: p,
            derivative=lambda p, slope: torch.ones_like(p),
            from_output=lambda y, slope: torch.ones_like(y),
        ),
        Activation(
            "relu",
            lambda p, slope: F.relu(p),
            derivative=lambda p, slope: (p > 0).to(p.dtype),
            from_output=lambda y, slope: (y > 0).to(y.dtype),
            negative=lambda slope: 0.0,
            module=nn.ReLU,
            forms=(F.relu, torch.relu, torch.relu_, "relu", "relu_"),
        ),
        Activation(
            "leaky_relu",
            lambda p, slope: F.leaky_relu(p, slope),
            derivative=_leaky_slope,
            from_output=_leaky_slope,
            negative=lambda slope: slope,
            parameter="negative_slope",
            module=nn.LeakyReLU,
            forms=(F.leaky_relu, F.leaky_relu_),
        ),
        Activation(
            "tanh",
            lambda p, slope: torch.tanh(p),
            derivative=lambda p, slope: 1 - torch.tanh(p).square(),
            from_output=lambda y, slope: 1 - y.square(),
            module=nn.Tanh,
            forms=(F.tanh, torch.tanh, torch.tanh_, "tanh", "tanh_"),
        ),
        Activation(
            "sigmoid",
            lambda p, slope: torch.sigmoid(p),
            derivative=lambda p, slope: torch.sigmoid(p) * (1 - torch.sigmoid(p)),
            from_output=lambda y, slope: y * (1 - y),
            module=nn.Sigmoid,
            forms=(F.sigmoid, torch.sigmoid, torch.sigmoid_, "sigmoid", "sigmoid_"),
        ),
        Activation(
            "silu",
            lambda p, slope: F.silu(p),
            derivative=_silu_slope,
            module=nn.SiLU,
            forms=(F.silu,),
        ),
    )
}


@triton.jit
def exp_negative(x):
    """e^x for x <= 0 within 2 ulp, 0 below -87; the hardware's exponential loses |x| ulp. NaN stays
    NaN."""
    far = x < -87.0
    x = tl.maximum(x, -87.0, propagate_nan=tl.PropagateNan.ALL)
    k = tl.floor(x * 1.4426950408889634 + 0.5)
    # ln 2 in two parts, the first short enough for an exact product (Cody & Waite 1980), then a
    # minimax polynomial.
    r = x - k * 0.693145751953125
    r = r - k * 1.428606765330187e-06
    p = r * 1.9875691500e-4 + 1.3981999507e-3
    p = p * r + 8.3334519073e-3
    p = p * r + 4.1665795894e-2
    p = p * r + 1.6666665459e-1
    p = p * r + 5.0000001201e-1
    p = p * (r * r) + r + 1.0
    return tl.where(far, 0.0, p * ((k.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True))


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x) within 2 ulp, tails included."""
    e = exp_negative(-tl.abs(x))
    return tl.div_rn(tl.where(x >= 0, 1.0, e), 1.0 + e)


@triton.jit
def _tanh(x):
    # 1 - 2/(e^2|x| + 1) cancels near zero, so a polynomial in x^2 (weighted least squares on [0,
    # 0.6], 3e-9) takes over there
    z = x * x
    small = x + x * (
        z
        * (
            -0.3333329751
            + z * (0.133319153 + z * (-0.053783293 + z * (0.02079461771 + z * -0.005893945303)))
        )
    )
    large = 1.0 - 2.0 / (tl.exp(2.0 * tl.abs(x)) + 1.0)
    return tl.where(tl.abs(x) < 0.6, small, tl.where(x < 0, -large, large))


@triton.jit
def act(p, ACT: tl.constexpr, SLOPE: tl.constexpr):
    """fn(p) in fp32; ``ACT`` is a name of :data:`ACTIVATIONS`. NaN stays NaN, as in PyTorch."""
    p = p.to(tl.float32)
    if ACT == "relu":
        p = tl.where(p <= 0, 0.0, p)
    elif ACT == "leaky_relu":
        p = tl.where(p > 0, p, p * SLOPE)
    elif ACT == "tanh":
        p = _tanh(p)
    elif ACT == "sigmoid":
        p = sigmoid(p)
    elif ACT == "silu":
        p = p * sigmoid(p)
    else:
        tl.static_assert(ACT == "identity", "unknown activation")
    return p


@triton.jit
def act_grad(p, ACT: tl.constexpr, SLOPE: tl.constexpr):
    """derivative(p) in fp32: the same comparison as :func:`act`, so that forward and backward masks
    agree."""
    p = p.to(tl.float32)
    if ACT == "relu":
        d = tl.where(p <= 0, 0.0, 1.0)
    elif ACT == "leaky_relu":
        d = tl.where(p > 0, 1.0, SLOPE)
    elif ACT == "tanh":
        y = _tanh(p)
        d = 1.0 - y * y
    elif ACT == "sigmoid":
        y = sigmoid(p)
        d = y * (1.0 - y)
    elif ACT == "silu":
        y = sigmoid(p)
        d = y * (1.0 + p * (1.0 - y))
    else:
        tl.static_assert(ACT == "identity", "unknown activation")
        d = tl.full(p.shape, 1.0, tl.float32)
    return d


@triton.jit
def output_slope(z, ACT: tl.constexpr, SLOPE: tl.constexpr):
    """from_output(z) in fp32: what backward knows of an output activation (slope > 0 keeps the
    sign)."""
    if ACT == "relu":
        d = tl.where(z > 0, 1.0, 0.0)
    elif ACT == "leaky_relu":
        d = tl.where(z > 0, 1.0, SLOPE)
    elif ACT == "tanh":
        d = 1.0 - z * z
    elif ACT == "sigmoid":
        d = z * (1.0 - z)
    else:
        tl.static_assert(
            ACT == "identity", "an activation whose derivative its output does not tell"
        )
        d = tl.full(z.shape, 1.0, tl.float32)
    return d


def row(name: str) -> Activation:
    """The row of a name. FastganError lists the names where there is none."""
    if name not in ACTIVATIONS:
        raise FastganError(f"unknown activation {name!r}: choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def activation(x: Tensor, name: str = "identity", slope: float = 0.01) -> Tensor:
    """The reference: applies `name` to a float tensor of any shape; differentiable to any order."""
    return row(name).fn(x, slope)
