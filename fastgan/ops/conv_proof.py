"""What `fastgan verify`, `--aot`, `bench` and `tune` know of the convolutions: references, cases, launches to compile, tiles
to try."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.kernels._common import DTYPE_NAMES, activation
from fastgan.kernels.conv_plan import empty_nhwc, tile
from fastgan.kernels.conv_spec import ConvSpec, Fusion
from fastgan.ops import conv, conv_fused
from fastgan.ops.conv_plain import weight_shape
from fastgan.ops.registry import Case, Kwargs, Op, Variant, register, rounded

T4S2 = ConvSpec(True, (4, 4), (2, 2), (1, 1))
C4S2 = ConvSpec(False, (4, 4), (2, 2), (1, 1))
C3S1 = ConvSpec(False, (3, 3), (1, 1), (1, 1))
C3S2 = ConvSpec(False, (3, 3), (2, 2), (1, 1))
T3S2 = ConvSpec(True, (3, 3), (2, 2), (1, 1), (1, 1))
C1S1 = ConvSpec(False, (1, 1))
END = ConvSpec(False, (4, 4))
START = ConvSpec(True, (4, 4))
PATCH = ConvSpec(False, (4, 4), (1, 1), (1, 1))


def _convolve(x: Tensor, w: Tensor, spec: dict[str, Any], transposed: bool) -> Tensor:
    return F.conv_transpose2d(x, w, None, **spec) if transposed else F.conv2d(x, w, None, **spec)


def _reference(transposed: bool) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
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
        """The kernel rounds w, z and y (so g) to the activations' type; float64 does so at the same places."""
        n, c = input.shape[:2]
        wide = torch.float64 if input.dtype == torch.float64 else torch.float32
        p = input.to(wide)
        if scale_in is not None and shift_in is not None:
            rows = [v.reshape(-1, c) for v in (scale_in, shift_in)]
            s, t = (
                v.expand(n // v.shape[0] * v.shape[0], c) if v.shape[0] == 1 else v.repeat_interleave(n // v.shape[0], 0)
                for v in rows
            )
            p = p * s[:, :, None, None] + t[:, :, None, None]
        z = rounded(activation(p, act_in, slope_in), round_to).to(input.dtype)
        y = _convolve(z, rounded(weight, round_to).to(input.dtype), spec, transposed).to(wide)
        y = y if scale is None else y * scale
        y = y if bias is None else y + bias[:, None, None]
        y = y if residual is None else y + residual
        y = rounded(y, round_to, round_to).to(input.dtype)
        var, mean = torch.var_mean(y.to(wide).reshape(groups, n // groups, y.shape[1], -1), (1, 3), correction=0)
        return y, mean, var

    return call


def _plain_reference(transposed: bool) -> Callable[..., Tensor]:
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
    spec: ConvSpec, shape: Sequence[int], co: int, dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    x = torch.randn(tuple(shape), generator=generator).to(device, dtype).contiguous(memory_format=torch.channels_last)
    size = weight_shape(spec, shape[1], co)
    fan = math.sqrt(shape[1] * spec.kernel[0] * spec.kernel[1] / (spec.stride[0] * spec.stride[1] if spec.transposed else 1))
    return x, (torch.randn(size, generator=generator) / fan).to(device).contiguous(memory_format=torch.channels_last)


def _fused(
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
        kwargs: Kwargs = {"input": x, "weight": w, "groups": groups, "g_on_load": on_load, **_options(spec)}
        if act is not None:
            rows = (groups, shape[1]) if groups > 1 else (shape[1],)
            kwargs |= {"scale_in": rand(*rows).abs() + 0.5, "shift_in": rand(*rows), "act_in": act, "slope_in": 0.2}
        if extras:
            size = (shape[0], co, *spec.output_size(*shape[2:]))
            kwargs |= {"bias": rand(co) + offset, "scale": torch.tensor(0.7, device=device), "residual": rand(*size).to(dtype)}
        return kwargs

    return Case(name, make, set(tags), dtypes=dtypes, directions=directions)


def _plain(
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
        kwargs: Kwargs = {"input": x, "weight": w.to(dtype), "activation": act, "slope": 0.2, **_options(spec)}
        if extras:
            kwargs |= {"bias": torch.randn(co, generator=generator).to(device, dtype), "scale": torch.tensor(0.7, device=device)}
        return kwargs

    return Case(name, make, set(tags), dtypes=dtypes, directions=directions)


def _spec_of(kwargs: Kwargs, transposed: bool) -> ConvSpec:
    kernel = tuple(kwargs["weight"].shape[2:])
    extra = kwargs.get("output_padding", (0, 0))
    return ConvSpec(transposed, (kernel[0], kernel[1]), kwargs["stride"], kwargs["padding"], extra)


def _cost(transposed: bool, fused: bool) -> tuple[Callable[[Kwargs, str], int], Callable[[Kwargs, str], int]]:
    def flops(kwargs: Kwargs, direction: str) -> int:
        x, spec = kwargs["input"], _spec_of(kwargs, transposed)
        ci, co = spec.weight_channels(kwargs["weight"].shape)
        return spec.flops(x.shape[0], x.shape[2], x.shape[3], ci, co) * {"forward": 1, "backward": 2}.get(direction, 0)

    def moved(kwargs: Kwargs, direction: str) -> int:
        x, spec = kwargs["input"], _spec_of(kwargs, transposed)
        co = spec.weight_channels(kwargs["weight"].shape)[1]
        height, width = spec.output_size(x.shape[2], x.shape[3])
        y = x.shape[0] * co * height * width * x.element_size()
        w = kwargs["weight"].nbytes
        # backward: dy (and y, for g) and x are read, dx is written; once each for an ideal kernel
        return {"forward": x.nbytes + y + w, "backward": 2 * x.nbytes + (2 if fused else 1) * y + 2 * w}.get(direction, 0)

    return moved, flops


# ---- launches to compile


class _Recorder:
    """Stands in for a kernel and turns one launch on shapeless tensors into what the compiler would be asked for."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.launch: Any = None

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*args: Any, **meta: Any) -> None:
            self.launch = args, meta

        return launch

    def variant(self, name: str, tuned: str, configs: Sequence[dict[str, Any]], matrix: bool) -> Variant:
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
            name, self.kernel, signature, constants, [first, *(c for c in configs if c != first)], aligned, matrix, tuned
        )


# 64x64x64 over taps spills on some targets
GATHER = [
    *(tile(128, 64, 64, 8, 3, order) for order in ("channels", "taps")),
    tile(64, 64, 64, 4, 3, "channels"),
    *(tile(64, 64, 32, 4, 4, order) for order in ("channels", "taps")),
]
GATHER_TRANSFORMED = [
    tile(128, 64, 64, 8, 2, "channels"),
    tile(128, 64, 64, 8, 2, "taps"),
    tile(64, 64, 64, 4, 2, "channels"),
    tile(64, 64, 32, 4, 3, "channels"),
]
WGRAD = [tile(64, 64, 64, 4, 3), tile(64, 64, 32, 4, 4), tile(128, 64, 64, 8, 3), tile(32, 64, 64, 4, 3)]
WGRAD_TRANSFORMED = [tile(64, 64, 64, 4, 2), tile(64, 64, 32, 4, 3), tile(128, 64, 64, 8, 2), tile(32, 64, 64, 4, 2)]
# only the tuner tries these: 128x128 spills on some targets
WIDE = [tile(128, 128, 64, 8, 3, order) for order in ("channels", "taps")]
CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "conv_forward": GATHER,
    "conv_forward_prologue": GATHER_TRANSFORMED,
    "conv_dgrad": GATHER,
    "conv_dgrad_two": GATHER_TRANSFORMED,
    "conv_wgrad": WGRAD,
    "conv_wgrad_z": WGRAD_TRANSFORMED,
    "conv_wgrad_g": WGRAD_TRANSFORMED,
    "conv_wgrad_z_g": WGRAD_TRANSFORMED,
}


def _record(
    kind: str, spec: ConvSpec, ci: int, co: int, size: int, dtype: torch.dtype, transforms: bool, precision: str, configs: bool
) -> Variant:
    from fastgan.kernels import conv_dgrad, conv_forward, conv_wgrad

    meta = torch.device("meta")
    out = spec.output_size(size, size)
    x, dy, y = (empty_nhwc(128, c, *s, dtype, meta) for c, s in ((ci, (size, size)), (co, out), (co, out)))
    w = empty_nhwc(*weight_shape(spec, ci, co), dtype, meta)
    vector = lambda c: torch.empty(c, device=meta)
    s: dict[str, Any] = {"s": vector(ci), "t": vector(ci)} if transforms else {}
    g: dict[str, Any] = {"y": y, "a": vector(co), "b": vector(co)} if transforms else {}
    how = Fusion("leaky_relu" if transforms else "identity", 0.2, precision=precision)
    module = {"forward": conv_forward, "dgrad": conv_dgrad, "wgrad": conv_wgrad}[kind]
    recorder = _Recorder(getattr(module, f"conv_{kind}_kernel"))
    with mock.patch.object(module, f"conv_{kind}_kernel", recorder):
        if kind == "forward":
            conv_forward.conv_forward(x, w, spec, how, moments=True, **s)
        elif kind == "dgrad":
            conv_dgrad.conv_dgrad(dy, w, spec, (size, size), how, x=x, **s, **g)
        else:
            conv_wgrad.conv_wgrad(x, dy, spec, how, **s, **g)
    tuned = {
        "forward": ("conv_forward", "conv_forward_prologue"),
        "dgrad": ("conv_dgrad", "conv_dgrad_two"),
        "wgrad": ("conv_wgrad", "conv_wgrad_z_g"),
    }[kind][transforms]
    type_name = "tf32" if precision == "tf32" else DTYPE_NAMES[dtype]
    way = "transposed" if spec.transposed else "conv"
    name = (
        f"{kind}{' transformed' if transforms else ''} {way} k{spec.kernel[0]}s{spec.stride[0]} {ci}-{co} at {size} {type_name}"
    )
    return recorder.variant(name, tuned, CANDIDATES[tuned] if configs else (), type_name != "fp32")


def _variants(transposed: bool) -> list[Variant]:
    bf16, fp16, fp32 = torch.bfloat16, torch.float16, torch.float32
    kinds = ("forward", "dgrad", "wgrad")
    if transposed:
        rows = [(kind, T4S2, 256, 128, 8, bf16, way, "ieee", True) for kind in kinds for way in (False, True)]
        rows += [(kind, T4S2, 64, 3, 32, bf16, False, "ieee", False) for kind in kinds]
        rows += [(kind, T4S2, 256, 128, 8, fp32, True, precision, False) for kind in kinds for precision in ("ieee", "tf32")]
        rows += [("dgrad", T4S2, 256, 128, 4, bf16, False, "ieee", False)]  # few pixels: the small tile
        rows += [("forward", START, 112, 512, 1, bf16, False, "ieee", False)]
    else:
        rows = [(kind, C4S2, 128, 256, 16, bf16, way, "ieee", False) for kind in kinds for way in (False, True)]
        rows += [(kind, C4S2, 3, 64, 64, bf16, False, "ieee", False) for kind in ("forward", "wgrad")]
        rows += [(kind, C3S1, 256, 256, 16, fp16, way, "ieee", False) for kind in kinds for way in (False, True)]
    return [_record(*row) for row in rows]


FIRST = ("forward", "backward")
ON_LOAD = ("fp32", "tf32", "bf16")  # fp16 rounds as bf16 does, and the interpreter has a budget
DOUBLE: Any = dict(directions=("double",), dtypes=("fp32",))

for transposed, fused in ((False, True), (True, True), (False, False), (True, False)):
    moved, flops = _cost(transposed, fused)
    make = _fused if fused else _plain
    # conv2d launches the same kernels as conv_moments: a few cases of its own prove the way there
    quick = {"quick", "full"} if fused else {"full"}
    act: Kwargs = {"act": "leaky_relu"}
    if transposed:
        cases = [
            make("k4s2", T4S2, (3, 20, 3, 5), 18, *quick, directions=FIRST, **act),
            make("start", START, (3, 12, 1, 1), 9, *quick, directions=FIRST),
            make("last", T4S2, (2, 17, 3, 4), 3, "quick", "full", directions=FIRST, extras=True),
            make("k3s2 odd", T3S2, (2, 15, 3, 2), 7, "full", directions=FIRST, **act),
            make("second order", T4S2, (1, 5, 2, 3), 3, "quick", "full", **DOUBLE),
            make("gradcheck", T4S2, (2, 2, 1, 2), 2, "gradcheck", act="tanh", extras=True),
            *(
                make(f"DCGAN-64 G {name} batch {n}", T4S2, (n, ci, side, side), co, "layer", directions=FIRST, act="relu")
                for n in (128, 1024)
                for name, ci, co, side in (("L2", 512, 256, 4), ("L3", 256, 128, 8), ("L4", 128, 64, 16))
            ),
            make("DCGAN-64 G L5", T4S2, (128, 64, 32, 32), 3, "layer", directions=FIRST),
            make("pix2pix-256 up", T4S2, (1, 1024, 8, 8), 512, "layer", directions=FIRST, act="relu"),
        ]
    else:
        cases = [
            make("k4s2", C4S2, (2, 18, 6, 10), 20, *quick, directions=FIRST, **act),
            make("k3s1", C3S1, (3, 15, 4, 5), 17, *quick, directions=FIRST, extras=True),
            make("first", C4S2, (2, 3, 8, 6), 18, "quick", "full", directions=FIRST),
            make("end", END, (3, 17, 4, 4), 1, *quick, directions=FIRST),
            make("k1", C1S1, (2, 33, 3, 5), 15, *quick, directions=FIRST, **act),
            make("k3s2 odd", C3S2, (1, 15, 7, 6), 9, "full", directions=FIRST, **act),
            make("k4s1", PATCH, (2, 17, 5, 6), 1, "full", directions=FIRST),
            make("second order", C4S2, (1, 3, 4, 6), 5, "quick", "full", **DOUBLE),
            make("gradcheck", C3S1, (2, 2, 3, 2), 2, "gradcheck", act="tanh", extras=True),
            *(
                make(f"DCGAN-64 D {name} batch {n}", C4S2, (n, ci, side, side), co, "layer", directions=FIRST, **act)
                for n in (128, 1024)
                for name, ci, co, side in (("L2", 64, 128, 32), ("L3", 128, 256, 16), ("L4", 256, 512, 8))
            ),
            make("DCGAN-64 D L1", C4S2, (128, 3, 64, 64), 64, "layer", directions=FIRST),
            make("SNGAN-CIFAR G 256x32x32", C3S1, (64, 256, 32, 32), 256, "layer", directions=FIRST, act="relu"),
            make("pix2pix-256 D", PATCH, (1, 256, 32, 32), 512, "layer", directions=FIRST, **act),
        ]
    if fused and not transposed:
        cases.append(_fused("beyond 2^31 elements", C1S1, (33000, 64, 32, 32), 3, "huge", act="relu", dtypes=("bf16",)))
    if fused:
        spec, shape, co = (T4S2, (4, 17, 3, 2), 15) if transposed else (C4S2, (4, 12, 6, 4), 17)
        cases += [
            _fused("groups", spec, shape, co, "quick", "full", act="relu", groups=2, directions=FIRST),
            _fused(
                "g on load",
                spec,
                shape,
                co,
                "quick",
                "full",
                act="relu",
                groups=2,
                on_load=True,
                directions=FIRST,
                dtypes=ON_LOAD,
            ),
            _fused(
                "large mean",
                spec,
                shape,
                co,
                "quick",
                "full",
                extras=True,
                offset=100.0,
                directions=("forward",),
                dtypes=("fp32", "fp16"),
            ),
        ]
        register(
            Op(
                "conv_transpose_moments" if transposed else "conv_moments",
                conv_fused.conv_transpose_moments if transposed else conv_fused.conv_moments,
                _reference(transposed),
                cases,
                engines=("cudnn", "triton", "reference"),
                grad_inputs=("input", "weight", "scale_in", "shift_in", "bias", "scale", "residual"),
                outputs=("y", "mean", "var"),
                directions=("forward", "backward", "double"),
                dtypes=("fp32", "tf32", "fp16", "bf16"),
                rounds=True,
                uses_dot=True,
                bytes=moved,
                flops=flops,
                kernels=functools.partial(_variants, transposed),
                candidates=CANDIDATES,
            )
        )
    else:
        register(
            Op(
                "conv_transpose2d" if transposed else "conv2d",
                conv.conv_transpose2d if transposed else conv.conv2d,
                _plain_reference(transposed),
                cases,
                engines=("cudnn", "triton", "reference"),
                grad_inputs=("input", "weight", "bias", "scale"),
                directions=("forward", "backward", "double"),
                dtypes=("fp32", "tf32", "fp16", "bf16"),
                rounds=True,
                uses_dot=True,
                bytes=moved,
                flops=flops,
            )
        )
