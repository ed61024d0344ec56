"""What `fastgan verify`, `--aot` and `bench` know of the adversarial losses."""

from __future__ import annotations

from typing import Any

import torch

from fastgan.kernels import loss as kernel
from fastgan.ops.loss import SIDES, adversarial, adversarial_reference
from fastgan.ops.loss_table import LOSSES
from fastgan.verify.registry import Bound, Case, Kwargs, Op, Variant, extend, register

ONE_NUMBER = Bound(
    "piecewise linear losses have one gradient for all logits, or 0: its rounding, up to 2^-11 in "
    "fp16, has no average; the "
    "other two bounds hold",
    l2=2.5e-3,
)


def _case(
    kind: str,
    side: str,
    shape: tuple[int, ...],
    scale: float,
    *tags: str,
    real: bool = True,
    dtypes: tuple[str, ...] | None = None,
) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        draw = lambda: (torch.randn(shape, generator=generator) * scale).to(device, dtype)
        return {"kind": kind, "side": side, "real": draw() if real else None, "fake": draw()}

    name = f"{kind} {side} {'x'.join(map(str, shape))} scale {scale:g}{'' if real else ' no real'}"
    return Case(name, make, set(tags), dtypes)


def _bytes(kwargs: Kwargs, direction: str) -> int:
    # Forward reads the logits and writes their fp32 gradients; backward reads those and writes in
    # the logits' type.
    logits = [x for x in (kwargs["real"], kwargs["fake"]) if x is not None]
    return sum(x.nbytes + 4 * x.numel() for x in logits)


def _variants() -> list[Variant]:
    pointers = {name: "*fp32" for name in ("loss_ptr", "stats_ptr", "dreal_ptr", "dfake_ptr")}
    counts = dict.fromkeys(("n_real", "n_fake"), "i32")
    config = {k: v for k, v in kernel.DEFAULT.items() if k != "SINGLE"}
    logits = {"real_ptr": "*bf16", "fake_ptr": "*bf16", **counts, "span": "i32"}
    flags = {"D": True, "HAS_REAL": True, "REAL_GRAD": True}
    rows: list[tuple[str, dict[str, str], dict[str, Any]]] = [
        ("one program", {}, {"ONE": True, "rows_ptr": None}),
        ("rows", {"rows_ptr": "*fp32"}, {"ONE": False}),
    ]
    out = []
    for kind in LOSSES:
        for label, more, one in rows:
            signature = {**pointers, **logits, **more}
            name, constants = f"adversarial {kind} {label} bf16", {"KIND": kind, **flags, **one}
            aligned = [argument for argument, kind in signature.items() if kind[0] == "*"] + [
                "span"
            ]
            out.append(
                Variant(
                    name,
                    kernel.adversarial_kernel,
                    signature,
                    constants,
                    [config],
                    aligned=aligned,
                    tuned="adversarial",
                )
            )
    reduce = {name: "*fp32" for name in ("loss_ptr", "stats_ptr", "rows_ptr")} | {
        "programs": "i32",
        **counts,
    }
    width = {"HAS_REAL": True, "BLOCK": kernel.MAX_PROGRAMS}
    out.append(Variant("adversarial reduce", kernel.reduce_kernel, reduce, width))
    scale = {
        "outr_ptr": "*bf16",
        "outf_ptr": "*bf16",
        "dreal_ptr": "*fp32",
        "dfake_ptr": "*fp32",
        "grad_ptr": "*fp32",
        **counts,
    }
    width = {"HAS_REAL": True, "BLOCK": 1024}
    out.append(Variant("adversarial backward bf16", kernel.scale_kernel, scale, width))
    return out


register(
    Op(
        "adversarial",
        adversarial,
        adversarial_reference,
        [
            *(
                _case(kind, side, (3, 1, 5, 7), 3.0, "quick", "full")
                for kind in LOSSES
                for side in SIDES
            ),
            *(_case(kind, side, (130,), 1e4, "full") for kind in LOSSES for side in SIDES),
            *(_case(kind, side, (2, 3), 2.0, "gradcheck") for kind in LOSSES for side in SIDES),
            _case("non-saturating", "g", (1,), 3.0, "quick", "full", real=False),
            # The gradient of a mean over 20011 logits is subnormal in fp16: PyTorch's is as far
            # off.
            _case("relativistic", "d", (20011,), 3.0, "quick", "full", dtypes=("fp32", "bf16")),
            _case("hinge", "d", (128, 1, 1, 1), 3.0, "full", "layer"),
            _case("least-squares", "d", (16, 1, 30, 30), 1.0, "full", "layer"),
            _case("non-saturating", "d", (64, 1, 64, 64), 3.0, "layer"),
        ],
        grad_inputs=("real", "fake"),
        outputs=("loss", "stats"),
        directions=("forward", "backward", "double"),
        bounds={"backward:dreal": ONE_NUMBER, "backward:dfake": ONE_NUMBER},
        bytes=_bytes,
        kernels=_variants,
    )
)


def _unequal(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
    real, fake = (torch.randn(n, generator=generator).to(device, dtype) for n in (7, 13))
    return {"kind": "non-saturating", "side": "d", "real": real, "fake": fake}


extend("adversarial", Case("fewer real than fake logits", _unequal, {"quick", "full"}))
