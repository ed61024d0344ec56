"""The fused convolution: normalisation comes in as (s, t), moments go out, and BatchNorm's backward is the chain rule.

    z = act_in(x*s + t)      y = act_out(conv(z, w)*scale + bias + residual)      mean, var of y per channel (and group)

Registered as four operators: the forward, its g pass, dgrad and wgrad. A second derivative (create_graph=True) goes through the
differentiable formulas of conv_reference over the three plain convolutions of conv_plain. docs/fused-convolution.md explains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels._common import INTERPRET
from fastgan.kernels.conv_plan import channels_last, empty_nhwc
from fastgan.kernels.conv_spec import ConvSpec, Fusion, pair
from fastgan.ops import conv_reference as ref
from fastgan.ops import dispatch, norm
from fastgan.ops.conv_plain import RegisteredLinear, accumulator, weight_gradients, weight_shape

OUTPUT_ACTIVATIONS = ("identity", "relu", "leaky_relu", "tanh", "sigmoid")  # those whose derivative the output tells


def unsupported(dtype: torch.dtype, act_out: str, slope_out: float) -> str | None:
    """Why the Triton engine cannot run a call, or None."""
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"no kernel takes {dtype}"
    if INTERPRET and dtype == torch.bfloat16:
        return "Triton's interpreter multiplies bf16 bit patterns"
    if act_out not in OUTPUT_ACTIVATIONS:
        return f"{act_out} cannot be fused behind a convolution: its derivative needs more than its output"
    if act_out == "leaky_relu" and slope_out <= 0:
        return "leaky_relu with such a slope does not keep the sign"
    return None


def cast_type(x: Tensor) -> torch.dtype:
    """The type a convolution takes x in: autocast as PyTorch's convolutions see it."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype in (torch.float32, torch.float16, torch.bfloat16):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def cast(x: Tensor) -> Tensor:
    """x under autocast; a registered operator has to ask."""
    return x.to(cast_type(x))


def precision_of(x: Tensor) -> str:
    """How fp32 products are formed: as PyTorch's switch for cuDNN convolutions says ("ieee" off a GPU)."""
    if x.dtype != torch.float32 or x.device.type != "cuda":
        return "ieee"
    try:
        return "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"
    except RuntimeError:  # the newer per-operator switches are in use
        return "ieee" if getattr(torch.backends.cudnn.conv, "fp32_precision", "tf32") == "ieee" else "tf32"


def _empty(x: Tensor) -> Tensor:
    return x.new_empty(0, dtype=accumulator(x))


def _coefficients(y: Tensor, mean: Tensor, dmean: Tensor, dvar: Tensor) -> tuple[Tensor, Tensor]:
    """a, b with g = dy + a + b*y: the gradient of the moments, formed on load."""
    n = y.numel() // mean.numel()
    b = dvar * (2 / n)
    return torch.addcmul(dmean / n, b, mean, value=-1), b


@torch.library.custom_op("fastgan::conv_moments", mutates_args=())
def _forward(x: Tensor, w: Tensor, s: Tensor | None, t: Tensor | None, bias: Tensor | None, scale: Tensor | None, residual: Tensor | None,
             spec: Sequence[int], fusion: str, moments: bool, g_on_load: bool, engine: str) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    form, how = ConvSpec.unpack(spec), Fusion.unpack(fusion)
    if engine != "triton":
        y, mean, var = ref.conv_forward(x, w, s, t, bias, scale, residual, form, how, moments)
        y = channels_last(y)
    else:
        from fastgan.kernels.conv_forward import conv_forward
        from fastgan.kernels.conv_moments import merge_moments

        y, partial = conv_forward(x, w, form, how, s=s, t=t, bias=bias, scale=scale, residual=residual, moments=moments)
        mean, var = merge_moments(*partial) if partial else (None, None)
    return y, _empty(x) if mean is None else mean, _empty(x) if var is None else var


@_forward.register_fake
def _(x, w, s, t, bias, scale, residual, spec, fusion, moments, g_on_load, engine):  # type: ignore[no-untyped-def]
    form, groups = ConvSpec.unpack(spec), Fusion.unpack(fusion).groups
    channels = form.weight_channels(w.shape)[1]
    y = empty_nhwc(x.shape[0], channels, *form.output_size(x.shape[2], x.shape[3]), x.dtype, x.device)
    mean, var = (x.new_empty((groups, channels) if moments else (0,), dtype=accumulator(x)) for _ in range(2))
    return y, mean, var


@torch.library.custom_op("fastgan::conv_moments_g", mutates_args=())
def _gradient(dy: Tensor, y: Tensor, mean: Tensor | None, dmean: Tensor | None, dvar: Tensor | None, fusion: str, sums: bool,
              engine: str) -> tuple[Tensor, Tensor]:  # fmt: skip
    how = Fusion.unpack(fusion)
    if engine != "triton":
        g = channels_last(ref.gradient(dy, y, mean, dmean, dvar, how))
        g = g.clone() if g is dy else g
        return g, ref.wide(g).sum((0, 2, 3)) if sums else _empty(y)
    from fastgan.kernels.conv_moments import form_gradient

    g, total = form_gradient(dy, y, mean, dmean, dvar, act_out=how.act_out, slope_out=how.slope_out, groups=how.groups, sums=sums)
    return g, _empty(y) if total is None else total


@_gradient.register_fake
def _(dy, y, mean, dmean, dvar, fusion, sums, engine):  # type: ignore[no-untyped-def]
    return empty_nhwc(*y.shape, y.dtype, y.device), y.new_empty((y.shape[1],) if sums else (0,), dtype=accumulator(y))


@torch.library.custom_op("fastgan::conv_moments_dgrad", mutates_args=())
def _dgrad(dy: Tensor, w: Tensor, x: Tensor, s: Tensor | None, t: Tensor | None, scale: Tensor | None, y: Tensor | None, mean: Tensor | None,
           dmean: Tensor | None, dvar: Tensor | None, spec: Sequence[int], fusion: str,
           engine: str) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dy is g itself where y is None; else g is formed on load from (dy, y) and the gradients of the moments."""
    form, how = ConvSpec.unpack(spec), Fusion.unpack(fusion)
    if engine != "triton":
        g = dy if y is None else ref.gradient(dy, y, mean, dmean, dvar, how)
        dx, ds, dt = ref.conv_dgrad(g, w, x, s, t, scale, form, how)
        return channels_last(dx), _empty(x) if ds is None else ds, _empty(x) if dt is None else dt
    from fastgan.kernels.conv_dgrad import conv_dgrad

    a, b = (None, None) if y is None or mean is None or dmean is None or dvar is None else _coefficients(y, mean, dmean, dvar)
    dx, sums = conv_dgrad(dy, w, form, (x.shape[2], x.shape[3]), how, y=y, a=a, b=b, scale=scale, x=x, s=s, t=t)
    if sums is None or s is None:
        return dx, _empty(x), _empty(x)
    ds, dt = (sums.sum(1) if s.numel() == sums.shape[2] else sums).unbind(0)
    return dx, ds.reshape(s.shape).clone(), dt.reshape(s.shape).clone()


@_dgrad.register_fake
def _(dy, w, x, s, t, scale, y, mean, dmean, dvar, spec, fusion, engine):  # type: ignore[no-untyped-def]
    ds, dt = (x.new_empty((0,) if s is None else s.shape, dtype=accumulator(x)) for _ in range(2))
    return empty_nhwc(*x.shape, x.dtype, x.device), ds, dt


@torch.library.custom_op("fastgan::conv_moments_wgrad", mutates_args=())
def _wgrad(x: Tensor, dy: Tensor, s: Tensor | None, t: Tensor | None, y: Tensor | None, mean: Tensor | None, dmean: Tensor | None,
           dvar: Tensor | None, spec: Sequence[int], fusion: str, engine: str) -> Tensor:  # fmt: skip
    """dw before any 1/sigma, fp32."""
    form, how = ConvSpec.unpack(spec), Fusion.unpack(fusion)
    if engine != "triton":
        g = dy if y is None else ref.gradient(dy, y, mean, dmean, dvar, how)
        return channels_last(ref.conv_wgrad(x, g, s, t, form, how))
    from fastgan.kernels.conv_wgrad import conv_wgrad

    a, b = (None, None) if y is None or mean is None or dmean is None or dvar is None else _coefficients(y, mean, dmean, dvar)
    return conv_wgrad(x, dy, form, how, s=s, t=t, y=y, a=a, b=b)


@_wgrad.register_fake
def _(x, dy, s, t, y, mean, dmean, dvar, spec, fusion, engine):  # type: ignore[no-untyped-def]
    return empty_nhwc(*weight_shape(ConvSpec.unpack(spec), x.shape[1], dy.shape[1]), accumulator(x), x.device)


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, w, s, t, bias, scale, residual, spec, fusion, moments, g_on_load, engine = inputs
    y, mean, _ = output
    # y is kept only where g needs it
    kept = y if moments or Fusion.unpack(fusion).act_out != "identity" else None
    ctx.save_for_backward(x, w, s, t, bias, scale, residual if ctx.needs_input_grad[6] else None, kept, mean if moments else None)
    ctx.rest = spec, fusion, moments, g_on_load, engine
    ctx.set_materialize_grads(False)


def _forward_backward(ctx: Any, dy: Tensor | None, dmean: Tensor | None, dvar: Tensor | None) -> tuple[Any, ...]:
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
        linear = RegisteredLinear(how.precision, engine) if engine == "triton" else ref.TORCH
        y_like = dy.to(x.dtype) if y is None else y
        grads = ref.backward(tuple(needs), dy, dmean if used else None, dvar if used else None, x, w, s, t, bias, scale, residual, y_like, mean,
                             form, how, linear)  # fmt: skip
        return (*grads, *(None,) * 5)
    if used:
        dmean, dvar = (torch.zeros_like(mean) if v is None else v for v in (dmean, dvar))
    else:
        dmean = dvar = mean = None
    g, total, on_load = dy, None, (None,) * 4
    if used or how.act_out != "identity":
        if g_on_load and not needs[4] and not needs[6]:
            on_load = y, mean, dmean, dvar
        else:
            g, total = _gradient(dy, y, mean, dmean, dvar, fusion, needs[4], engine)
    dx = ds = dt = dw = dscale = dbias = None
    if needs[0] or needs[2] or needs[3]:
        dx, ds, dt = _dgrad(g, w, x, s, t, scale, *on_load, spec, fusion, engine)
    if needs[1] or needs[5]:
        raw = _wgrad(x, g, s, t, *on_load, spec, fusion, engine)
        dscale = (raw * w.to(x.dtype)).sum().reshape(scale.shape).to(scale.dtype) if needs[5] else None
        dw = (raw if scale is None else raw * scale).to(w.dtype) if needs[1] else None
    if needs[4]:
        dbias = (ref.wide(g).sum((0, 2, 3)) if total is None else total).to(bias.dtype)
    dresidual = g.to(residual.dtype) if needs[6] else None
    return dx, dw, ds if needs[2] else None, dt if needs[3] else None, dbias, dscale, dresidual, *(None,) * 5


_forward.register_autograd(_forward_backward, setup_context=_save_forward)


def _differentiate(formula: Any, inputs: tuple[Tensor | None, ...], grads: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """Gradients of formula(*inputs) by autograd itself; again differentiable where the caller asks for a graph."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        wanted = [v is not None and v.requires_grad for v in inputs]
        # a view apart from the graph above it: inputs may depend on one another
        own = [v if v is None or not want else (v.view_as(v) if again else v.detach().requires_grad_()) for v, want in zip(inputs, wanted)]
        pairs = [(out, grad) for out, grad in zip(formula(*own), grads) if out is not None and grad is not None and out.requires_grad]
        leaves = [v for v, want in zip(own, wanted) if want and v is not None]
        if not pairs or not leaves:
            return [None] * len(inputs)
        found = iter(torch.autograd.grad([o for o, _ in pairs], leaves, [g.to(o.dtype) for o, g in pairs], create_graph=again, allow_unused=True))
    return [next(found) if want else None for want in wanted]


def _save_all(tensors: int) -> Any:
    def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.rest = inputs[tensors:]
        ctx.set_materialize_grads(False)

    return save


def _linear(how: Fusion, engine: str) -> ref.Linear:
    return RegisteredLinear(how.precision, engine) if engine == "triton" else ref.TORCH


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


def fused_convolution(x: Tensor, w: Tensor, spec: ConvSpec, fusion: Fusion, *, s: Tensor | None = None, t: Tensor | None = None,
                      bias: Tensor | None = None, scale: Tensor | None = None, residual: Tensor | None = None) -> Tensor:  # fmt: skip
    """y alone, by the Triton engine."""
    return _forward(x, w, s, t, bias, scale, residual, spec.pack(), fusion.pack(), False, False, "triton")[0]


def _unsupported(engine: str, dtype: torch.dtype, *facts: Any) -> str | None:
    return unsupported(dtype, *facts) if engine == "triton" else None


# cuDNN's convolution with passes of our own first: the fused engine is taken where a table measured it faster
_choose = {name: dispatch.Dispatcher(name, ("cudnn", "triton", "reference"), _unsupported) for name in ("conv_moments", "conv_transpose_moments")}


def fused(name: str, x: Tensor, w: Tensor, spec: ConvSpec, fusion: Fusion, s: Tensor | None = None, t: Tensor | None = None,
          bias: Tensor | None = None, scale: Tensor | None = None, residual: Tensor | None = None, moments: bool = True,
          g_on_load: bool = False, impl: str = "auto") -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """The fused convolution in full: what conv_moments and the fused containers call. mean and var are None without `moments`."""
    if (s is None) != (t is None):
        raise FastganError(f"{name} takes scale_in and shift_in together or neither")
    if x.shape[0] % fusion.groups:
        raise FastganError(f"{name}: {x.shape[0]} images do not divide into {fusion.groups} groups")
    ci, co = spec.weight_channels(w.shape)
    for vector in (s, t):
        if vector is not None and vector.numel() not in (ci, fusion.groups * ci):
            raise FastganError(f"{name}: scale_in and shift_in need [{ci}] or [{fusion.groups}, {ci}], got {tuple(vector.shape)}")
    x = cast(x)
    shape = ("rows", x.shape[0] * x.shape[2] * x.shape[3]), ("ci", ci), ("co", co), ("k", spec.kernel[0]), ("stride", spec.stride[0])
    engine = _choose[name](impl, x, fusion.act_out, fusion.slope_out, shape=shape)
    if engine == "reference":
        return ref.conv_forward(x, w, s, t, bias, scale, residual, spec, fusion, moments)
    if engine == "cudnn":
        return _by_passes(x, w, s, t, bias, scale, residual, spec, fusion, moments)
    y, mean, var = _forward(x, w, s, t, bias, scale, residual, spec.pack(), fusion.pack(), moments, g_on_load, "triton")
    return (y, mean, var) if moments else (y, None, None)


def _by_passes(x: Tensor, w: Tensor, s: Tensor | None, t: Tensor | None, bias: Tensor | None, scale: Tensor | None, residual: Tensor | None,
               spec: ConvSpec, fusion: Fusion, moments: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """The same by PyTorch's convolution and the normalisation passes of ops.norm."""
    if s is not None or fusion.act_in != "identity":
        x = norm.affine_act(x, s, t, activation=fusion.act_in, slope=fusion.slope_in)
    y = ref.conv_forward(x, w, None, None, bias, scale, residual, spec, replace(fusion, act_in="identity"), False)[0]
    return (y, *(norm.moments(y, fusion.groups) if moments else (None, None)))


def _three(result: tuple[Tensor, Tensor | None, Tensor | None]) -> tuple[Tensor, Tensor, Tensor]:
    y, mean, var = result
    assert mean is not None
    assert var is not None
    return y, mean, var


def conv_moments(input: Tensor, weight: Tensor, scale_in: Tensor | None = None, shift_in: Tensor | None = None, *, bias: Tensor | None = None,
                 stride: int | Sequence[int] = 1, padding: int | Sequence[int] = 0, act_in: str = "identity", slope_in: float = 0.01,
                 scale: Tensor | None = None, residual: Tensor | None = None, groups: int = 1, g_on_load: bool = False,
                 impl: str = "auto") -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y = conv2d(act_in(input*scale_in + shift_in), weight)*scale + bias + residual with its moments: (y, mean, var).

    input [N,CI,H,W]; weight [CO,CI,KH,KW]; scale_in, shift_in fp32 [CI] or [groups,CI]; y [N,CO,OH,OW] in input's type; mean and biased
    var fp32 [groups,CO] of y as stored, over each run of N/groups images. All differentiable to any order. g_on_load: let dgrad and
    wgrad form the gradient of y themselves instead of writing it once. Raises FastganError for shapes that do not fit and an
    engine that cannot run.
    """
    spec = ConvSpec(False, (weight.shape[2], weight.shape[3]), pair(stride), pair(padding))
    fusion = Fusion(act_in, slope_in, groups=groups, precision=precision_of(input))
    return _three(fused("conv_moments", input, weight, spec, fusion, scale_in, shift_in, bias, scale, residual, True, g_on_load, impl))


def conv_transpose_moments(input: Tensor, weight: Tensor, scale_in: Tensor | None = None, shift_in: Tensor | None = None, *,
                           bias: Tensor | None = None, stride: int | Sequence[int] = 1, padding: int | Sequence[int] = 0,
                           output_padding: int | Sequence[int] = 0, act_in: str = "identity", slope_in: float = 0.01,
                           scale: Tensor | None = None, residual: Tensor | None = None, groups: int = 1, g_on_load: bool = False,
                           impl: str = "auto") -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """conv_moments for a transposed convolution: weight [CI,CO,KH,KW], otherwise the same."""
    spec = ConvSpec(True, (weight.shape[2], weight.shape[3]), pair(stride), pair(padding), pair(output_padding))
    fusion = Fusion(act_in, slope_in, groups=groups, precision=precision_of(input))
    return _three(fused("conv_transpose_moments", input, weight, spec, fusion, scale_in, shift_in, bias, scale, residual, True, g_on_load, impl))
