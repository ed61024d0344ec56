"""What `fastgan verify`, `--aot`, `bench` and `tune` know of Adam."""

from __future__ import annotations

import torch

from fastgan.kernels import adam as kernel
from fastgan.ops.adam.functional import adam_ema_, adam_ema_reference_
from fastgan.verify.registry import Case, Kwargs, Op, Variant, register


def _case(
    name: str,
    n: int,
    steps: float,
    *tags: str,
    decay: float | None = None,
    decoupled: bool = False,
    found: float | None = None,
    beta1: float = 0.5,
    ema: bool = True,
) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        draw = lambda scale: torch.randn(n, generator=generator).mul_(scale).to(device)
        scalar = lambda value: (
            None if value is None else torch.tensor(value, dtype=torch.float64, device=device)
        )
        # One storage, so that a block that overruns one buffer damages the next instead of a guard
        # that NaN would not change.
        exp_avg_sq, exp_avg, param, average = torch.stack(
            [draw(0.01).square_(), draw(0.01), draw(0.02), draw(0.02)]
        ).unbind()
        return {
            "param": param,
            "grad": draw(16.0),
            "exp_avg": exp_avg,
            "exp_avg_sq": exp_avg_sq,
            "ema": average if ema else None,
            "low": None if dtype == torch.float32 else param.to(dtype),
            "step": torch.tensor(steps, device=device),
            "lr": scalar(2e-4),
            "beta1": scalar(beta1),
            "beta2": scalar(0.999),
            "eps": scalar(1e-8),
            "weight_decay": scalar(decay),
            "decoupled": decoupled,
            "ema_decay": scalar(0.995) if ema else None,
            "scale": torch.tensor(128.0, device=device),
            "found_inf": None if found is None else torch.tensor(found, device=device),
            "ticket": torch.zeros(1, dtype=torch.int32, device=device),
        }

    return Case(name, make, set(tags))


def _bytes(kwargs: Kwargs, direction: str) -> int:
    tensors = [kwargs[name] for name in ("param", "exp_avg", "exp_avg_sq", "ema")]
    low = kwargs["low"]
    return (
        kwargs["grad"].nbytes
        + sum(2 * t.nbytes for t in tensors if t is not None)
        + (0 if low is None else low.nbytes)
    )


def _variants() -> list[Variant]:
    single = "param grad avg avg_sq ema step scale found"
    double = "lr beta1 beta2 eps decay ema_decay"
    signature = {f"{name}_ptr": "*fp32" for name in single.split()} | {
        f"{name}_ptr": "*fp64" for name in double.split()
    }
    signature |= {
        "low_ptr": "*bf16",
        "ticket_ptr": "*i32",
        "pieces_ptr": "*i32",
        "places_ptr": "*i64",
        "n": "i32",
    }
    full = {
        "HAS_EMA": True,
        "HAS_LOW": True,
        "HAS_SCALE": True,
        "HAS_FOUND": True,
        "UNIT": kernel.ALIGN,
    }
    config = {k: v for k, v in kernel.DEFAULT.items() if k != "PROGRAMS"}
    aligned = [name for name in signature if signature[name][0] == "*"] + ["n"]
    return [
        Variant(
            f"adam_ema {name}",
            kernel.adam_ema_kernel,
            signature,
            {"DECAY": mode, "SCATTERED": scattered, **full},
            [{**config, "enable_fp_fusion": False}],
            aligned=aligned,
            tuned="adam_ema",
        )
        for mode, name, scattered in (
            (1, "Adam", False),
            (2, "AdamW", False),
            (0, "Adam, gradients where they lie", True),
            (2, "AdamW, gradients where they lie", True),
        )
    ]


register(
    Op(
        "adam_ema",
        adam_ema_,
        adam_ema_reference_,
        [
            _case("first step 992", 992, 0.0, "quick", "full"),
            _case(
                "AdamW step 7 of 1056",
                1056,
                6.0,
                "quick",
                "full",
                decay=0.1,
                decoupled=True,
                found=0.0,
                beta1=0.9,
            ),
            _case(
                "Adam decay step 1001 of 2080",
                2080,
                1000.0,
                "full",
                decay=0.1,
                beta1=0.0,
                ema=False,
            ),
            _case("skipped 160", 160, 3.0, "quick", "full", found=1.0, decay=0.1),
            _case("dcgan 3.58 M", 3_576_960, 100.0, "layer"),
            _case("pix2pix 54.4 M", 54_400_000, 100.0, "layer"),
        ],
        mutates=("param", "exp_avg", "exp_avg_sq", "ema", "low", "step"),
        bytes=_bytes,
        kernels=_variants,
        candidates={
            "adam_ema": [
                {"BLOCK": b, "PROGRAMS": p} for b in (512, 1024, 2048) for p in (1056, 2112, 65536)
            ]
        },
    )
)
