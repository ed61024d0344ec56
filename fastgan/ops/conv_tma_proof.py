"""What `fastgan verify`, `--aot`, `bench` and `tune` know of convolutions by TMA: conv_moments and its transpose, sent
that way."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import Tensor

from fastgan.kernels import tuning
from fastgan.kernels._common import INTERPRET
from fastgan.kernels.conv_plan import empty_nhwc
from fastgan.kernels.conv_spec import ConvSpec, Fusion
from fastgan.ops import conv_fused
from fastgan.ops.conv_cases import (
    C1S1,
    C3S1,
    C4S2,
    FIRST,
    MERGED,
    MOMENTS,
    T4S2,
    Recorder,
    cost,
    fused_case,
    fused_reference,
)  # fmt: skip
from fastgan.ops.conv_plain import weight_shape
from fastgan.ops.registry import Kwargs, Op, Variant, register

T3S1 = ConvSpec(True, (3, 3), (1, 1), (1, 1))
TYPES = ("fp16", "bf16")


def _transposed(kwargs: Kwargs) -> bool:
    return "output_padding" in kwargs


def _call(*, impl: str, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
    with tuning.override({"conv_way": {"WAY": "tma"}}):
        call = conv_fused.conv_transpose_moments if _transposed(kwargs) else conv_fused.conv_moments
        return call(**kwargs, impl=impl)


def _reference(**kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
    return fused_reference(_transposed(kwargs))(**kwargs)


def _lacks(device: torch.device) -> str | None:
    """Why nothing can be shown on a device, or None."""
    if INTERPRET or (device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9):
        return None
    return "needs sm_90"


def _record(kind: str, spec: ConvSpec, ci: int, co: int, size: int, epilogue: bool) -> Variant:
    from fastgan.kernels import conv_tma
    from fastgan.kernels.conv_padded import grid_of

    meta, dtype = torch.device("meta"), torch.bfloat16
    grid = grid_of(spec, 128, (size, size))
    blocks = 4 if spec.stride[0] == 2 else 1
    z = torch.empty((grid.rows, ci * (1 if spec.transposed else blocks)), dtype=dtype, device=meta)
    g = torch.empty((grid.rows, co * (blocks if spec.transposed else 1)), dtype=dtype, device=meta)
    w = empty_nhwc(*weight_shape(spec, ci, co), dtype, meta)
    kernel = f"conv_tma_{kind}_kernel"
    recorder = Recorder(getattr(conv_tma, kernel))
    with mock.patch.object(conv_tma, kernel, recorder):
        if kind == "forward":
            conv_tma.conv_tma_forward(z, grid, w, spec, (size, size), Fusion(), moments=epilogue)
        elif kind == "dgrad":
            x, s, t = empty_nhwc(128, ci, size, size, dtype, meta), torch.empty(ci, device=meta), torch.empty(ci, device=meta)
            inputs: dict[str, Any] = {"x": x, "s": s, "t": t} if epilogue else {}
            conv_tma.conv_tma_dgrad(g, grid, w, spec, (size, size), Fusion("relu" if epilogue else "identity"), **inputs)
        else:
            conv_tma.conv_tma_wgrad(z, g, grid, spec, ci, co)
    way = "transposed" if spec.transposed else "conv"
    name = f"TMA {kind}{' with epilogue' if epilogue else ''} {way} k{spec.kernel[0]}s{spec.stride[0]} {ci}-{co} at {size} bf16"
    tuned = f"conv_tma_{kind}" + "_epilogue" * epilogue
    return recorder.variant(name, tuned, CANDIDATES[tuned] if spec is T4S2 else (), True, targets=("sm_90",))


def _record_pad(spec: ConvSpec, channels: int, size: int, large: bool, gradient: bool) -> Variant:
    from fastgan.kernels import conv_padded

    meta, dtype = torch.device("meta"), torch.bfloat16
    a, y = (empty_nhwc(128, channels, size, size, dtype, meta) for _ in range(2))
    u, v = (torch.empty(channels, device=meta) for _ in range(2))
    grid = conv_padded.grid_of(spec, 128, (size, size))
    recorder = Recorder(conv_padded.pad_kernel)
    with mock.patch.object(conv_padded, "pad_kernel", recorder):
        inputs: dict[str, Any] = {"y": y, "gradient": True, "sums": True} if gradient else {"act": "relu"}
        conv_padded.pad(a, spec, grid, large, u=u, v=v, **inputs)
    return recorder.variant(f"pad {'g' if gradient else 'z'}{' in blocks' * large} bf16", "", (), False, targets=("sm_90",))


def _variants() -> list[Variant]:
    found = [_record_pad(C4S2, 128, 16, True, False), _record_pad(C4S2, 256, 16, False, True)]
    for spec, ci, co, size in ((T4S2, 256, 128, 8), (C4S2, 128, 256, 16), (C3S1, 256, 256, 16)):
        found += [_record(kind, spec, ci, co, size, way) for kind in ("forward", "dgrad") for way in (False, True)]
        found.append(_record("wgrad", spec, ci, co, size, False))
    return [*found, _record("forward", C4S2, 32, 64, 32, True)]


def _tile(m: int, n: int, k: int, stages: int, specialised: bool = True) -> dict[str, Any]:
    from fastgan.kernels.conv_tma import tma_tile

    return tma_tile(m, n, k, stages, specialised)


PLAIN = [_tile(128, 128, 64, 4), _tile(128, 256, 64, 3), _tile(128, 64, 64, 4), _tile(128, 128, 64, 3, False)]
# 128x128 tiles spill where the epilogue reads x or sums over pixels, specialised or not (Triton 3.6 and 3.7)
EPILOGUE = [_tile(128, 64, 64, 4), _tile(64, 128, 64, 4, False)]
CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "conv_tma_forward": PLAIN,
    "conv_tma_dgrad": PLAIN,
    "conv_tma_forward_epilogue": EPILOGUE,
    "conv_tma_dgrad_epilogue": EPILOGUE,
    "conv_tma_wgrad": [_tile(128, 128, 64, 4), _tile(128, 64, 64, 4), _tile(128, 128, 64, 3, False)],
}

bytes_of, flops_of = {way: cost(way, True)[0] for way in (False, True)}, {way: cost(way, True)[1] for way in (False, True)}

register(
    Op(
        "conv_tma",
        _call,
        _reference,
        [
            fused_case("transposed k4s2", T4S2, (3, 16, 3, 2), 48, "quick", "full", directions=FIRST, act="leaky_relu"),
            fused_case("k4s2", C4S2, (3, 48, 4, 6), 16, "quick", "full", directions=FIRST, act="leaky_relu"),
            fused_case("k4s2 odd sides", C4S2, (2, 16, 7, 5), 16, "quick", "full", directions=FIRST, extras=True),
            fused_case("groups", C4S2, (4, 16, 6, 4), 16, "quick", "full", act="relu", groups=2, directions=FIRST),
            fused_case("k3s1", C3S1, (2, 32, 4, 5), 16, "full", directions=FIRST, act="relu", extras=True),
            fused_case("transposed k3s1", T3S1, (2, 16, 4, 5), 32, "full", directions=FIRST, act="relu"),
            fused_case("k1s1", C1S1, (2, 32, 3, 4), 16, "full", directions=FIRST),
            fused_case("large mean", T4S2, (2, 16, 3, 2), 16, "full", extras=True, offset=100.0, directions=("forward",)),
            # wide enough for the specialised tiles
            fused_case("wide", C4S2, (8, 128, 16, 16), 256, "layer", act="relu", extras=True, directions=FIRST),
            fused_case("wide transposed", T4S2, (8, 256, 8, 8), 128, "layer", extras=True, directions=FIRST),
            *(
                fused_case(f"DCGAN-64 {name} batch {n}", spec, (n, ci, side, side), co, "layer", directions=FIRST, act="relu")
                for n in (128, 1024)
                for name, spec, ci, co, side in (
                    ("G L2", T4S2, 512, 256, 4),
                    ("G L3", T4S2, 256, 128, 8),
                    ("G L4", T4S2, 128, 64, 16),
                    ("D L2", C4S2, 64, 128, 32),
                    ("D L3", C4S2, 128, 256, 16),
                    ("D L4", C4S2, 256, 512, 8),
                )
            ),
        ],
        engines=("triton",),
        grad_inputs=("input", "weight", "scale_in", "shift_in", "bias", "scale", "residual"),
        outputs=("y", "mean", "var"),
        directions=("forward", "backward"),
        dtypes=TYPES,
        rounds=True,
        uses_dot=True,
        derived=MOMENTS,
        bounds={"var": MERGED},
        bytes=lambda kwargs, direction: bytes_of[_transposed(kwargs)](kwargs, direction),
        flops=lambda kwargs, direction: flops_of[_transposed(kwargs)](kwargs, direction),
        kernels=_variants,
        candidates=CANDIDATES,
        lacks=_lacks,
    )
)
