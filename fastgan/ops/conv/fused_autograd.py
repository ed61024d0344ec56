"""The fused convolution as registered operators: forward, g pass, dgrad and wgrad, each with a fake
implementation and autograd. A second derivative (create_graph=True) goes through the differentiable
formulas of conv_reference over the three plain convolutions of conv_plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan.kernels.conv.plan import channels_last, empty_nhwc
from fastgan.kernels.conv.spec import ConvSpec, Fusion
from fastgan.ops import low_weights
from fastgan.ops.conv import reference as ref
from fastgan.ops.conv.autograd import RegisteredConvOps, accumulator, weight_gradients, weight_shape


def _empty(x: Tensor) -> Tensor:
    return x.new_empty(0, dtype=accumulator(x))


def _like(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return empty_nhwc(n, c, h, w, x.dtype, x.device)


def _coefficients(y: Tensor, mean: Tensor, dmean: Tensor, dvar: Tensor) -> tuple[Tensor, Tensor]:
    """a, b with g = dy + a + b*y: the gradient of the moments, formed on load."""
    n = y.numel() // mean.numel()
    b = dvar * (2 / n)
    return torch.addcmul(dmean / n, b, mean, value=-1), b


@torch.library.custom_op("fastgan::conv_moments", mutates_args=())
def convolve(
    x: Tensor,
    w: Tensor,
    s: Tensor | None,
    t: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    residual: Tensor | None,
    spec: Sequence[int],
    fusion: str,
    moments: bool,
    g_on_load: bool,
    engine: str,
) -> tuple[Tensor, Tensor, Tensor]:
    form, how = ConvSpec.unpack(spec), Fusion.unpack(fusion)
    if engine != "triton":
        y, mean, var = ref.conv_forward(x, w, s, t, bias, scale, residual, form, how, moments)
        y = channels_last(y)
    else:
        from fastgan.kernels.conv.forward import conv_forward
        from fastgan.kernels.conv.moments import merge_moments

        low = low_weights.values(w, x.dtype)
        y, partial = conv_forward(
            x, low, form, how, s=s, t=t, bias=bias, scale=scale, residual=residual, moments=moments
        )
        mean, var = merge_moments(*partial) if partial else (None, None)
    return y, _empty(x) if mean is None else mean, _empty(x) if var is None else var


@convolve.register_fake
def _(x, w, s, t, bias, scale, residual, spec, fusion, moments, g_on_load, engine):  # type: ignore[no-untyped-def]
    form, groups = ConvSpec.unpack(spec), Fusion.unpack(fusion).groups
    channels = form.weight_channels(w.shape)[1]
    y = empty_nhwc(
        x.shape[0], channels, *form.output_size(x.shape[2], x.shape[3]), x.dtype, x.device
    )
    mean, var = (
        x.new_empty((groups, channels) if moments else (0,), dtype=accumulator(x)) for _ in range(2)
    )
    return y, mean, var


@torch.library.custom_op("fastgan::conv_moments_g", mutates_args=())
def _gradient(
    dy: Tensor,
    y: Tensor,
    mean: Tensor | None,
    dmean: Tensor | None,
    dvar: Tensor | None,
    fusion: str,
    sums: bool,
    engine: str,
) -> tuple[Tensor, Tensor]:
    how = Fusion.unpack(fusion)
    if engine != "triton":
        g = channels_last(ref.gradient(dy, y, mean, dmean, dvar, how))
        g = g.clone() if g is dy else g
        return g, ref.wide(g).sum((0, 2, 3)) if sums else _empty(y)
    from fastgan.kernels.conv.moments import form_gradient

    g, total = form_gradient(
        dy,
        y,
        mean,
        dmean,
        dvar,
        act_out=how.act_out,
        slope_out=how.slope_out,
        groups=how.groups,
        sums=sums,
    )
    return g, _empty(y) if total is None else total


@_gradient.register_fake
def _(dy, y, mean, dmean, dvar, fusion, sums, engine):  # type: ignore[no-untyped-def]
    return _like(y), y.new_empty((y.shape[1],) if sums else (0,), dtype=accumulator(y))


@torch.library.custom_op("fastgan::conv_moments_dgrad", mutates_args=())
def _dgrad(
    dy: Tensor,
    w: Tensor,
    x: Tensor,
    s: Tensor | None,
    t: Tensor | None,
    scale: Tensor | None,
    y: Tensor | None,
    mean: Tensor | None,
    dmean: Tensor | None,
    dvar: Tensor | None,
    spec: Sequence[int],
    fusion: str,
    engine: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """dy is g itself where y is None; else g is formed on load from (dy, y) and the gradients of
    the moments."""
    form, how = ConvSpec.unpack(spec), Fusion.unpack(fusion)
    if engine != "triton":
        g = dy if y is None else ref.gradient(dy, y, mean, dmean, dvar, how)
        dx, ds, dt = ref.conv_dgrad(g, w, x, s, t, scale, form, how)
        return channels_last(dx), _empty(x) if ds is None else ds, _empty(x) if dt is None else dt
    from fastgan.kernels.conv.dgrad import conv_dgrad

    a, b = (
        (None, None)
        if y is None or mean is None or dmean is None or dvar is None
        else _coefficients(y, mean, dmean, dvar)
    )
    dx, sums = conv_dgrad(
        dy, w, form, (x.shape[2], x.shape[3]), how, y=y, a=a, b=b, scale=scale, x=x, s=s, t=t
    )
    if sums is None or s is None:
        return dx, _empty(x), _empty(x)
    ds, dt = (sums.sum(1) if s.numel() == sums.shape[2] else sums).unbind(0)
    return dx, ds.reshape(s.shape).clone(), dt.reshape(s.shape).clone()


@_dgrad.register_fake
def _(dy, w, x, s, t, scale, y, mean, dmean, dvar, spec, fusion, engine):  # type: ignore[no-untyped-def]
    ds, dt = (x.new_empty((0,) if s is None else s.shape, dtype=accumulator(x)) for _ in range(2))
    return _like(x), ds, dt


@torch.library.custom_op("fastgan::conv_moments_wgrad", mutates_args=())
def _wgrad(
    x: Tensor,
    dy: Tensor,
    s: Tensor | None,
    t: Tensor | None,
    y: Tensor | None,
    mean: Tensor | None,
    dmean: Tensor | None,
    dvar: Tensor | None,
    spec: Sequence[int],
    fusion: str,
    engine: str,
) -> Tensor:
    """dw before any 1/sigma, fp32."""
    form, how = ConvSpec.unpack(spec), Fusion.unpack(fusion)
    if engine != "triton":
        g = dy if y is None else ref.gradient(dy, y, mean, dmean, dvar, how)
        return channels_last(ref.conv_wgrad(x, g, s, t, form, how))
    from fastgan.kernels.conv.wgrad import conv_wgrad

    a, b = (
        (None, None)
        if y is None or mean is None or dmean is None or dvar is None
        else _coefficients(y, mean, dmean, dvar)
    )
    return conv_wgrad(x, dy, form, how, s=s, t=t, y=y, a=a, b=b)


@_wgrad.register_fake
def _(x, dy, s, t, y, mean, dmean, dvar, spec, fusion, engine):  # type: ignore[no-untyped-def]
    return empty_nhwc(
        *weight_shape(ConvSpec.unpack(spec), x.shape[1], dy.shape[1]), accumulator(x), x.device
    )


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, w, s, t, bias, scale, residual, spec, fusion, moments, g_on_load, engine = inputs
    y, mean, _ = output
    # y is kept only where g needs it
    kept = y if moments or Fusion.unpack(fusion).act_out != "identity" else None
    ctx.save_for_backward(
        x,
        w,
        s,
        t,
        bias,
        scale,
        residual if ctx.needs_input_grad[6] else None,
        kept,
        mean if moments else None,
    )
    low = low_weights.values(w, x.dtype)  # not to be had any more in backward
    ctx.low = None if low is w else low
    ctx.rest = spec, fusion, moments, g_on_load, engine
    ctx.set_materialize_grads(False)


def _convolve_backward(
    ctx: Any, dy: Tensor | None, dmean: Tensor | None, dvar: Tensor | None
) -> tuple[Any, ...]:
    x, w, s, t, bias, scale, residual, y, mean = ctx.saved_tensors
    spec, fusion, moments, g_on_load, engine = ctx.rest
    form, how = ConvSpec.unpack(spec), Fusion.unpack(fusion)
    used = moments and (dmean is not None or dvar is not None)
    if dy is None and not used:
        return (None,) * 12
    if dy is None:
        dy = torch.zeros_like(y)
    needs = list(ctx.needs_input_grad[:7])
    if not weight_gradients():
        needs[1] = needs[5] = False
    if torch.is_grad_enabled():
        linear = _linear(how, engine)
        y_like = dy.to(x.dtype) if y is None else y
        grads = ref.backward(
            tuple(needs),
            dy,
            dmean if used else None,
            dvar if used else None,
            x,
            w,
            s,
            t,
            bias,
            scale,
            residual,
            y_like,
            mean,
            form,
            how,
            linear,
        )
        return (*grads, *(None,) * 5)
    if used:
        # a sum's gradient is one number expanded; kernels read whole vectors
        dmean, dvar = (
            torch.zeros_like(mean) if v is None else v.contiguous() for v in (dmean, dvar)
        )
    else:
        dmean = dvar = mean = None
    total: Tensor | None = None
    g = dy
    on_load: tuple[Tensor | None, ...] = (None,) * 4
    if used or how.act_out != "identity":
        if g_on_load and not (needs[4] or needs[6]):
            on_load = y, mean, dmean, dvar
        else:
            g, total = _gradient(dy, y, mean, dmean, dvar, fusion, needs[4], engine)
    dx = ds = dt = dw = dscale = dbias = None
    if needs[0] or needs[2] or needs[3]:
        dx, ds, dt = _dgrad(
            g, w if ctx.low is None else ctx.low, x, s, t, scale, *on_load, spec, fusion, engine
        )
    if needs[1] or needs[5]:
        raw = _wgrad(x, g, s, t, *on_load, spec, fusion, engine)
        dscale = (
            (raw * w.to(x.dtype)).sum().reshape(scale.shape).to(scale.dtype) if needs[5] else None
        )
        dw = (raw if scale is None else raw * scale).to(w.dtype) if needs[1] else None
    if needs[4]:
        dbias = (ref.wide(g).sum((0, 2, 3)) if total is None else total).to(bias.dtype)
    dresidual = g.to(residual.dtype) if needs[6] else None
    dx = dx if needs[0] else None
    return (
        dx,
        dw,
        ds if needs[2] else None,
        dt if needs[3] else None,
        dbias,
        dscale,
        dresidual,
        *(None,) * 5,
    )


convolve.register_autograd(_convolve_backward, setup_context=_save_forward)


def _differentiate(
    formula: Any, inputs: tuple[Tensor | None, ...], grads: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    """Gradients of formula(*inputs) by autograd itself; again differentiable where the caller asks
    for a graph."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        wanted = [v is not None and v.requires_grad for v in inputs]
        # a view apart from the graph above it: inputs may depend on one another
        own = [
            v if v is None or not want else (v.view_as(v) if again else v.detach().requires_grad_())
            for v, want in zip(inputs, wanted)
        ]
        pairs = [
            (out, grad)
            for out, grad in zip(formula(*own), grads)
            if out is not None and grad is not None and out.requires_grad
        ]
        leaves = [v for v, want in zip(own, wanted) if want and v is not None]
        if not pairs or not leaves:
            return [None] * len(inputs)
        found = iter(
            torch.autograd.grad(
                [o for o, _ in pairs],
                leaves,
                [g.to(o.dtype) for o, g in pairs],
                create_graph=again,
                allow_unused=True,
            )
        )
    return [next(found) if want else None for want in wanted]


def _save_all(tensors: int) -> Any:
    def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.rest = inputs[tensors:]
        ctx.set_materialize_grads(False)

    return save


def _linear(how: Fusion, engine: str) -> ref.ConvOps:
    return RegisteredConvOps(how.precision, engine) if engine == "triton" else ref.TORCH


def _gradient_backward(ctx: Any, ug: Tensor | None, usum: Tensor | None) -> tuple[Any, ...]:
    how, sums = Fusion.unpack(ctx.rest[0]), ctx.rest[1]

    def formula(dy, y, mean, dmean, dvar):  # type: ignore[no-untyped-def]
        g = ref.gradient(dy, y, mean, dmean, dvar, how)
        return g, ref.wide(g).sum((0, 2, 3)) if sums else None

    return *_differentiate(formula, ctx.saved_tensors, (ug, usum)), None, None, None


def _dgrad_backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    form, how, engine = ConvSpec.unpack(ctx.rest[0]), Fusion.unpack(ctx.rest[1]), ctx.rest[2]

    def formula(dy, w, x, s, t, scale, y, mean, dmean, dvar):  # type: ignore[no-untyped-def]
        g = dy if y is None else ref.gradient(dy, y, mean, dmean, dvar, how)
        return ref.conv_dgrad(g, w, x, s, t, scale, form, how, _linear(how, engine))

    return *_differentiate(formula, ctx.saved_tensors, grads), None, None, None


def _wgrad_backward(ctx: Any, u: Tensor | None) -> tuple[Any, ...]:
    form, how, engine = ConvSpec.unpack(ctx.rest[0]), Fusion.unpack(ctx.rest[1]), ctx.rest[2]

    def formula(x, dy, s, t, y, mean, dmean, dvar):  # type: ignore[no-untyped-def]
        g = dy if y is None else ref.gradient(dy, y, mean, dmean, dvar, how)
        return (ref.conv_wgrad(x, g, s, t, form, how, _linear(how, engine)),)

    return *_differentiate(formula, ctx.saved_tensors, (u,)), None, None, None


_gradient.register_autograd(_gradient_backward, setup_context=_save_all(5))
_dgrad.register_autograd(_dgrad_backward, setup_context=_save_all(10))
_wgrad.register_autograd(_wgrad_backward, setup_context=_save_all(8))
