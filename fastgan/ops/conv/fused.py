"""The fused convolution: normalisation comes in as (s, t), moments go out, and BatchNorm's backward
is the chain rule.

    z = act_in(x*s + t)
    y = act_out(conv(z, w)*scale + bias + residual)
    mean, var of y per channel (and group)

docs/internals/fused-convolution.md explains; conv_registered holds the operators, conv_reference
the formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels.activations import row
from fastgan.kernels.common import INTERPRET
from fastgan.kernels.conv.spec import ConvSpec, Fusion, pair
from fastgan.ops import dispatch, low_weights
from fastgan.ops.conv import reference as ref
from fastgan.ops.conv.fused_autograd import convolve
from fastgan.ops.norm import handed_on


def unsupported(dtype: torch.dtype, act_out: str, slope_out: float) -> str | None:
    """Why the Triton engine cannot run a call, or None."""
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"no kernel takes {dtype}"
    if INTERPRET and dtype == torch.bfloat16:
        return "Triton's interpreter multiplies bf16 bit patterns"
    activation = row(act_out)
    if activation.from_output is None:
        return (
            f"{act_out} cannot be fused behind a convolution: its derivative needs more than "
            "its output"
        )
    if activation.parameter is not None and slope_out <= 0:
        return f"{act_out} with such a slope does not keep the sign"
    return None


def cast_type(x: Tensor) -> torch.dtype:
    """The type a convolution takes x in: autocast as PyTorch's convolutions see it."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype in (
        torch.float32,
        torch.float16,
        torch.bfloat16,
    ):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def cast(x: Tensor) -> Tensor:
    """x under autocast; a registered operator has to ask."""
    return low_weights.cast(x, cast_type(x))


def precision_of(x: Tensor) -> str:
    """How fp32 products are formed: as PyTorch's switch for cuDNN convolutions says ("ieee" off a
    GPU)."""
    if x.dtype != torch.float32 or x.device.type != "cuda":
        return "ieee"
    try:
        return "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"
    except RuntimeError:  # the newer per-operator switches are in use
        return "ieee" if torch.backends.cudnn.conv.fp32_precision == "ieee" else "tf32"  # type: ignore[attr-defined]


def shape_of(x: Tensor, w: Tensor, spec: ConvSpec) -> tuple[tuple[str, int], ...]:
    """The named sizes under which tuning tables keep choices for a convolution: rows of x,
    channels, kernel, stride."""
    ci, co = spec.weight_channels(w.shape)
    rows = x.shape[0] * x.shape[2] * x.shape[3]
    return ("rows", rows), ("ci", ci), ("co", co), ("k", spec.kernel[0]), ("stride", spec.stride[0])


def fused_convolution(
    x: Tensor,
    w: Tensor,
    spec: ConvSpec,
    fusion: Fusion,
    *,
    s: Tensor | None = None,
    t: Tensor | None = None,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """y alone, by the Triton engine."""
    bias = None if bias is None else bias.contiguous()
    return convolve(
        x, w, s, t, bias, scale, residual, spec.pack(), fusion.pack(), False, False, "triton"
    )[0]


def _unsupported(engine: str, dtype: torch.dtype, *facts: Any) -> str | None:
    return unsupported(dtype, *facts) if engine == "triton" else None


# cuDNN's convolution with passes of our own first: the fused engine is taken where a table measured
# it faster
_choose = {
    name: dispatch.Dispatcher(name, ("cudnn", "triton", "reference"), _unsupported)
    for name in ("conv_moments", "conv_transpose_moments")
}


def fused(
    name: str,
    x: Tensor,
    w: Tensor,
    spec: ConvSpec,
    fusion: Fusion,
    s: Tensor | None = None,
    t: Tensor | None = None,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    residual: Tensor | None = None,
    moments: bool = True,
    g_on_load: bool = False,
    impl: str = "auto",
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The fused convolution in full: what conv_moments and the fused containers call. mean and var
    are None without `moments`."""
    if (s is None) != (t is None):
        raise FastganError(f"{name} takes scale_in and shift_in together or neither")
    if x.shape[0] % fusion.groups:
        raise FastganError(f"{name}: {x.shape[0]} images do not divide into {fusion.groups} groups")
    ci = spec.weight_channels(w.shape)[0]
    for vector in (s, t):
        if vector is not None and vector.numel() not in (ci, fusion.groups * ci):
            raise FastganError(
                f"{name}: scale_in and shift_in need [{ci}] or [{fusion.groups}, {ci}], got "
                f"{tuple(vector.shape)}"
            )
    x = cast(x)
    # halves of one tensor, as conditional norms are often written, are no vectors that a kernel can
    # walk
    s, t, bias = (v if v is None else v.contiguous() for v in (s, t, bias))
    shape = shape_of(x, w, spec)
    straight = dispatch.pytorch_at_once(impl, x)
    engine = (
        "reference"
        if straight
        else _choose[name](impl, x, fusion.act_out, fusion.slope_out, shape=shape)
    )
    if engine == "reference":
        return ref.conv_forward(x, w, s, t, bias, scale, residual, spec, fusion, moments)
    if engine == "cudnn":
        return _by_passes(x, w, s, t, bias, scale, residual, spec, fusion, moments)
    y, mean, var = convolve(
        x, w, s, t, bias, scale, residual, spec.pack(), fusion.pack(), moments, g_on_load, engine
    )
    return (y, mean, var) if moments else (y, None, None)


def _by_passes(
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
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The same by PyTorch's convolution and the normalisation passes of ops.norm."""
    if s is not None or fusion.act_in != "identity":
        x = handed_on.affine_act(x, s, t, activation=fusion.act_in, slope=fusion.slope_in)
    y = ref.conv_forward(
        x, w, None, None, bias, scale, residual, spec, replace(fusion, act_in="identity"), False
    )[0]
    return (y, *(handed_on.moments(y, fusion.groups) if moments else (None, None)))


def _three(result: tuple[Tensor, Tensor | None, Tensor | None]) -> tuple[Tensor, Tensor, Tensor]:
    y, mean, var = result
    assert mean is not None
    assert var is not None
    return y, mean, var


def conv_moments(
    input: Tensor,
    weight: Tensor,
    scale_in: Tensor | None = None,
    shift_in: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    act_in: str = "identity",
    slope_in: float = 0.01,
    scale: Tensor | None = None,
    residual: Tensor | None = None,
    groups: int = 1,
    g_on_load: bool = False,
    impl: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """y = conv2d(act_in(input*scale_in + shift_in), weight)*scale + bias + residual with its
    moments: (y, mean, var).

    input [N,CI,H,W]; weight [CO,CI,KH,KW]; scale_in, shift_in fp32 [CI] or [groups,CI]; y
    [N,CO,OH,OW] in input's type; mean and biased var fp32 [groups,CO] of y as stored, over each run
    of N/groups images. All differentiable to any order. g_on_load: let dgrad and wgrad form the
    gradient of y themselves instead of writing it once. Raises FastganError for shapes that do not
    fit and an engine that cannot run.
    """
    spec = ConvSpec(False, (weight.shape[2], weight.shape[3]), pair(stride), pair(padding))
    fusion = Fusion(act_in, slope_in, groups=groups, precision=precision_of(input))
    return _three(
        fused(
            "conv_moments",
            input,
            weight,
            spec,
            fusion,
            scale_in,
            shift_in,
            bias,
            scale,
            residual,
            True,
            g_on_load,
            impl,
        )
    )


def conv_transpose_moments(
    input: Tensor,
    weight: Tensor,
    scale_in: Tensor | None = None,
    shift_in: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    act_in: str = "identity",
    slope_in: float = 0.01,
    scale: Tensor | None = None,
    residual: Tensor | None = None,
    groups: int = 1,
    g_on_load: bool = False,
    impl: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """conv_moments for a transposed convolution: weight [CI,CO,KH,KW], otherwise the same."""
    spec = ConvSpec(
        True, (weight.shape[2], weight.shape[3]), pair(stride), pair(padding), pair(output_padding)
    )
    fusion = Fusion(act_in, slope_in, groups=groups, precision=precision_of(input))
    return _three(
        fused(
            "conv_transpose_moments",
            input,
            weight,
            spec,
            fusion,
            scale_in,
            shift_in,
            bias,
            scale,
            residual,
            True,
            g_on_load,
            impl,
        )
    )
