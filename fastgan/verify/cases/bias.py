"""What `fastgan verify` and `bench` know of a bias for each channel; its kernels are the norms'."""

from __future__ import annotations

import torch

from fastgan.kernels.norm import backward_sums
from fastgan.kernels.norm import forward as norm
from fastgan.kernels.norm.tiles import tile_config
from fastgan.ops.bias import add_bias, add_bias_reference
from fastgan.verify.registry import Case, Kwargs, Op, Variant, register


def _case(name: str, shape: tuple[int, int, int, int], *tags: str) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        x = torch.randn(shape, generator=generator).to(device, dtype)
        bias = torch.randn(shape[1], generator=generator).to(device)
        return {"x": x.contiguous(memory_format=torch.channels_last), "bias": bias}

    return Case(name, make, set(tags))


def _bytes(kwargs: Kwargs, direction: str) -> int:
    """The map read and written; backward, its gradient read."""
    return kwargs["x"].nbytes * (2 if direction == "forward" else 1)


def _variants() -> list[Variant]:
    found = []
    sizes = dict.fromkeys(("C", "L"), "i32")
    every = {"WEIGHT_EVERY": "i32", "STATS_EVERY": "i32", "eps": "fp32"}
    chosen = {"HAS_WEIGHT": False, "HAS_STATS": False, "ACT": "identity", "SLOPE": 0.0}
    for kind, width in (("*bf16", 2), ("*fp16", 2), ("*fp32", 4)):
        # vectors that are not there are given as the map
        without = dict.fromkeys(("weight_ptr", "bias_ptr", "mean_ptr", "var_ptr"), kind)
        maps = {"x_ptr": kind, "z_ptr": kind, **without, "bias_ptr": "*fp32"}
        sums = {"dz_ptr": kind, "x_ptr": kind, "dx_ptr": kind, "part_ptr": "*fp32", **without}
        for what, kernel, signature, constexprs, tuned, config in (
            (
                "added",
                norm.apply_kernel,
                {**maps, **sizes, "TILES": "i32", **every},
                {**chosen, "HAS_BIAS": True},
                "norm_apply",
                tile_config(width, 128, 1 << 16, num_warps=8),
            ),
            (
                "summed",
                backward_sums.reduce_kernel,
                {**sums, **sizes, "SPLITS": "i32", **every},
                {**chosen, "HAS_BIAS": False, "WRITE_DX": False},
                "norm_reduce",
                tile_config(width, 128, 1 << 16),
            ),
        ):
            pointers = [name for name, type_ in signature.items() if type_.startswith("*")]
            for aligned in ([*pointers, "C"], pointers):
                odd = "" if "C" in aligned else " odd channels"
                found.append(
                    Variant(
                        f"bias {what} {kind[1:]}{odd}",
                        kernel,
                        signature,
                        constexprs,
                        [config],
                        aligned,
                        tuned=tuned,
                    )
                )
    return found


register(
    Op(
        "add_bias",
        add_bias,
        add_bias_reference,
        [
            _case("odd 3x5x3x7", (3, 5, 3, 7), "quick", "full"),
            _case("two tiles of channels 2x300x2x3", (2, 300, 2, 3), "quick", "full"),
            _case("one pixel 2x3x1x1", (2, 3, 1, 1), "full"),
            _case("many rows 2x8x33x65", (2, 8, 33, 65), "full"),
            _case("tiny 2x2x2x3", (2, 2, 2, 3), "gradcheck"),
            _case("sngan 64x256x16x16", (64, 256, 16, 16), "layer"),
            _case("images 128x3x64x64", (128, 3, 64, 64), "layer"),
        ],
        grad_inputs=("x", "bias"),
        outputs=("y",),
        directions=("forward", "backward", "double"),
        bytes=_bytes,
        kernels=_variants,
    )
)
