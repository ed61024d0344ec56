"""What `fastgan verify`, `--aot`, `bench` and `tune` know of moving averages."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fastgan.kernels import average as kernel
from fastgan.ops.average import average_, average_reference_
from fastgan.verify.registry import Case, Kwargs, Op, Variant, register


def _case(name: str, shapes: Sequence[tuple[int, ...]], share: float, *tags: str) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        draw = lambda shape: torch.randn(shape, generator=generator).to(device, dtype)
        averages = [draw(shape) for shape in shapes]
        return {
            "averages": averages,
            "live": [draw(s) for s in shapes],
            "share": torch.tensor(share, device=device),
        }

    return Case(name, make, set(tags), dtypes=("fp32",))


def _bytes(kwargs: Kwargs, direction: str) -> int:
    return sum(3 * t.nbytes for t in kwargs["averages"])


def _variants() -> list[Variant]:
    signature = {"rows_ptr": "*i64", "share_ptr": "*fp32"}
    return [Variant("average", kernel.average_kernel, signature, configs=[kernel.DEFAULT])]


# DCGAN-64's generator, by parameter and running statistic
_DCGAN: list[tuple[int, ...]] = [
    (100, 512, 4, 4),
    (512, 256, 4, 4),
    (256, 128, 4, 4),
    (128, 64, 4, 4),
    (64, 3, 4, 4),
]
_DCGAN += [(512,), (256,), (128,), (64,)] * 4

register(
    Op(
        "average",
        average_,
        average_reference_,
        [
            _case("two tensors, a piece and a tail", [(3, 17), (1056,)], 0.001, "quick", "full"),
            _case("an early step's large share", [(1,), (1024,), (5,)], 0.9, "quick", "full"),
            _case("nothing moves", [(33,)], 0.0, "full"),
            _case("dcgan 3.58 M", _DCGAN, 0.001, "layer"),
        ],
        mutates=("averages",),
        dtypes=("fp32",),
        bytes=_bytes,
        kernels=_variants,
    )
)
