"""What `fastgan verify`, `--aot`, `bench` and `tune` know of the convolutions: cases, launches to
compile, tiles to try."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch

from fastgan.kernels import tuning
from fastgan.kernels.activations import ACTIVATIONS
from fastgan.kernels.common import DTYPE_NAMES
from fastgan.kernels.conv import moments as conv_moments
from fastgan.kernels.conv.plan import empty_nhwc, tile
from fastgan.kernels.conv.spec import ConvSpec, Fusion
from fastgan.ops.conv import functional as conv
from fastgan.ops.conv import fused as conv_fused
from fastgan.ops.conv.autograd import weight_shape
from fastgan.verify.cases.conv_calls import (
    C1S1,
    C3S1,
    C3S2,
    C4S2,
    END,
    FIRST,
    MERGED,
    MOMENTS,
    PATCH,
    START,
    T3S2,
    T4S2,
    Recorder,
    cost,
    fused_case,
    fused_reference,
    plain_case,
    plain_reference,
)
from fastgan.verify.registry import Case, Kwargs, Op, Variant, register

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


def _variants(transposed: bool) -> list[Variant]:
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


ON_LOAD = ("fp32", "tf32", "bf16")  # fp16 rounds as bf16 does, and the interpreter has a budget
DOUBLE: Any = dict(directions=("double",), dtypes=("fp32",))


def _activation_cases(fused: bool) -> list[Case]:
    """Every activation before a convolution, whose kernels share act and act_grad with
    affine_act's: so the formula of second order alone; and behind one, where the output tells the
        derivative."""
    make, shape, cases = fused_case if fused else plain_case, (2, 7, 3, 5), []
    for a in ACTIVATIONS.values():
        if not fused and a.from_output is not None:
            # apart: with a graph to differentiate again, backward is the formula and not the kernel
            cases.append(
                make(
                    f"activation {a.name}",
                    C1S1,
                    shape,
                    4,
                    "quick",
                    "full",
                    act=a.name,
                    directions=FIRST,
                    dtypes=("fp32",),
                )
            )
        if fused or a.from_output is not None:
            cases.append(
                make(
                    f"activation {a.name} second order",
                    C1S1,
                    shape,
                    4,
                    "quick",
                    "full",
                    act=a.name,
                    **DOUBLE,
                )
            )
    return cases


for transposed, fused in ((False, True), (True, True), (False, False), (True, False)):
    moved, flops = cost(transposed, fused)
    make = fused_case if fused else plain_case
    # conv2d launches the same kernels as conv_moments: a few cases of its own prove the way there
    quick = {"quick", "full"} if fused else {"full"}
    act: Kwargs = {"act": "leaky_relu"}
    if transposed:
        cases = [
            make("k4s2", T4S2, (3, 20, 3, 5), 18, *quick, directions=FIRST, **act),
            make("start", START, (3, 12, 1, 1), 9, "quick", "full", directions=FIRST),
            make("start second order", START, (2, 5, 1, 1), 3, *quick, **DOUBLE),
            make("last", T4S2, (2, 17, 3, 4), 3, "quick", "full", directions=FIRST, extras=True),
            make("k3s2 odd", T3S2, (2, 15, 3, 2), 7, "full", directions=FIRST, **act),
            make("second order", T4S2, (1, 5, 2, 3), 3, "quick", "full", **DOUBLE),
            make("gradcheck", T4S2, (2, 2, 1, 2), 2, "gradcheck", act="tanh", extras=True),
            *(
                make(
                    f"DCGAN-64 G {name} batch {n}",
                    T4S2,
                    (n, ci, side, side),
                    co,
                    "layer",
                    directions=FIRST,
                    act="relu",
                )
                for n in (128, 1024)
                for name, ci, co, side in (
                    ("L2", 512, 256, 4),
                    ("L3", 256, 128, 8),
                    ("L4", 128, 64, 16),
                )
            ),
            make("DCGAN-64 G L5", T4S2, (128, 64, 32, 32), 3, "layer", directions=FIRST),
            make(
                "pix2pix-256 up", T4S2, (1, 1024, 8, 8), 512, "layer", directions=FIRST, act="relu"
            ),
        ]
    else:
        cases = [
            make("k4s2", C4S2, (2, 18, 6, 10), 20, *quick, directions=FIRST, **act),
            make("k3s1", C3S1, (3, 15, 4, 5), 17, *quick, directions=FIRST, extras=True),
            make("first", C4S2, (2, 3, 8, 6), 18, "quick", "full", directions=FIRST),
            make("end", END, (3 if fused else 31, 17, 4, 4), 1, "quick", "full", directions=FIRST),
            make("k1", C1S1, (2, 33, 3, 5), 15, *quick, directions=FIRST, **act),
            make("k3s2 odd", C3S2, (1, 15, 7, 6), 9, "full", directions=FIRST, **act),
            make("k4s1", PATCH, (2, 17, 5, 6), 1, "full", directions=FIRST),
            *_activation_cases(fused),
            make("second order", C4S2, (1, 3, 4, 6), 5, "quick", "full", **DOUBLE),
            make("gradcheck", C3S1, (2, 2, 3, 2), 2, "gradcheck", act="tanh", extras=True),
            *(
                make(
                    f"DCGAN-64 D {name} batch {n}",
                    C4S2,
                    (n, ci, side, side),
                    co,
                    "layer",
                    directions=FIRST,
                    **act,
                )
                for n in (128, 1024)
                for name, ci, co, side in (
                    ("L2", 64, 128, 32),
                    ("L3", 128, 256, 16),
                    ("L4", 256, 512, 8),
                )
            ),
            make("DCGAN-64 D L1", C4S2, (128, 3, 64, 64), 64, "layer", directions=FIRST),
            make(
                "SNGAN-CIFAR G 256x32x32",
                C3S1,
                (64, 256, 32, 32),
                256,
                "layer",
                directions=FIRST,
                act="relu",
            ),
            make("pix2pix-256 D", PATCH, (1, 256, 32, 32), 512, "layer", directions=FIRST, **act),
        ]
    if fused and not transposed:
        cases.append(
            fused_case(
                "beyond 2^31 elements",
                C1S1,
                (33000, 64, 32, 32),
                3,
                "huge",
                act="relu",
                dtypes=("bf16",),
            )
        )
    if fused:
        spec, shape, co = (T4S2, (4, 17, 3, 2), 15) if transposed else (C4S2, (4, 12, 6, 4), 17)
        # long enough for several parts, of taps or of channels, in forward and dgrad
        split, long, few = (T4S2, (2, 49, 2, 2), 20) if transposed else (C4S2, (2, 18, 4, 4), 49)
        # phases of unequal size, side by side
        odd, images, last = (
            (ConvSpec(True, (3, 3), (2, 2), (1, 1)), (4, 17, 3, 2), 3)
            if transposed
            else (C4S2, (2, 3, 7, 5), 17)
        )
        cases += [
            # the epilogue is one for both; a single dscale, summed over all weights, would be one
            # number with an arbitrary error
            fused_case(
                "split",
                split,
                long,
                few,
                "quick",
                "full",
                act="relu",
                extras=not transposed,
                directions=FIRST,
            ),
            fused_case(
                "merged odd",
                odd,
                images,
                last,
                "quick",
                "full",
                act="leaky_relu",
                groups=2,
                directions=FIRST,
            ),
            fused_case(
                "groups", spec, shape, co, "quick", "full", act="relu", groups=2, directions=FIRST
            ),
            fused_case(
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
            fused_case(
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
                fused_reference(transposed),
                cases,
                engines=("cudnn", "triton", "reference"),
                grad_inputs=(
                    "input",
                    "weight",
                    "scale_in",
                    "shift_in",
                    "bias",
                    "scale",
                    "residual",
                ),
                outputs=("y", "mean", "var"),
                directions=("forward", "backward", "double"),
                dtypes=("fp32", "tf32", "fp16", "bf16"),
                rounds=True,
                uses_dot=True,
                derived=MOMENTS,
                bounds={"var": MERGED},
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
                plain_reference(transposed),
                cases,
                engines=("gemm", "cudnn", "triton", "reference"),
                grad_inputs=("input", "weight", "bias", "scale"),
                directions=("forward", "backward", "double"),
                dtypes=("fp32", "tf32", "fp16", "bf16"),
                rounds=True,
                uses_dot=True,
                bytes=moved,
                flops=flops,
            )
        )
