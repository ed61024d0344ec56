"""What the proofs of the convolutions share: geometries, references, makers of cases, costs, and
how a launch becomes what the compiler would be asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.kernels.activations import activation
from fastgan.kernels.common import DTYPE_NAMES
from fastgan.kernels.conv.spec import ConvSpec
from fastgan.ops.conv.autograd import weight_shape
from fastgan.verify.registry import Bound, Case, Kwargs, Outputs, Variant, rounded

T4S2 = ConvSpec(True, (4, 4), (2, 2), (1, 1))
C4S2 = ConvSpec(False, (4, 4), (2, 2), (1, 1))
C3S1 = ConvSpec(False, (3, 3), (1, 1), (1, 1))
C3S2 = ConvSpec(False, (3, 3), (2, 2), (1, 1))
T3S2 = ConvSpec(True, (3, 3), (2, 2), (1, 1), (1, 1))
C1S1 = ConvSpec(False, (1, 1))
END = ConvSpec(False, (4, 4))
START = ConvSpec(True, (4, 4))
PATCH = ConvSpec(False, (4, 4), (1, 1), (1, 1))
FIRST = ("forward", "backward")


def _convolve(x: Tensor, w: Tensor, spec: dict[str, Any], transposed: bool) -> Tensor:
    return F.conv_transpose2d(x, w, None, **spec) if transposed else F.conv2d(x, w, None, **spec)


def fused_reference(transposed: bool) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    def call(
        *,
        input: Tensor,
        weight: Tensor,
        scale_in: Tensor | None = None,
        shift_in: Tensor | None = None,
        bias: Tensor | None = None,
        act_in: str = "identity",
        slope_in: float = 0.01,
        scale: Tensor | None = None,
        residual: Tensor | None = None,
        groups: int = 1,
        g_on_load: bool = False,
        round_to: torch.dtype | None = None,
        **spec: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The kernel rounds w, z and y (so g) to the activations' type; float64 does so at the same
        places."""
        n, c = input.shape[:2]
        wide = torch.float64 if input.dtype == torch.float64 else torch.float32
        p = input.to(wide)
        if scale_in is not None and shift_in is not None:
            rows = [v.reshape(-1, c) for v in (scale_in, shift_in)]
            s, t = (
                v.expand(n // v.shape[0] * v.shape[0], c)
                if v.shape[0] == 1
                else v.repeat_interleave(n // v.shape[0], 0)
                for v in rows
            )
            p = p * s[:, :, None, None] + t[:, :, None, None]
        z = rounded(activation(p, act_in, slope_in), round_to).to(input.dtype)
        y = _convolve(z, rounded(weight, round_to).to(input.dtype), spec, transposed).to(wide)
        y = y if scale is None else y * scale
        y = y if bias is None else y + bias[:, None, None]
        y = y if residual is None else y + residual
        y = rounded(y, round_to, round_to).to(input.dtype)
        return y, *_moments(y.to(wide), groups)

    return call


def _moments(y: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    n, c = y.shape[:2]
    var, mean = torch.var_mean(y.reshape(groups, n // groups, c, -1), (1, 3), correction=0)
    return mean, var


MOMENTS: dict[str, Callable[[Kwargs, Outputs], Tensor]] = {
    "mean": lambda kwargs, outputs: _moments(outputs["y"], kwargs["groups"])[0],
    "var": lambda kwargs, outputs: _moments(outputs["y"], kwargs["groups"])[1],
}
"""The moments are those of y as stored (registry.Op.derived): of another rounding's y they would
differ by its luck."""

FEW_SUMS = Bound(
    "one number a channel, a sum of terms that cancel: with four channels PyTorch's own error is a "
    "single draw, which another order of the convolution's sums doubles now and then",
    ratio=4.0,
)

MERGED = Bound(
    "a tile's mean is rounded to fp32 before tiles are merged, which costs eps/2 |mean|/std of its "
    "deviation: 5e-7 where the "
    "mean is 100 standard deviations; PyTorch's CPU statistics, 3e-8 off, are float64",
    ratio=8.0,
)


def plain_reference(transposed: bool) -> Callable[..., Tensor]:
    def call(
        *,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        scale: Tensor | None = None,
        act: str = "identity",
        slope: float = 0.01,
        round_to: torch.dtype | None = None,
        **spec: Any,
    ) -> Tensor:
        y = _convolve(input, weight, spec, transposed)
        y = y if scale is None else y * scale.to(y.dtype)
        y = y if bias is None else y + bias[:, None, None]
        if act == "identity":
            return y
        # g = dy * act'(y) is stored before dgrad and wgrad read it
        return activation(rounded(y, None, round_to), act, slope)

    return lambda activation="identity", **kwargs: call(act=activation, **kwargs)


def _options(spec: ConvSpec) -> Kwargs:
    options: Kwargs = {"stride": spec.stride, "padding": spec.padding}
    return options | {"output_padding": spec.output_padding} if spec.transposed else options


def _draw(
    spec: ConvSpec,
    shape: Sequence[int],
    co: int,
    dtype: torch.dtype,
    device: torch.device,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    x = (
        torch.randn(tuple(shape), generator=generator)
        .to(device, dtype)
        .contiguous(memory_format=torch.channels_last)
    )
    size = weight_shape(spec, shape[1], co)
    fan = math.sqrt(
        shape[1]
        * spec.kernel[0]
        * spec.kernel[1]
        / (spec.stride[0] * spec.stride[1] if spec.transposed else 1)
    )
    return x, (torch.randn(size, generator=generator) / fan).to(device).contiguous(
        memory_format=torch.channels_last
    )


def fused_case(
    name: str,
    spec: ConvSpec,
    shape: tuple[int, int, int, int],
    co: int,
    *tags: str,
    act: str | None = None,
    groups: int = 1,
    extras: bool = False,
    offset: float = 0.0,
    on_load: bool = False,
    directions: tuple[str, ...] | None = None,
    dtypes: tuple[str, ...] | None = None,
) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        x, w = _draw(spec, shape, co, dtype, device, generator)
        rand = lambda *size: torch.randn(*size, generator=generator).to(device)
        kwargs: Kwargs = {
            "input": x,
            "weight": w,
            "groups": groups,
            "g_on_load": on_load,
            **_options(spec),
        }
        if act is not None:
            rows = (groups, shape[1]) if groups > 1 else (shape[1],)
            kwargs |= {
                "scale_in": rand(*rows).abs() + 0.5,
                "shift_in": rand(*rows),
                "act_in": act,
                "slope_in": 0.2,
            }
        if extras:
            size = (shape[0], co, *spec.output_size(*shape[2:]))
            kwargs |= {
                "bias": rand(co) + offset,
                "scale": torch.tensor(0.7, device=device),
                "residual": rand(*size).to(dtype),
            }
        return kwargs

    return Case(name, make, set(tags), dtypes=dtypes, directions=directions)


def plain_case(
    name: str,
    spec: ConvSpec,
    shape: tuple[int, int, int, int],
    co: int,
    *tags: str,
    act: str = "identity",
    extras: bool = False,
    directions: tuple[str, ...] | None = ("forward", "backward"),
    dtypes: tuple[str, ...] | None = None,
) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        x, w = _draw(spec, shape, co, dtype, device, generator)
        kwargs: Kwargs = {
            "input": x,
            "weight": w.to(dtype),
            "activation": act,
            "slope": 0.2,
            **_options(spec),
        }
        if extras:
            kwargs |= {
                "bias": torch.randn(co, generator=generator).to(device, dtype),
                "scale": torch.tensor(0.7, device=device),
            }
        return kwargs

    product = shape[2:] == (1, 1) if spec.transposed else shape[2:] == spec.kernel
    engines = None if product and spec.padding == (0, 0) else ("cudnn", "triton", "reference")
    return Case(name, make, set(tags), dtypes=dtypes, directions=directions, engines=engines)


def _spec_of(kwargs: Kwargs, transposed: bool) -> ConvSpec:
    kernel = tuple(kwargs["weight"].shape[2:])
    extra = kwargs.get("output_padding", (0, 0))
    return ConvSpec(transposed, (kernel[0], kernel[1]), kwargs["stride"], kwargs["padding"], extra)


def cost(
    transposed: bool, fused: bool
) -> tuple[Callable[[Kwargs, str], int], Callable[[Kwargs, str], int]]:
    def flops(kwargs: Kwargs, direction: str) -> int:
        x, spec = kwargs["input"], _spec_of(kwargs, transposed)
        ci, co = spec.weight_channels(kwargs["weight"].shape)
        return spec.flops(x.shape[0], x.shape[2], x.shape[3], ci, co) * {
            "forward": 1,
            "backward": 2,
        }.get(direction, 0)

    def moved(kwargs: Kwargs, direction: str) -> int:
        x, spec = kwargs["input"], _spec_of(kwargs, transposed)
        co = spec.weight_channels(kwargs["weight"].shape)[1]
        height, width = spec.output_size(x.shape[2], x.shape[3])
        y = x.shape[0] * co * height * width * x.element_size()
        w = kwargs["weight"].nbytes
        # backward: dy (and y, for g) and x are read, dx is written; once each for an ideal kernel
        return {
            "forward": x.nbytes + y + w,
            "backward": 2 * x.nbytes + (2 if fused else 1) * y + 2 * w,
        }.get(direction, 0)

    return moved, flops


class Recorder:
    """Stands in for a kernel and turns one launch on shapeless tensors into what the compiler would
    be asked for."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.launch: Any = None

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*args: Any, **meta: Any) -> None:
            self.launch = args, meta

        return launch

    def variant(
        self, name: str, tuned: str, configs: Sequence[dict[str, Any]], matrix: bool
    ) -> Variant:
        assert self.launch is not None
        args, meta = self.launch
        named = dict(zip(self.kernel.arg_names, args)) | meta
        plain = {p.name for p in self.kernel.params if p.do_not_specialize}
        fixed = {p.name for p in self.kernel.params if p.is_constexpr}
        tiles = ("BLOCK_M", "BLOCK_N", "BLOCK_K", "ORDER", "num_warps", "num_stages", "maxnreg")
        signature, constants, aligned = {}, {}, []
        for key, value in named.items():
            if key in tiles:
                continue
            if isinstance(value, Tensor):
                signature[key] = f"*{DTYPE_NAMES[value.dtype]}"
                aligned.append(key)
            elif key in fixed or value is None or (value == 1 and key not in plain):
                constants[key] = value
            else:
                signature[key] = "i32"
                if key not in plain and value % 16 == 0:
                    aligned.append(key)
        first = {key: meta[key] for key in tiles if key in meta}
        return Variant(
            name,
            self.kernel,
            signature,
            constants,
            [first, *(c for c in configs if c != first)],
            aligned,
            matrix,
            tuned,
        )
