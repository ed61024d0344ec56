"""What `fastgan verify`, `--aot` and `bench` know of the random numbers."""

from __future__ import annotations

import math

import torch

from fastgan.kernels import random as kernel
from fastgan.ops.random import normal, normal_reference, stream_id, uniform, uniform_reference
from fastgan.verify.registry import Bound, Case, Kwargs, Op, Variant, register


def _case(name: str, n: int, shape: tuple[int, ...], position: int, seed: int, *tags: str) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        start = torch.tensor(position, device=device)
        return {
            "seed": seed,
            "position": start,
            "n": n,
            "shape": shape,
            "stream": stream_id("noise"),
            "dtype": dtype,
        }

    return Case(name, make, set(tags))


_CASES = [
    _case("odd 5x(7,3)", 5, (7, 3), 2**32 - 2, 2**63 - 1, "quick", "full"),
    _case("scalar 3x()", 3, (), 0, 0, "quick", "full"),
    _case("latent 128x100", 128, (100,), 12345, 1, "full", "layer"),
    _case("image 64x(3,64,64)", 64, (3, 64, 64), 12345, 1, "layer"),
]


def _variants(normal: bool) -> list[Variant]:
    kinds = {"position_ptr": "*i64"} | dict.fromkeys(("count", "tiles", "k0", "k1", "c3"), "i32")
    return [
        Variant(
            f"random {'normal' if normal else 'uniform'} {out}",
            kernel.random_kernel,
            {"out_ptr": f"*{out}", **kinds},
            {"NORMAL": normal, "BITS": bits},
            [kernel.DEFAULT, {"BLOCK": 32, "num_warps": 1}],
            tuned="random",
        )
        for out, bits in (("fp32", 24), ("bf16", 8))
    ]


def _bytes(kwargs: Kwargs, direction: str) -> int:
    return kwargs["n"] * math.prod(kwargs["shape"]) * kwargs["dtype"].itemsize


register(
    Op(
        "uniform",
        uniform,
        uniform_reference,
        _CASES,
        outputs=("u",),
        bytes=_bytes,
        kernels=lambda: _variants(False),
    )
)
register(
    Op(
        "normal",
        normal,
        normal_reference,
        _CASES,
        outputs=("z",),
        bytes=_bytes,
        kernels=lambda: _variants(True),
        bounds={
            "z": Bound(
                "fp32 Box-Muller judged by a float64 one in every type: five roundings, eps/4 "
                "allows none",
                ratio=8,
            )
        },
    )
)
