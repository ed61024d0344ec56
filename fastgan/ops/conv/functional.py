"""conv2d and conv_transpose2d: torch.nn.functional's, with an engine behind them and 1/sigma and an
activation in the same call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.kernels.activations import activation as activate
from fastgan.kernels.activations import row
from fastgan.kernels.conv.spec import ConvSpec, Fusion, Pair, pair
from fastgan.ops import dispatch, low_weights
from fastgan.ops.conv import directions, gemm
from fastgan.ops.conv.autograd import no_weight_gradients, weight_gradients
from fastgan.ops.conv.fused import cast, fused_convolution, precision_of, shape_of, unsupported

__all__ = ["conv2d", "conv_transpose2d", "no_weight_gradients"]

Ints = int | Sequence[int]


class _Switchable(torch.autograd.Function):
    """ATen's convolution behind a node that reads no_weight_gradients() in backward; differentiable
    to any order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.rest, ctx.bias = rest, None if bias is None else list(bias.shape)
        return torch.ops.aten.convolution(x, w, bias, *rest)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, w = ctx.saved_tensors
        mask = [
            ctx.needs_input_grad[0],
            ctx.needs_input_grad[1] and weight_gradients(),
            ctx.needs_input_grad[2],
        ]
        grads = (
            torch.ops.aten.convolution_backward(g, x, w, ctx.bias, *ctx.rest, mask)
            if any(mask)
            else (None,) * 3
        )
        return (
            *(grad if wanted else None for grad, wanted in zip(grads, mask)),
            *(None for _ in ctx.rest),
        )


def _aten(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    transposed: bool,
    extra: Pair,
    groups: int,
) -> Tensor:
    return _Switchable.apply(x, w, bias, stride, padding, dilation, transposed, extra, groups)


def _unsupported(
    engine: str, dtype: torch.dtype, dense: bool, product: bool, act: str, slope: float
) -> str | None:
    if engine == "gemm":
        return None if product else "only a kernel as large as its input is one matrix product"
    if engine != "triton":
        return None
    if not dense:
        return "the kernel takes 4-D input, dilation 1, groups 1 and numeric padding"
    return unsupported(dtype, act, slope)


# One matrix product is 2 to 5 times faster than cuDNN's convolution of the same layer
# (docs/performance.md); cuDNN before Triton, which is taken where a tuning table measured it
# faster.
_choose = {
    name: dispatch.Dispatcher(name, ("gemm", "cudnn", "triton", "reference"), _unsupported)
    for name in ("conv2d", "conv_transpose2d")
}


def _check(act: str, impl: str) -> None:
    row(act)


def _scaled(w: Tensor, scale: Tensor | None) -> Tensor:
    return w if scale is None else w * scale.to(w.dtype)


def _read(w: Tensor, scale: Tensor | None) -> Tensor:
    """The weight for a layer that takes a view of it, which hides whose it is."""
    return low_weights.read(w) if scale is None else _scaled(w, scale)


def _by_directions(
    op: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    spec: ConvSpec,
    engine: str,
) -> Tensor | None:
    """The convolution with an engine for each direction, where a table measured that faster."""
    chosen = directions.engines(op, x, shape_of(x, weight, spec)) if engine == "cudnn" else None
    if chosen is None:
        return None
    w = _read(weight, scale)
    return directions.convolution(x, w, bias, spec, precision_of(x), chosen)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    scale: Tensor | None = None,
    activation: str = "identity",
    slope: float = 0.01,
    switchable: bool = False,
    impl: str = "auto",
) -> Tensor:
    """act(F.conv2d(input, weight)*scale + bias) for every argument torch.nn.functional.conv2d
    accepts.

    scale: 0-dim or 1-element fp32 tensor (1/sigma of a spectral norm), differentiable; the stored
        weight is not rewritten.
    activation, slope: a name of kernels.activations.ACTIVATIONS and leaky_relu's slope. switchable:
    let the ATen engine honour no_weight_gradients() too (some 20 us a call in eager). impl: "auto",
    "reference", "cudnn", "gemm", "triton"; FastganError where it cannot run. Triton: result NHWC in
    memory, weight cast to the input's type inside.
    """
    if activation != "identity":
        _check(activation, impl)
    if not dispatch.pytorch_at_once(impl, input):
        numeric = not isinstance(padding, str) and not isinstance(stride, str)
        dense = (
            numeric
            and input.dim() == 4
            and weight.dim() == 4
            and groups == 1
            and pair(dilation) == (1, 1)
        )
        spec = None
        if dense:
            kernel = (weight.shape[2], weight.shape[3])
            spec = ConvSpec(False, kernel, pair(stride), pair(padding))  # type: ignore[arg-type]
        x = cast(input)
        shape = None if spec is None else shape_of(input, weight, spec)
        product = spec is not None and gemm.is_product(input, spec)
        engine = _choose["conv2d"](impl, x, dense, product, activation, slope, shape=shape)
        if engine == "gemm":
            y = gemm.convolution(x, _read(weight, scale), bias, False)
            return y if activation == "identity" else activate(y, activation, slope)
        if engine == "triton" and spec is not None:
            return fused_convolution(
                x,
                weight,
                spec,
                Fusion(act_out=activation, slope_out=slope, precision=precision_of(x)),
                bias=bias,
                scale=scale,
            )
        if impl == "auto" and spec is not None:
            mixed = _by_directions("conv2d", x, weight, bias, scale, spec, engine)
            if mixed is not None:
                return mixed if activation == "identity" else activate(mixed, activation, slope)
    if switchable and not isinstance(padding, str) and input.dim() == 4:
        x, w, b = cast(input), cast(_scaled(weight, scale)), None if bias is None else cast(bias)
        y = _aten(x, w, b, pair(stride), pair(padding), pair(dilation), False, (0, 0), groups)
    else:
        y = F.conv2d(input, _scaled(weight, scale), bias, stride, padding, dilation, groups)  # type: ignore[arg-type]
    return y if activation == "identity" else activate(y, activation, slope)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    scale: Tensor | None = None,
    activation: str = "identity",
    slope: float = 0.01,
    switchable: bool = False,
    impl: str = "auto",
) -> Tensor:
    """act(F.conv_transpose2d(input, weight)*scale + bias) for every argument
    torch.nn.functional.conv_transpose2d accepts.

    Extras as in conv2d. The Triton engine runs stride_h*stride_w dense phases: no multiplication by
    inserted zeros.
    """
    if activation != "identity":
        _check(activation, impl)
    if not dispatch.pytorch_at_once(impl, input):
        dense = input.dim() == 4 and weight.dim() == 4 and groups == 1 and pair(dilation) == (1, 1)
        spec = (
            ConvSpec(
                True,
                (weight.shape[2], weight.shape[3]),
                pair(stride),
                pair(padding),
                pair(output_padding),
            )
            if dense
            else None
        )
        x = cast(input)
        shape = None if spec is None else shape_of(input, weight, spec)
        product = spec is not None and gemm.is_product(input, spec)
        engine = _choose["conv_transpose2d"](
            impl, x, dense, product, activation, slope, shape=shape
        )
        if engine == "gemm":
            y = gemm.convolution(x, _read(weight, scale), bias, True)
            return y if activation == "identity" else activate(y, activation, slope)
        if engine == "triton" and spec is not None:
            return fused_convolution(
                x,
                weight,
                spec,
                Fusion(act_out=activation, slope_out=slope, precision=precision_of(x)),
                bias=bias,
                scale=scale,
            )
        if impl == "auto" and spec is not None:
            mixed = _by_directions("conv_transpose2d", x, weight, bias, scale, spec, engine)
            if mixed is not None:
                return mixed if activation == "identity" else activate(mixed, activation, slope)
    if switchable and input.dim() == 4:
        x, w, b = cast(input), cast(_scaled(weight, scale)), None if bias is None else cast(bias)
        y = _aten(
            x, w, b, pair(stride), pair(padding), pair(dilation), True, pair(output_padding), groups
        )
    else:
        y = F.conv_transpose2d(
            input, _scaled(weight, scale), bias, stride, padding, output_padding, groups, dilation
        )
    return y if activation == "identity" else activate(y, activation, slope)
