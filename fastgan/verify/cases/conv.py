"""What `fastgan verify` and `bench` know of the convolutions: the ops and their cases."""

from __future__ import annotations

import functools
from typing import Any

from fastgan.kernels.activations import ACTIVATIONS
from fastgan.kernels.conv.spec import ConvSpec
from fastgan.ops.conv import functional as conv
from fastgan.ops.conv import fused as conv_fused
from fastgan.verify.cases.conv_calls import (
    C1S1,
    C3S1,
    C3S2,
    C4S2,
    END,
    FEW_SUMS,
    FIRST,
    MERGED,
    MOMENTS,
    PATCH,
    START,
    T3S2,
    T4S2,
    cost,
    fused_case,
    fused_reference,
    plain_case,
    plain_reference,
)
from fastgan.verify.cases.conv_launches import CANDIDATES, variants
from fastgan.verify.registry import Case, Kwargs, Op, register

ON_LOAD = ("fp32", "tf32", "bf16")  # fp16 rounds as bf16 does, and the interpreter has a budget
DOUBLE: Any = dict(directions=("double",), dtypes=("fp32",))


def _activation_cases(fused: bool) -> list[Case]:
    """Every activation before a convolution, whose kernels share act and act_grad with
    affine_act's: so the formula of second order alone; and behind one, where the output tells the
    derivative."""
    make, shape, cases = fused_case if fused else plain_case, (2, 7, 3, 5), []
    for a in ACTIVATIONS.values():
        if fused or a.from_output is not None:
            cases.append(
                make(
                    f"activation {a.name}",
                    C1S1,
                    shape,
                    4,
                    "quick",
                    "full",
                    act=a.name,
                    directions=("double",) if fused else (*FIRST, "double"),
                    dtypes=("fp32",),
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
                bounds={"var": MERGED, "double:d2(dvar)": FEW_SUMS},
                bytes=moved,
                flops=flops,
                kernels=functools.partial(variants, transposed),
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
