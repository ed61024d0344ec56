"""The convolutions' launches: the tiles that `fastgan tune` tries, and the forms of the kernels
that `fastgan verify --aot` compiles.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch

from fastgan.kernels import tuning
from fastgan.kernels.common import DTYPE_NAMES
from fastgan.kernels.conv import moments as conv_moments
from fastgan.kernels.conv.plan import empty_nhwc, tile
from fastgan.kernels.conv.spec import ConvSpec, Fusion
from fastgan.ops.conv.autograd import weight_shape
from fastgan.verify.cases.conv_calls import C3S1, C4S2, END, START, T4S2, Recorder
from fastgan.verify.registry import Variant

TILES = [
    tile(128, 64, 64, 8, 3, "channels"),
    tile(64, 64, 64, 4, 3, "channels"),
    tile(64, 64, 32, 4, 4, "channels"),
]
# over taps each way of gathering spills with the other's tiles: see default_gather_config
SCATTER = [
    *TILES,
    tile(128, 64, 64, 8, 3, "taps") | {"maxnreg": 255},
    tile(64, 64, 32, 4, 4, "taps"),
]
GATHER = [*TILES, tile(128, 64, 64, 8, 3, "taps"), tile(64, 64, 32, 4, 3, "taps")]
GATHER_TRANSFORMED = [
    tile(128, 64, 64, 8, 2, "channels"),
    tile(128, 64, 64, 8, 2, "taps"),
    tile(64, 64, 64, 4, 2, "channels"),
    tile(64, 64, 32, 4, 3, "channels"),
]
WGRAD = [
    tile(64, 64, 64, 4, 3),
    tile(64, 64, 32, 4, 4),
    tile(128, 64, 64, 8, 3),
    tile(32, 64, 64, 4, 3),
]
WGRAD_TRANSFORMED = [
    tile(64, 64, 64, 4, 2),
    tile(64, 64, 32, 4, 3),
    tile(128, 64, 64, 8, 2),
    tile(32, 64, 64, 4, 2),
]
# where tiles are few, by how many programs to share a reduction; without SPLIT_K shape and
# multiprocessors decide
SPLIT = [tile(64, 64, 64, 4, 3, "channels") | {"SPLIT_K": splits} for splits in (1, 2, 4)]
# to one to four channels: all phases in one pass (the default, with a larger tile here), and each
# by itself
MERGE = [
    tile(128, 16, 64, 4, 3, "taps") | {"MERGED": True},
    tile(64, 16, 32, 4, 4, "taps") | {"MERGED": False},
]
# only the tuner tries these: 128x128 spills on some targets
WIDE = [tile(128, 128, 64, 8, 3, order) for order in ("channels", "taps")]
CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "conv_forward": [*SCATTER, *GATHER[3:], *SPLIT, *MERGE],
    "conv_forward_prologue": GATHER_TRANSFORMED,
    "conv_dgrad": [*SCATTER, *GATHER[3:], *SPLIT, *MERGE],
    "conv_dgrad_two": GATHER_TRANSFORMED,
    "conv_wgrad": WGRAD,
    "conv_wgrad_z": WGRAD_TRANSFORMED,
    "conv_wgrad_g": WGRAD_TRANSFORMED,
    "conv_wgrad_z_g": WGRAD_TRANSFORMED,
}


def _record(
    kind: str,
    spec: ConvSpec,
    ci: int,
    co: int,
    size: int,
    dtype: torch.dtype,
    transforms: bool = False,
    precision: str = "ieee",
    configs: Sequence[dict[str, Any]] = (),
    splits: int = 1,
) -> list[Variant]:
    """The forms that one launch compiles: its kernel, or with splits the kernels of parts and of
    their sum."""
    from fastgan.kernels.conv import dgrad, split_k, wgrad
    from fastgan.kernels.conv import forward as conv_forward

    meta = torch.device("meta")
    out = spec.output_size(size, size)
    x, dy, y = (
        empty_nhwc(128, c, *s, dtype, meta) for c, s in ((ci, (size, size)), (co, out), (co, out))
    )
    w = empty_nhwc(*weight_shape(spec, ci, co), dtype, meta)
    vector = lambda c: torch.empty(c, device=meta)
    s: dict[str, Any] = {"s": vector(ci), "t": vector(ci)} if transforms else {}
    g: dict[str, Any] = {"y": y, "a": vector(co), "b": vector(co)} if transforms else {}
    how = Fusion("leaky_relu" if transforms else "identity", 0.2, precision=precision)
    module = {"forward": conv_forward, "dgrad": dgrad, "wgrad": wgrad}[kind]
    tuned = {
        "forward": ("conv_forward", "conv_forward_prologue"),
        "dgrad": ("conv_dgrad", "conv_dgrad_two"),
        "wgrad": ("conv_wgrad", "conv_wgrad_z_g"),
    }[kind][transforms]
    whole, sums = f"conv_{kind}_kernel", f"conv_{kind}_sum_kernel"
    kernels = [(module, whole)] if splits == 1 else [(split_k, "conv_split_kernel"), (module, sums)]
    recorders = [Recorder(getattr(owner, kernel)) for owner, kernel in kernels]
    with contextlib.ExitStack() as stack:
        for (owner, kernel), recorder in zip(kernels, recorders):
            stack.enter_context(mock.patch.object(owner, kernel, recorder))
        if kind != "wgrad":
            stack.enter_context(tuning.override({tuned: {"SPLIT_K": splits}}))
        if kind == "forward":
            conv_forward.conv_forward(x, w, spec, how, moments=True, **s)
        elif kind == "dgrad":
            dgrad.conv_dgrad(dy, w, spec, (size, size), how, x=x, **s, **g)
        else:
            wgrad.conv_wgrad(x, dy, spec, how, **s, **g)
    type_name = "tf32" if precision == "tf32" else DTYPE_NAMES[dtype]
    way = "transposed" if spec.transposed else "conv"
    name = (
        f"{kind}{' transformed' if transforms else ''} {way} "
        f"k{spec.kernel[0]}s{spec.stride[0]} "
        f"{ci}-{co} at {size} {type_name}"
    )
    if splits == 1:
        return [recorders[0].variant(name, tuned, configs, type_name != "fp32")]
    # the sum has a tile of its own, in no table
    parts = recorders[0].variant(f"parts of {name}", tuned, configs, type_name != "fp32")
    return [parts, recorders[1].variant(f"sum of {name}", "", (), False)]


def variants(transposed: bool) -> list[Variant]:
    """Every form to compile of the convolutions of a direction."""
    bf16, fp16, fp32 = torch.bfloat16, torch.float16, torch.float32
    kinds = ("forward", "dgrad", "wgrad")
    rows: list[tuple[Any, ...]]
    if transposed:
        tiles = {
            ("forward", False): SCATTER,
            ("forward", True): GATHER_TRANSFORMED,
            ("dgrad", False): GATHER,
            ("dgrad", True): GATHER_TRANSFORMED,
            ("wgrad", False): WGRAD,
            ("wgrad", True): WGRAD_TRANSFORMED,
        }
        rows = [
            (kind, T4S2, 256, 128, 8, bf16, way, "ieee", configs)
            for (kind, way), configs in tiles.items()
        ]
        rows += [
            ("forward", T4S2, 64, 3, 32, bf16, False, "ieee", MERGE),
            ("forward", T4S2, 64, 3, 32, fp32),
        ]
        rows += [(kind, T4S2, 64, 3, 32, bf16) for kind in ("dgrad", "wgrad")]
        rows += [
            (kind, T4S2, 256, 128, 8, fp32, True, precision)
            for kind in kinds
            for precision in ("ieee", "tf32")
        ]
        rows += [("dgrad", T4S2, 256, 128, 4, bf16)]  # few pixels: the small tile
        rows += [("forward", START, 112, 512, 1, bf16)]
        rows += [("forward", T4S2, 512, 512, 2, bf16, way, "ieee", (), 8) for way in (False, True)]
        rows += [("dgrad", START, 112, 512, 1, bf16, False, "ieee", (), 8)]
    else:
        rows = [(kind, C4S2, 128, 256, 16, bf16, way) for kind in kinds for way in (False, True)]
        rows += [(kind, C4S2, 3, 64, 64, bf16) for kind in ("forward", "wgrad")]
        rows += [("dgrad", C4S2, 3, 64, 64, bf16, False, "ieee", MERGE)]
        rows += [
            ("dgrad", C4S2, 3, 64, 64, fp32),
            ("forward", C3S1, 16, 16, 16, fp32),
        ]  # few channels a tap
        rows += [(kind, C3S1, 256, 256, 16, fp16, way) for kind in kinds for way in (False, True)]
        rows += [("dgrad", C4S2, 512, 512, 4, bf16, way, "ieee", (), 8) for way in (False, True)]
        rows += [
            ("forward", C4S2, 512, 512, 4, kind, False, "ieee", (), 8) for kind in (bf16, fp32)
        ]
        rows += [("forward", END, 512, 1, 4, bf16, False, "ieee", (), 16)]
    return [variant for row in rows for variant in _record(*row)] + (
        [] if transposed else _around()
    )


def _around() -> list[Variant]:
    """What surrounds a fused convolution: the merge of its tile moments, and the gradient formed
    once."""
    fp32, size = "*fp32", "i32"
    merge = dict.fromkeys(("mean_ptr", "m2_ptr", "count_ptr", "out_mean_ptr", "out_var_ptr"), fp32)
    out = [
        Variant(
            f"merge moments of {rows} tiles a turn",
            conv_moments.merge_moments_kernel,
            {**merge, "SLOTS": size, "C": size},
            {"FOLD": 1},
            [{"BLOCK_R": rows, "BLOCK_C": 8, "num_warps": 4}],
        )
        for rows in (16, 128)
    ]
    vectors = dict.fromkeys(("mean_ptr", "dmean_ptr", "dvar_ptr"), fp32)
    sizes = {"ROWS": size, "PER_BLOCK": size, "C": size, "inverse_n": "fp32"}
    for kind in ("bf16", "fp32"):
        images = dict.fromkeys(("dy_ptr", "y_ptr", "g_ptr"), f"*{kind}")
        for moments in (True, False):
            for block in (8, 64):
                constants = {"ACT": "leaky_relu", "SLOPE": 0.2} | (
                    {} if moments else dict.fromkeys(vectors)
                )
                out.append(
                    Variant(
                        f"form g{' of moments' if moments else ''} {kind}, {block} channels",
                        conv_moments.form_gradient_kernel,
                        {**images, **(vectors if moments else {}), "sum_ptr": fp32, **sizes},
                        constants,
                        [{"BLOCK_R": 2048 // block, "BLOCK_C": block, "num_warps": 4}],
                    )
                )
    return out
