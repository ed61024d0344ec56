"""What `fastgan verify`, `--aot` and `bench` know of upsampling and pooling by 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastgan.kernels import resample as kernel
from fastgan.ops.resample import avg_pool2, avg_pool2_reference, upsample2, upsample2_reference
from fastgan.verify.registry import Case, Kwargs, Op, Variant, register


def _case(name: str, shape: tuple[int, int, int, int], *tags: str, cancels: bool = False) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        x = torch.randn(shape, generator=generator)
        if cancels:  # the fourth of four takes back most of the others' sum
            x[..., 1::2, 1::2] /= 64
            x[..., 1::2, 1::2] -= x[..., ::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, ::2]
        x = x.to(device, dtype)
        return {"x": x.contiguous(memory_format=torch.channels_last)}

    return Case(name, make, set(tags))


def _bytes(larger: int) -> Callable[[Kwargs, str], int]:
    """Both maps once, whichever way; the large one is `larger` times the input and the small one a
    quarter of that."""
    return lambda kwargs, direction: kwargs["x"].nbytes * larger * 5 // 4


def _variants(factor: float) -> list[Variant]:
    signature = dict.fromkeys(("pixels", "w", "C", "tiles"), "i32")
    found = []
    for jitted, what in ((kernel.spread_kernel, "spread"), (kernel.gather_kernel, "gather")):
        for kind in ("fp32", "fp16", "bf16"):
            for c in (3, 256):
                block = kernel.channel_block(c)
                found.append(
                    Variant(
                        f"{what} by {factor:g} {c} channels {kind}",
                        jitted,
                        {"large_ptr": f"*{kind}", "small_ptr": f"*{kind}", **signature},
                        {"FACTOR": factor, "BLOCK_P": kernel.TILE // block, "BLOCK_C": block},
                        [{"num_warps": kernel.WARPS}],
                        aligned=["large_ptr", "small_ptr", *(["C"] if c % 16 == 0 else [])],
                    )
                )
    return found


def _register(
    name: str,
    fn: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    cases: Sequence[Case],
    larger: int,
    factor: float,
) -> None:
    register(
        Op(
            name,
            fn,
            reference,
            cases,
            grad_inputs=("x",),
            outputs=("y",),
            directions=("forward", "backward", "double"),
            bytes=_bytes(larger),
            kernels=lambda: _variants(factor),
        )
    )


_register(
    "upsample2",
    upsample2,
    upsample2_reference,
    [
        _case("odd 3x5x3x7", (3, 5, 3, 7), "quick", "full"),
        _case("two tiles of channels 2x300x2x3", (2, 300, 2, 3), "quick", "full"),
        _case("one pixel 2x3x1x1", (2, 3, 1, 1), "full"),
        _case("tiles 2x64x9x11", (2, 64, 9, 11), "full"),
        _case("tiny 2x2x2x3", (2, 2, 2, 3), "gradcheck"),
        _case("sngan 64x256x16x16", (64, 256, 16, 16), "layer"),
        _case("64x64x64x64", (64, 64, 64, 64), "layer"),
        _case("beyond 2^31", (48, 256, 212, 212), "huge"),
    ],
    4,
    1.0,
)
_register(
    "avg_pool2",
    avg_pool2,
    avg_pool2_reference,
    [
        _case("odd 3x5x6x14", (3, 5, 6, 14), "quick", "full"),
        _case("two tiles of channels 2x300x4x6", (2, 300, 4, 6), "quick", "full"),
        _case("sums that cancel 2x8x4x4", (2, 8, 4, 4), "quick", "full", cancels=True),
        _case("one pixel 2x3x2x2", (2, 3, 2, 2), "full"),
        _case("tiles 2x64x18x22", (2, 64, 18, 22), "full"),
        _case("tiny 2x2x4x6", (2, 2, 4, 6), "gradcheck"),
        _case("sngan 128x128x32x32", (128, 128, 32, 32), "layer"),
        _case("images 128x3x64x64", (128, 3, 64, 64), "layer"),
        _case("beyond 2^31", (48, 256, 424, 424), "huge"),
    ],
    1,
    0.25,
)
