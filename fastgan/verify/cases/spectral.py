"""What `fastgan verify`, `bench` and `tune` know of the spectral norm."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.kernels.spectral import launch as kernels
from fastgan.kernels.spectral.kernels import (
    column_product_kernel,
    finish_kernel,
    normalise_kernel,
    outer_kernel,
    overlap_kernel,
    row_product_kernel,
    weight_gradient_kernel,
)
from fastgan.ops.spectral.functional import spectral_sigma
from fastgan.ops.spectral.reference import as_matrix, spectral_sigma_reference
from fastgan.ops.spectral.weights import spectral_weights, spectral_weights_reference
from fastgan.verify.registry import Bound, Case, Kwargs, Op, Variant, register

Shape = tuple[int, ...]

SNGAN_D: tuple[Shape, ...] = (
    *((128, 3, 3, 3), (128, 128, 3, 3), (128, 3, 1, 1)),
    *((128, 128, 3, 3), (128, 128, 3, 3), (128, 128, 1, 1)),
    *((128, 128, 3, 3),) * 4,
    (1, 128),
)
"""Weights of the residual discriminator for 32x32 images (Miyato et al. 2018, table 4): ten
convolutions and the last linear layer."""


def _case(
    name: str,
    shapes: tuple[Shape, ...],
    dims: tuple[int, ...],
    *tags: str,
    iterations: int = 1,
    v_first: bool = False,
    groups: int | None = 1,
    channels_last: bool = True,
) -> Case:
    """groups None: of the weights themselves, in the type that is proven."""

    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        def draw(*size: int) -> Tensor:
            return torch.randn(size, generator=generator).to(device)

        weights = [draw(*shape) for shape in shapes]
        if channels_last:
            weights = [
                w.contiguous(memory_format=torch.channels_last) if w.dim() == 4 else w
                for w in weights
            ]
        matrices = [as_matrix(w, d).shape for w, d in zip(weights, dims)]
        # u near W v, as in training: from two unrelated vectors sigma is a small difference of
        # large terms
        vs = [F.normalize(draw(w), dim=0) for _, w in matrices]
        us = [F.normalize(as_matrix(w, d) @ v, dim=0) for w, d, v in zip(weights, dims, vs)]
        return {
            "weights": weights,
            "us": us,
            "vs": vs,
            "dims": list(dims),
            "n_power_iterations": iterations,
            "v_first": v_first,
            **({"dtype": dtype} if groups is None else {"groups": groups}),
        }

    return Case(name, make, set(tags))


def _bytes(kwargs: Kwargs, direction: str) -> int:
    """Weights are read twice an iteration and group (once in eval); backward writes one gradient a
    weight."""
    once = sum(w.nbytes for w in kwargs["weights"])
    return once * (
        max(1, 2 * kwargs["n_power_iterations"] * kwargs.get("groups", 1))
        if direction == "forward"
        else 1
    )


def _all_bytes(kwargs: Kwargs, direction: str) -> int:
    """Beside the power iteration: weights in and out; backward reads gradients twice and weights
    once, and writes."""
    elements = sum(w.numel() for w in kwargs["weights"])
    low = elements * kwargs["dtype"].itemsize
    if direction == "forward":
        return _bytes(kwargs, direction) + 4 * elements + low
    return 8 * elements + 2 * low


def _named(made: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return {f"layer {i}": weight for i, weight in enumerate(made)}


def weight_variants(layers: int = 4) -> list[Variant]:
    """Compiled forms of what divides the weights."""
    fp32: Any = ("*fp32",) * layers
    out = []
    for config in kernels.CANDIDATES:
        rows = {
            "num_warps": config["num_warps"],
            "num_stages": config["num_stages"],
            "BLOCK_R": config["ROWS"],
            "BLOCK_C": config["ROW_COLUMNS"],
        }
        tables = {"layers_ptr": "*i32", "blocks_ptr": "*i32"}
        for kind in ("*fp32", "*bf16"):
            low: Any = (kind,) * layers
            flat = dict.fromkeys(("partial_ptr", "sigma_ptr", "flat_u_ptr", "flat_v_ptr"), "*fp32")
            for kernel, signature, fixed in (
                (
                    normalise_kernel,
                    {"weight_ptrs": fp32, "out_ptrs": low, "sigma_ptr": "*fp32", **tables},
                    {},
                ),
                (
                    overlap_kernel,
                    {"weight_ptrs": fp32, "grad_ptrs": low, "partial_ptr": "*fp32", **tables},
                    {},
                ),
                (
                    weight_gradient_kernel,
                    {"grad_ptrs": low, "out_ptrs": fp32, **flat, **tables},
                    {"MOST_BLOCKS": 64},
                ),
            ):
                name = f"spectral {kernel.__name__} {kind}"
                out.append(Variant(name, kernel, signature, {"LAYERS": layers, **fixed}, [rows]))
    return out


def variants(layers: int = 4) -> list[Variant]:
    """Compiled forms, with pointers as tuples of arguments."""
    fp32, table, size = "*fp32", "*i32", "i32"
    many: Any = (fp32,) * layers
    common = {
        "in_ptr": fp32,
        "out_ptr": fp32,
        "layers_ptr": table,
        "blocks_ptr": table,
        "eps": "fp32",
    }
    out = []
    for config in kernels.CANDIDATES:
        launch = {"num_warps": config["num_warps"], "num_stages": config["num_stages"]}
        rows = {**launch, "BLOCK_R": config["ROWS"], "BLOCK_C": config["ROW_COLUMNS"]}
        columns = {**launch, "BLOCK_R": config["COLUMN_ROWS"], "BLOCK_C": config["COLUMNS"]}
        for flat in (True, False):
            fixed = {"LAYERS": layers, "FLAT": flat}
            out.append(
                Variant(
                    "spectral rows",
                    row_product_kernel,
                    {"weight_ptrs": many, "v_ptrs": many, **common},
                    fixed,
                    [rows],
                )
            )
            out.append(
                Variant(
                    "spectral columns",
                    column_product_kernel,
                    {"weight_ptrs": many, "u_ptrs": many, **common},
                    fixed,
                    [columns],
                )
            )
        flats = dict.fromkeys(("dsigma_ptr", "flat_u_ptr", "flat_v_ptr"), fp32)
        sizes = {"layers_ptr": table, "blocks_ptr": table, "U": size, "V": size, "GROUPS": size}
        out.append(
            Variant(
                "spectral outer",
                outer_kernel,
                {"grad_ptrs": many, **flats, **sizes},
                {"LAYERS": layers},
                [rows],
            )
        )
    vectors = dict.fromkeys(
        ("raw_u_ptr", "raw_v_ptr", "flat_u_ptr", "flat_v_ptr", "sigma_ptr"), fp32
    )
    for iterated in (True, False):
        signature = {
            "u_ptrs": many,
            "v_ptrs": many,
            **vectors,
            "layers_ptr": table,
            "U": size,
            "V": size,
            "eps": "fp32",
        }
        fixed = {"LAYERS": layers, "ITERATED": iterated, "LAST_IS_V": True}
        out.append(Variant("spectral finish", finish_kernel, signature, fixed, [kernels.FINISH]))
    return out


SMALL: tuple[Shape, ...] = ((17, 33), (5, 3, 3, 3), (3, 6, 2, 2))

register(
    Op(
        "spectral_sigma",
        spectral_sigma,
        spectral_sigma_reference,
        [
            _case("new form, two groups", SMALL, (0, 0, 1), "quick", "full", groups=2),
            _case("old form", SMALL, (0, 0, 1), "quick", "full", v_first=True, channels_last=False),
            _case("eval", SMALL, (0, 0, 1), "full", iterations=0),
            _case(
                "two iterations",
                ((33, 15, 3), (1, 70), (15, 33, 1, 1), (300, 2)),
                (0, 0, 1, 0),
                "full",
                iterations=2,
            ),
            _case("SNGAN-CIFAR D", SNGAN_D, (0,) * len(SNGAN_D), "layer"),
        ],
        grad_inputs=("weights",),
        mutates=("us", "vs"),
        outputs=("sigma",),
        directions=("forward", "backward", "double"),
        dtypes=("fp32",),
        bytes=_bytes,
        kernels=variants,
        candidates={"spectral": kernels.CANDIDATES},
    )
)

ONE_SIGMA = Bound(
    "all elements are divided by one sigma: its rounding, up to one unit in the last place, moves "
    "them together and averages out over none, so PyTorch's own error is anything from 0 to that",
    ratio=6.0,
)

register(
    Op(
        "spectral_weights",
        lambda **given: _named(spectral_weights(**given)),
        lambda **given: _named(spectral_weights_reference(**given)),
        [
            _case("new", SMALL, (0, 0, 1), "quick", "full", groups=None),
            _case("old", SMALL, (0, 0, 1), "full", v_first=True, channels_last=False, groups=None),
            _case("eval", SMALL, (0, 0, 1), "full", iterations=0, groups=None),
            _case(
                "two iterations",
                ((33, 15, 3), (1, 70), (15, 33, 1, 1), (300, 2)),
                (0, 0, 1, 0),
                "full",
                iterations=2,
                groups=None,
            ),
            _case("SNGAN-CIFAR D", SNGAN_D, (0,) * len(SNGAN_D), "layer", groups=None),
        ],
        grad_inputs=("weights",),
        mutates=("us", "vs"),
        directions=("forward", "backward", "double"),
        bounds={
            f"{direction}:{name}": ONE_SIGMA
            for direction, names in (
                ("forward", [f"layer {i}" for i in range(4)]),
                ("backward", [f"dweights[{i}]" for i in range(4)]),
                ("double", [f"d2(dlayer {i})" for i in range(4)]),
                ("double", [f"d2weights[{i}]" for i in range(4)]),
            )
            for name in names
        },
        bytes=_all_bytes,
        kernels=weight_variants,
    )
)
