"""What `fastgan verify`, `--aot` and `bench` know of upsampling and pooling by 2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.kernels import resample as kernel
from fastgan.ops.resample import average_pool, upsample
from fastgan.verify.registry import Case, Kwargs, Op, Variant, register


def _case(name: str, shape: tuple[int, int, int, int], *tags: str) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        x = torch.randn(shape, generator=generator).to(device, dtype)
        return {"x": x.contiguous(memory_format=torch.channels_last)}

    return Case(name, make, set(tags))


CASES = [
    _case("odd 3x5x6x10", (3, 5, 6, 10), "quick", "full"),
    _case("grey 2x1x4x2", (2, 1, 4, 2), "full"),
    _case("tiny 2x2x2x4", (2, 2, 2, 4), "gradcheck"),
    _case("sngan 64x256x16x16", (64, 256, 16, 16), "layer"),
]


def _variants(of: str) -> list[Variant]:
    one = {"upsample": kernel.double_kernel, "average_pool": kernel.halve_kernel}[of]
    sizes = dict.fromkeys(("TOTAL", "W", "C"), "i32") | {"factor": "fp32"}
    return [
        Variant(
            f"{of} {kind}",
            one,
            {"x_ptr": f"*{kind}", "y_ptr": f"*{kind}", **sizes},
            {},
            [kernel.DEFAULT],
            aligned=["x_ptr", "y_ptr", "C"],
        )
        for kind in ("fp32", "bf16")
    ]


def upsample_reference(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0)


def average_pool_reference(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2)


for function, reference, ratio in (
    (upsample, upsample_reference, 5.0),
    (average_pool, average_pool_reference, 1.25),
):
    register(
        Op(
            function.__name__,
            function,
            reference,
            CASES,
            grad_inputs=("x",),
            outputs=("y",),
            directions=("forward", "backward"),
            bytes=lambda kwargs, direction, ratio=ratio: int(ratio * kwargs["x"].nbytes),  # type: ignore[misc]
            kernels=lambda name=function.__name__: _variants(name),  # type: ignore[misc]
        )
    )
