"""Three registered convolutions closed under differentiation, so that R1, R2 and gradient penalties
are exact at any order:

    conv(x, w)      d/dx: dgrad(u, w)      d/dw: wgrad(x, u)
    dgrad(g, w)     d/dg: conv(u, w)       d/dw: wgrad(u, g)
    wgrad(x, g)     d/dx: dgrad(g, u)      d/dg: conv(x, u)

x, g: fp32, fp16 or bf16 of one type (float64 with engine "reference"); w of any float type; dw
leaves in fp32, by cuDNN in x's type. Results are NHWC in memory. engine: of all three, or of each
in this order, such as "cudnn triton cudnn".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan.kernels.conv.plan import channels_last, empty_nhwc
from fastgan.kernels.conv.spec import ConvSpec, Fusion
from fastgan.ops.conv import reference as ref
from fastgan.ops.conv.switch import no_weight_gradients, weight_gradients
from fastgan.ops.dispatch import batched

__all__ = ["RegisteredConvOps", "no_weight_gradients", "weight_gradients", "weight_shape"]


def weight_shape(spec: ConvSpec, channels_in: int, channels_out: int) -> tuple[int, int, int, int]:
    """PyTorch's weight shape for a spec."""
    return (
        *((channels_in, channels_out) if spec.transposed else (channels_out, channels_in)),
        *spec.kernel,
    )


def accumulator(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


CONV, DGRAD, WGRAD = range(3)


def engine_of(engine: str, direction: int) -> str:
    """That of one direction."""
    named = engine.split()
    return named[direction] if len(named) > 1 else engine


@torch.library.custom_op("fastgan::conv", mutates_args=())
def _conv(x: Tensor, w: Tensor, spec: Sequence[int], precision: str, engine: str) -> Tensor:
    form = ConvSpec.unpack(spec)
    if engine_of(engine, CONV) != "triton":
        return channels_last(ref.TORCH.conv(x, w.to(x.dtype), form))
    from fastgan.kernels.conv.forward import conv_forward

    return conv_forward(x, w, form, Fusion(precision=precision))[0]


def weight_type(x: Tensor, engine: str) -> torch.dtype:
    """Of a weight's gradient."""
    return x.dtype if engine_of(engine, WGRAD) == "cudnn" else accumulator(x)


@torch.library.custom_op("fastgan::conv_dgrad", mutates_args=())
def _dgrad(
    g: Tensor, w: Tensor, height: int, width: int, spec: Sequence[int], precision: str, engine: str
) -> Tensor:
    form = ConvSpec.unpack(spec)
    if engine_of(engine, DGRAD) != "triton":
        return channels_last(ref.TORCH.dgrad(g, w.to(g.dtype), form, (height, width)))
    from fastgan.kernels.conv.dgrad import conv_dgrad

    return conv_dgrad(g, w, form, (height, width), Fusion(precision=precision))[0]


@torch.library.custom_op("fastgan::conv_wgrad", mutates_args=())
def _wgrad(x: Tensor, g: Tensor, spec: Sequence[int], precision: str, engine: str) -> Tensor:
    form = ConvSpec.unpack(spec)
    if engine_of(engine, WGRAD) != "triton":
        dw = ref.TORCH.wgrad(x, g.to(x.dtype), form)
        return channels_last(dw, weight_type(x, engine))
    from fastgan.kernels.conv.wgrad import conv_wgrad

    return conv_wgrad(x, g, form, Fusion(precision=precision))


@_conv.register_fake
def _(x: Tensor, w: Tensor, spec: Sequence[int], precision: str, engine: str) -> Tensor:
    form = ConvSpec.unpack(spec)
    return empty_nhwc(
        x.shape[0],
        form.weight_channels(w.shape)[1],
        *form.output_size(x.shape[2], x.shape[3]),
        x.dtype,
        x.device,
    )


@_dgrad.register_fake
def _(
    g: Tensor, w: Tensor, height: int, width: int, spec: Sequence[int], precision: str, engine: str
) -> Tensor:
    return empty_nhwc(
        g.shape[0],
        ConvSpec.unpack(spec).weight_channels(w.shape)[0],
        height,
        width,
        g.dtype,
        g.device,
    )


@_wgrad.register_fake
def _(x: Tensor, g: Tensor, spec: Sequence[int], precision: str, engine: str) -> Tensor:
    d, e, kh, kw = weight_shape(ConvSpec.unpack(spec), x.shape[1], g.shape[1])
    return empty_nhwc(d, e, kh, kw, weight_type(x, engine), x.device)


def _save_two(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])
    ctx.rest = inputs[-3:]


def _conv_backward(ctx: Any, u: Tensor) -> tuple[Any, ...]:
    x, w = ctx.saved_tensors
    if batched(u):  # many gradients at once: PyTorch's, which vmap knows
        return *_by_pytorch(ctx, u, x, w), None, None, None
    dx = _dgrad(u, w, x.shape[2], x.shape[3], *ctx.rest) if ctx.needs_input_grad[0] else None
    dw = (
        _wgrad(x, u, *ctx.rest).to(w.dtype)
        if ctx.needs_input_grad[1] and weight_gradients()
        else None
    )
    return dx, dw, None, None, None


def _by_pytorch(ctx: Any, u: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor | None, Tensor | None]:
    form, low = ConvSpec.unpack(ctx.rest[0]), w.to(x.dtype)
    dx = (
        ref.TORCH.dgrad(u, low, form, (x.shape[2], x.shape[3])) if ctx.needs_input_grad[0] else None
    )
    dw = ref.TORCH.wgrad(x, u, form).to(w.dtype) if ctx.needs_input_grad[1] else None
    return dx, dw


def _dgrad_backward(ctx: Any, u: Tensor) -> tuple[Any, ...]:
    g, w = ctx.saved_tensors
    dg = _conv(u, w, *ctx.rest) if ctx.needs_input_grad[0] else None
    dw = (
        _wgrad(u, g, *ctx.rest).to(w.dtype)
        if ctx.needs_input_grad[1] and weight_gradients()
        else None
    )
    return dg, dw, None, None, None, None, None


def _wgrad_backward(ctx: Any, u: Tensor) -> tuple[Any, ...]:
    x, g = ctx.saved_tensors
    dx = (
        _dgrad(g, u, x.shape[2], x.shape[3], *ctx.rest).to(x.dtype)
        if ctx.needs_input_grad[0]
        else None
    )
    dg = _conv(x, u, *ctx.rest).to(g.dtype) if ctx.needs_input_grad[1] else None
    return dx, dg, None, None, None


_conv.register_autograd(_conv_backward, setup_context=_save_two)
_dgrad.register_autograd(_dgrad_backward, setup_context=_save_two)
_wgrad.register_autograd(_wgrad_backward, setup_context=_save_two)


class RegisteredConvOps:
    """The registered operators in the form of conv_reference.Linear."""

    def __init__(self, precision: str, engine: str) -> None:
        self.rest = precision, engine

    def conv(self, x: Tensor, w: Tensor, spec: ConvSpec) -> Tensor:
        return _conv(x, w, spec.pack(), *self.rest)

    def dgrad(self, g: Tensor, w: Tensor, spec: ConvSpec, size: tuple[int, int]) -> Tensor:
        return _dgrad(g, w, *size, spec.pack(), *self.rest)

    def wgrad(self, x: Tensor, g: Tensor, spec: ConvSpec) -> Tensor:
        return _wgrad(x, g, spec.pack(), *self.rest)
